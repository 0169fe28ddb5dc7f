"""Builds the package for 64-bit Arm and runs it under emulation, beside this processor: `make arm` -> reports/arm.md.

Python and its headers come from Debian's arm64 packages, by the system's own apt settings but with lists of their own;
what the package needs from wheels; the kernels from the cross compiler with the flags of pyproject.toml. QEMU's user
emulation finds all of it below one folder: nothing is installed, no root is needed, and processes that a test starts
with `sys.executable` cannot run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from allin1_core.files.writing import write_text
from parity.agreement import Agreement, compare
from parity.environment import describe_machine
from parity.material import shared_folder
from parity.reports.publish import now
from parity.reports.tables import markdown

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "arm"
SYSTEM, SITE, TREE = (BUILD / name for name in ("system", "site", "tree"))
# Tools, and the Debian packages that have them.
TOOLS = {
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
    "git": "git",
    "qemu-aarch64-static": "qemu-user-static",
    "aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu",
}
# Run at the same time.
TESTS = {
    "decoder": ["tests/dbn/test_dbn_bad_input.py", "tests/dbn/test_dbn_extras.py"],
    "spectrogram": [
        "tests/spectrogram/test_spectrogram.py",
        "tests/hard_use/test_transform_kernel_at_its_edges.py",
    ],
    "structure": ["tests/dbn/test_metrical.py", "tests/structure/test_structure.py"],
    "network": [
        "tests/network/test_network.py",
        "tests/hard_use/test_network_kernel_at_its_edges.py",
        "--deselect=tests/network/test_network.py::test_fused_needs_neither_torch_nor_mlx",  # starts a process
    ],
}
TEST_PACKAGES = ("hypothesis", "mir_eval", "psutil", "pytest", "pytest-timeout")
# numpy's float32 logarithm rounds as the processor's instructions do: seen 1.5e-5 of 5,000.
LOG_PROBABILITY = 1e-4


def run(*command: object, **keywords: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; `CalledProcessError` if it fails."""
    return subprocess.run([str(part) for part in command], check=True, text=True, **keywords)


def missing_tools() -> str | None:
    """What is not installed, and how to install it; None if all is there."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not absent:
        return None
    packages = " ".join(sorted(TOOLS[tool] for tool in absent))
    return f"make arm: not installed: {', '.join(absent)}; on Debian: apt-get install {packages}"


def unpack_system() -> str:
    """Unpack Debian's Python for arm64, and give its version, such as "3.11"."""
    state = BUILD / "apt"
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True)
    (state / "status").touch()  # of nothing that is installed
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
    }
    apt = ["apt-get", "--quiet=2", *(f"-o{name}={value}" for name, value in options.items())]
    run(*apt, "update")
    packages = ("python3", "libpython3-dev", "libstdc++6")
    run(*apt, "install", "--download-only", "--yes", "--no-install-recommends", *packages)
    for package in sorted((state / "archives").glob("*.deb")):
        run("dpkg-deb", "--extract", package, SYSTEM)
    return os.readlink(SYSTEM / "usr/bin/python3").removeprefix("python")


def install_wheels(version: str, project: dict) -> None:
    """Unpack what the package and its tests need, in the versions that the reports are measured with."""
    platforms = ("manylinux_2_28_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
    run(
        *(
            sys.executable,
            "-m",
            "pip",
            "install",
            "-qq",
            "--no-warn-conflicts",
            "--target",
            SITE,
            "--only-binary=:all:",
        ),
        *(f"--platform={platform}" for platform in platforms),
        *("--python-version", version, "--implementation", "cp"),
        *(
            "--constraint",
            ROOT / ".ci" / "constraints.txt",
            *project["project"]["dependencies"],
            *TEST_PACKAGES,
        ),
    )


def build_tree(version: str, project: dict) -> None:
    """Copy the checkout, and compile its kernels for Arm."""
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT, stdout=-1)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, TREE / name)
    headers = SYSTEM / "usr/include"
    for module in project["tool"]["setuptools"]["ext-modules"]:
        source = TREE / module["sources"][0]
        run(sys.executable, "-m", "cython", "--cplus", source)
        target = source.with_name(f"{source.stem}.cpython-{version.replace('.', '')}-aarch64-linux-gnu.so")
        run(
            *("aarch64-linux-gnu-g++", "-shared", "-fPIC", "-O2", "-DNDEBUG", *module["extra-compile-args"]),
            *(f"-I{headers}/python{version}", f"-idirafter{headers}"),
            *(source.with_suffix(".cpp"), "-o", target),
        )


def on_arm(*arguments: object, **keywords: object) -> subprocess.CompletedProcess[str]:
    """Run the emulated Python in the tree."""
    environment = {**os.environ, "PYTHONPATH": f"{TREE}:{SITE}"}
    shared = shared_folder()
    if shared is not None:
        environment["ALLIN1_SHARED"] = str(shared.resolve())
    python = (SYSTEM / "usr/bin/python3").resolve()
    command = ("qemu-aarch64-static", "-L", SYSTEM, python, *arguments)
    return run(*command, cwd=TREE, env=environment, **keywords)


