"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer: what `make sanitize` runs.

The Cython extensions of pyproject.toml are compiled once more, with both sanitizers, into ``build/sanitize``; the
normal ones stay as they are. A pytest session then runs with those extensions in place of the normal ones (see
`sanitized_kernels.py`), with Python's own allocator switched off, so that every array lies in guarded memory. The
first report of a sanitizer ends the session, and with it the target, with an error.

A target that has never failed proves nothing. So each run begins with `WRONG_KERNELS`, which read past their array
or overflow: unless the sanitizers report each of them, the run fails.

The kernels of every instruction set that this processor has must have run, and are named in the end: those of the
best one are what users run.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "sanitize"
FLAGS = (
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    "-fno-wrapv",  # Python's own flags define signed overflow, which would hide it here
    "-fno-omit-frame-pointer",
    "-g",
    "-O1",
)
REPORTS = ("ERROR: AddressSanitizer", "runtime error:")

# Each breaks one rule; the last is correct, and shows that a correct kernel passes.
WRONG_KERNELS = {
    "read_past_the_end": "def run(double[::1] x):\n    return (&x[0])[x.shape[0]]\n",
    "write_before_the_start": "def run(double[::1] x):\n    (&x[0] - 1)[0] = 1\n",
    "signed_overflow": (
        "def run(double[::1] x):\n    cdef int n = 2147483600 + <int>x.shape[0]\n    n += 1000\n    return n\n"
    ),
    "misaligned_read": ("def run(double[::1] x):\n    return (<double *>(<char *>&x[0] + 1))[0]\n"),
    "correct": "def run(double[::1] x):\n    return (&x[0])[x.shape[0] - 1]\n",
}


def extensions() -> list[dict[str, Any]]:
    """The extension modules that pyproject.toml declares."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        rows: list[dict[str, Any]] = tomllib.load(file)["tool"]["setuptools"]["ext-modules"]
    return rows


def build(rows: Sequence[Mapping[str, Any]], folder: Path, *, root: Path = ROOT) -> None:
    """Compile extensions with the sanitizers into ``folder/lib``; generated C++ goes to ``folder/c``.

    Parameters
    ----------
    rows : sequence of mapping
        As in pyproject.toml: ``name``, ``sources`` relative to `root`, optionally ``extra-compile-args``.
    """
    import numpy
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    modules = [
        Extension(
            row["name"],
            row["sources"],
            language=row.get("language"),
            # Headers are named relative to the .pyx, from which the generated C++ is far away.
            include_dirs=[str(root / Path(row["sources"][0]).parent), numpy.get_include()],
            define_macros=[("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION")],
            extra_compile_args=[*row.get("extra-compile-args", ()), *FLAGS],
            extra_link_args=[*row.get("extra-link-args", ()), *FLAGS],
        )
        for row in rows
    ]
    before = Path.cwd()
    os.chdir(root)
    try:
        modules = cythonize(modules, build_dir=str(folder / "c"), quiet=True)
        command = build_ext(Distribution({"name": "sanitized", "ext_modules": modules}))
        command.build_lib, command.build_temp = str(folder / "lib"), str(folder / "o")
        command.parallel = os.cpu_count()
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)


def environment(folder: Path) -> dict[str, str]:
    """Variables under which a Python process can load the extensions in ``folder/lib``, and is stopped by a report.

    Raises
    ------
    RuntimeError
        If the compiler has no AddressSanitizer library.
    """
    compiler = os.environ.get("CC", sysconfig.get_config_var("CC")).split()[0]
    # libstdc++ must be there before the sanitizer looks for its exception functions, or the first C++ throw aborts.
    libraries = [_library(compiler, name) for name in ("libasan.so", "libstdc++.so.6")]
    return {
        **os.environ,
        "LD_PRELOAD": " ".join(libraries),
        # Leaks of the interpreter at exit are not ours; test_leaks.py looks for ours.
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:exitcode=99:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
        "PYTHONMALLOC": "malloc",
        "ALLIN1_SANITIZED_KERNELS": str(folder / "lib"),
    }


def _library(compiler: str, name: str) -> str:
    answer = subprocess.run(
        [compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True
    )
    path = Path(answer.stdout.strip())
    if not path.is_absolute():
        raise RuntimeError(
            f"{compiler}: has no {name}; expected gcc with its sanitizer libraries "
            "(Debian: libasan comes with the package gcc); set CC to such a compiler"
        )
    return str(path.resolve())


def check_that_it_can_fail(folder: Path) -> list[str]:
    """Run `WRONG_KERNELS`; return a line for each one on which the sanitizers said the wrong thing."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, source in WRONG_KERNELS.items():
        header = "# cython: language_level=3, boundscheck=False, wraparound=False\n"
        (folder / f"{name}.pyx").write_text(header + source, encoding="utf-8")
    build([{"name": name, "sources": [f"{name}.pyx"]} for name in WRONG_KERNELS], folder, root=folder)
    wrong = []
    for name in WRONG_KERNELS:
        call = f"import sys; sys.path.insert(0, {str(folder / 'lib')!r}); import {name}, numpy; "
        call += f"{name}.run(numpy.ones(1000))"
        child = subprocess.run(
            [sys.executable, "-c", call], env=environment(folder), capture_output=True, text=True, check=False
        )
        reported = any(line in child.stderr for line in REPORTS) and child.returncode != 0
        if reported is (name == "correct") or (name == "correct" and child.returncode != 0):
            wrong.append(f"{name}: status {child.returncode}, {child.stderr.strip()[-600:] or 'no report'}")
    return wrong


def main() -> int:
    """Self-check, build, run the kernels' tests; the exit status is the number that failed, at most 1."""
    if sys.platform != "linux":
        print("make sanitize: needs Linux (LD_PRELOAD) and gcc")
        return 1
    print("self-check: kernels that break the rules must be reported", flush=True)
    wrong = check_that_it_can_fail(FOLDER / "self_check")
    if wrong:
        print("the sanitizers do not report what they should:", *wrong, sep="\n  ")
        return 1
    print("building the kernels with AddressSanitizer and UndefinedBehaviorSanitizer", flush=True)
    build(extensions(), FOLDER)
    tests = [
        str(path) for path in sorted((ROOT / "tests" / "hard_use").glob("test_*_kernel_at_its_edges.py"))
    ]
    child = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "hard_use.sanitized_kernels",
            "-q",
            "-x",
            *tests,
            *sys.argv[1:],
        ],
        env={**environment(FOLDER), "PYTHONPATH": str(ROOT / "tests")},
        cwd=ROOT,
        check=False,
    )
    print("sanitizers: " + ("nothing reported" if child.returncode == 0 else "FAILED"))
    return int(child.returncode != 0)


if __name__ == "__main__":
    sys.exit(main())