def run_tests(part: str) -> Counter[str]:
    """How many of the tests of a part of `TESTS` passed, failed and were skipped; failures are printed."""
    path = BUILD / f"{part}.xml"
    try:
        on_arm("-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={path}", *TESTS[part], stdout=-1)
    except subprocess.CalledProcessError as error:
        print(error.stdout, file=sys.stderr)
        if error.returncode != 1:  # other than a test that failed
            raise
    return count_tests(path)


def count_tests(path: Path) -> Counter[str]:
    """What pytest wrote of its session into a file of JUnit's XML."""
    suite = next(ElementTree.parse(path).iter("testsuite"))
    total, failures, errors, skipped = (
        int(suite.attrib[name]) for name in ("tests", "failures", "errors", "skipped")
    )
    failed = failures + errors
    return Counter(passed=total - failed - skipped, failed=failed, skipped=skipped)


def run_goldens() -> dict[str, Agreement]:
    """The outputs for the short goldens, here and on Arm, compared; none where the reference material is absent."""
    if shared_folder() is None:
        return {}
    files = {name: BUILD / f"{name}.npz" for name in ("arm", "here")}
    run(sys.executable, ROOT / ".ci" / "arm_outputs.py", files["here"])
    on_arm(TREE / ".ci" / "arm_outputs.py", files["arm"])
    return compare_outputs(*(dict(np.load(file)) for file in files.values()))


def compare_outputs(arm: dict[str, np.ndarray], here: dict[str, np.ndarray]) -> dict[str, Agreement]:
    """Each output on Arm beside the same on this processor: to the bit, but for logarithms that numpy takes."""
    allowed = {"log probability": LOG_PROBABILITY, "probabilities": 1e-6}
    return {
        name: compare(
            arm.get(name), expected, allowed=allowed.get(name.partition(", ")[2], 0.0), documented=(-np.inf,)
        )
        for name, expected in here.items()
    }


def report(
    counts: Mapping[str, int], doctor: str, agreements: dict[str, Agreement], seconds: dict[str, float]
) -> str:
    """Markdown: what ran, how it ended, with which versions, and how long it took."""
    passed = counts["passed"] > counts["failed"] == 0 and all(
        agreement.passed for agreement in agreements.values()
    )
    tests = f"{counts['passed']} tests passed, {counts['failed']} failed, {counts['skipped']} skipped"
    others = f"{sum(one.passed for one in agreements.values())} of {len(agreements)} outputs are the same"
    lines = [
        "# Arm: does it run, and give the same?",
        "",
        f"**{'Yes' if passed else 'No'}: {tests}; {others}.**",
        "",
    ]
    python = (
        "import numpy, platform; print('Python', platform.python_version(), 'and numpy', numpy.__version__)"
    )
    versions = [
        run("qemu-aarch64-static", "--version", stdout=-1).stdout.splitlines()[0],
        run("aarch64-linux-gnu-g++", "--version", stdout=-1).stdout.splitlines()[0],
        on_arm("-c", python, stdout=-1).stdout.strip(),
    ]
    lines += [
        f"64-bit Arm (NEON) under emulation, {now()}, on {describe_machine()['cpu']}, by `make arm`:",
        f"{'; '.join(versions)}. No speed can be told from it. Skipped is what needs torch or MLX.",
        "",
    ]
    if agreements:
        outputs = [
            {
                "output": name,
                "beside this processor": str(one),
                "held to": "the same bits" if one.allowed == 0 else f"<= {one.allowed:g}",
            }
            for name, one in agreements.items()
        ]
        lines.append(markdown(outputs))
    else:
        lines.append("**The goldens were left out: the shared reference material is not here.**")
    parts = {**seconds, "together": sum(seconds.values())}
    lines += [
        "",
        markdown(
            [{"part": name, "seconds": f"{taken:.0f}"} for name, taken in parts.items()], right={"seconds"}
        ),
        "",
        "`doctor` on Arm:",
        "",
        "```",
        *re.findall(r"^  ok .*$", doctor, flags=re.M),
        "```",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    absent = missing_tools()
    if absent:
        print(absent, file=sys.stderr)
        return 2
    shutil.rmtree(BUILD, ignore_errors=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    seconds: dict[str, float] = {}
    last = time.monotonic()

    def done(part: str) -> None:
        nonlocal last
        seconds[part], last = time.monotonic() - last, time.monotonic()
        print(f"make arm: {part}: {seconds[part]:.0f} s", flush=True)

    version = unpack_system()
    install_wheels(version, project)
    done("system and wheels")
    build_tree(version, project)
    done("cross-compiling")
    doctor = on_arm("-m", "allin1_core.cli", "doctor", stdout=-1).stdout
    done("doctor")
    with ThreadPoolExecutor() as pool:
        compared = pool.submit(run_goldens)
        counts = sum(pool.map(run_tests, TESTS), Counter())
        agreements = compared.result()
    done("tests and goldens")
    text = report(counts, doctor, agreements, seconds)
    write_text(ROOT / "reports" / "arm.md", text)
    print(text)
    return int("**Yes" not in text)


if __name__ == "__main__":
    sys.exit(main())
