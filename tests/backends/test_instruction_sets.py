"""Which instruction set the compiled kernels run on: what the processor must have, and what the environment says."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import allin1_core
from allin1_core import self_test
from allin1_core.dbn import _viterbi
from allin1_core.errors import BackendError
from allin1_core.network import _fused
from allin1_core.self_test import NETWORK_BOUND, SPECTROGRAM_BOUND
from allin1_core.simd import _processor, instruction_sets
from allin1_core.spectrogram import _transform

AVAILABLE = instruction_sets.instruction_sets()
KERNELS = {"spectrogram": "fused", "network": "fused", "decoder": "cython"}

# The x86-64 psABI's levels 3 (with 2) and 4: GCC's name of the feature, the word of cpuid, and its bit there, as
# Intel's manual has them (volume 2A, CPUID). The words themselves are leaf 1 ECX, leaf 7 EBX and leaf 0x80000001 ECX.
LEVEL_3 = {
    "sse3": ("leaf1_ecx", 0),
    "ssse3": ("leaf1_ecx", 9),
    "fma": ("leaf1_ecx", 12),
    "cx16": ("leaf1_ecx", 13),
    "sse4.1": ("leaf1_ecx", 19),
    "sse4.2": ("leaf1_ecx", 20),
    "movbe": ("leaf1_ecx", 22),
    "popcnt": ("leaf1_ecx", 23),
    "avx": ("leaf1_ecx", 28),
    "f16c": ("leaf1_ecx", 29),
    "bmi": ("leaf7_ebx", 3),
    "avx2": ("leaf7_ebx", 5),
    "bmi2": ("leaf7_ebx", 8),
    "sahf": ("extended1_ecx", 0),
    "lzcnt": ("extended1_ecx", 5),
}
LEVEL_4 = {
    "avx512f": ("leaf7_ebx", 16),
    "avx512dq": ("leaf7_ebx", 17),
    "avx512cd": ("leaf7_ebx", 28),
    "avx512bw": ("leaf7_ebx", 30),
    "avx512vl": ("leaf7_ebx", 31),
}
# What the operating system has to do: OSXSAVE, and the registers in XCR0 that it saves (volume 1, XSAVE).
SYSTEM_3 = {"osxsave": ("leaf1_ecx", 27), "SSE registers": ("xcr0", 1), "AVX registers": ("xcr0", 2)}
SYSTEM_4 = {"masks": ("xcr0", 5), "upper halves": ("xcr0", 6), "registers 16 to 31": ("xcr0", 7)}

on_x86_64 = pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="on this processor there is one instruction set"
)


def words(*bits: dict[str, tuple[str, int]], without: str = "", rest: int = 0) -> dict[str, int]:
    """The words with these features and, of `rest`, all bits that are no feature of either level."""
    known: dict[str, int] = dict.fromkeys(("leaf1_ecx", "leaf7_ebx", "extended1_ecx", "xcr0"), 0)
    for word, bit in [
        position for group in (LEVEL_3, LEVEL_4, SYSTEM_3, SYSTEM_4) for position in group.values()
    ]:
        known[word] |= 1 << bit
    found = {word: rest & ~mask for word, mask in known.items()}
    for group in bits:
        for name, (word, bit) in group.items():
            found[word] |= (name != without) << bit
    return found


@on_x86_64
@pytest.mark.parametrize("rest", [0, 0xFFFFFFFF], ids=["nothing else", "everything else"])
def test_a_level_needs_each_of_its_bits(rest: int) -> None:
    best = _processor.best_instruction_set
    level_3, level_4 = (LEVEL_3, SYSTEM_3), (LEVEL_3, SYSTEM_3, LEVEL_4, SYSTEM_4)
    assert best(words(rest=rest)) == "baseline x86-64"
    assert best(words(*level_3, rest=rest)) == "AVX2"
    assert best(words(*level_4, rest=rest)) == "AVX-512"
    for name in (*LEVEL_3, *SYSTEM_3):
        assert best(words(*level_3, without=name, rest=rest)) == "baseline x86-64", name
        assert best(words(*level_4, without=name, rest=rest)) == "baseline x86-64", name
    for name in (*LEVEL_4, *SYSTEM_4):
        assert best(words(*level_4, without=name, rest=rest)) == "AVX2", name


def test_kernels_are_compiled_for_what_is_asked_for() -> None:
    header = (Path(allin1_core.__file__).parent / "simd" / "dispatch.h").read_text(encoding="utf-8")
    level_3, level_4 = re.findall(r'^#define ALLIN1_LEVEL[34] .*"(.*)"$', header, re.MULTILINE)
    assert set(level_3.split(",")) == set(LEVEL_3)
    assert level_4.startswith(",")
    assert set(level_4[1:].split(",")) == set(LEVEL_4)
    kernels = [path.read_text(encoding="utf-8") for path in Path(allin1_core.__file__).parent.rglob("*.h")]
    targets = re.findall(r"\b(?:target|BEGIN_TARGET)\((\S+?)\)", "\n".join(kernels))
    assert sorted({*targets} - {"features"}) == ["ALLIN1_LEVEL3", "ALLIN1_LEVEL4"]


def linked(library: Path) -> list[str]:
    """Functions and data of a library that a linker may take from elsewhere, and what it needs of C++'s own library.

    Equal inline functions and templates (weak symbols) are one, whatever instructions each of them was compiled for.
    """
    command = ["nm", "--format=posix", str(library)]
    symbols = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = [line.split()[:2] for line in symbols.splitlines()]
    assert [name for name, _ in names if name in ("PyInit_" + library.name.partition(".")[0], "answer")]
    return sorted(name for name, kind in names if kind in "WVu" or (kind == "U" and name.startswith("_Z")))


@pytest.mark.skipif(sys.platform != "linux" or shutil.which("nm") is None, reason="needs nm, for ELF")
@pytest.mark.parametrize("kernel", [_processor, _transform, _fused, _viterbi], ids=lambda it: it.__name__)
def test_no_function_of_a_set_can_become_another_sets(kernel: ModuleType) -> None:
    assert linked(Path(kernel.__file__)) == []


@pytest.mark.skipif(
    sys.platform != "linux" or not all(map(shutil.which, ("nm", "c++"))), reason="needs nm, for ELF, and c++"
)
def test_a_function_that_could_would_be_seen(tmp_path: Path) -> None:
    source, library = tmp_path / "shared.cpp", tmp_path / "shared.so"
    source.write_text(
        "template <typename T> T twice(T x) { return x + x; }\nint other(int);\nnamespace { inline int mine() "
        '{ return 1; } }\nint (*taken[])(int) = {twice, other};\nint (*own)() = mine;\nextern "C" { int answer; }\n',
        encoding="utf-8",
    )
    subprocess.run(["c++", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    assert linked(library) == ["_Z5otheri", "_Z5twiceIiET_S0_"]


@on_x86_64
@pytest.mark.skipif(
    not Path("/proc/cpuinfo").exists(), reason="the system does not list the processor's features"
)
def test_the_processor_has_what_the_system_says_of_it() -> None:
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    flags = set(re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)[1].split())
    # Where Linux has names of its own.
    names = {
        "sse3": "pni",
        "sse4.1": "sse4_1",
        "sse4.2": "sse4_2",
        "sahf": "lahf_lm",
        "lzcnt": "abm",
        "bmi": "bmi1",
    }
    features = _processor.features()
    found = {name: bool(features[word] >> bit & 1) for name, (word, bit) in {**LEVEL_3, **LEVEL_4}.items()}
    assert found == {name: names.get(name, name) in flags for name in found}


COMPUTE = """
import json, sys
import numpy as np
from allin1_core import backends, self_test
from allin1_core.dbn import _viterbi
from allin1_core.network import _fused
from allin1_core.spectrogram import _transform

np.savez(
    sys.argv[1],
    spectrogram=self_test.spectrogram("fused"),
    network=self_test.network("fused"),
    decoder=self_test.beats("cython"),
)
kernels = {"spectrogram": "fused", "network": "fused", "decoder": "cython"}
print(json.dumps({
    "kernels": [kernel.instruction_set() for kernel in (_transform, _fused, _viterbi)],
    "choices": [backends.choose(*kernel)[1].instruction_set for kernel in kernels.items()],
    "sets": [kernel.instruction_sets() for kernel in (_transform, _fused, _viterbi)],
}))
"""


def run(arguments: list[str], instruction_set: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ALLIN1_INSTRUCTION_SET": instruction_set}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("name", AVAILABLE)
def test_every_kernel_runs_on_the_set_that_is_named(name: str, tmp_path: Path) -> None:
    done = run(["-c", COMPUTE, str(tmp_path / "out.npz")], name)
    assert done.returncode == 0, done.stderr
    permitted = list(AVAILABLE[AVAILABLE.index(name) :])
    assert json.loads(done.stdout) == {
        "kernels": [name] * 3,
        "choices": [name] * 3,
        "sets": [permitted] * 3,
    }
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["decoder"], self_test.beats("cython"))
        for stage, bound in (("spectrogram", SPECTROGRAM_BOUND), ("network", NETWORK_BOUND)):
            np.testing.assert_allclose(found[stage], self_test.stored_values()[stage], rtol=0, atol=bound)


def refusal(name: str) -> str:
    """The message; all that this processor has, whatever this process was told to leave out."""
    available = ", ".join(map(repr, instruction_sets._available()))
    return (
        f"ALLIN1_INSTRUCTION_SET: {name!r}; expected one of {available}, which this processor can run, "
        "or no such variable"
    )


@pytest.mark.parametrize("name", ["AVX3", "avx2", "AVX2 ", "NEON", "AVX-512, AVX2"])
def test_a_set_that_cannot_run_here_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name in instruction_sets._available():
        pytest.skip(f"this processor has {name}")
    monkeypatch.setenv("ALLIN1_INSTRUCTION_SET", name)
    monkeypatch.setattr(instruction_sets, "_best_permitted", instruction_sets._best_permitted.__wrapped__)
    for kernel in (instruction_sets, _viterbi, _transform, _fused):
        with pytest.raises(BackendError) as raised:
            kernel.instruction_set()
        assert str(raised.value) == refusal(name)


def test_the_commands_refuse_a_set_that_cannot_run_here(tmp_path: Path) -> None:
    name = "AVX3"
    message = refusal(name)
    done = run(["-m", "allin1_core.cli", "doctor", "--json"], name)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    for stage, backend in KERNELS.items():
        assert report["stages"][stage]["error"] == message
        [check] = [
            check for check in report["self_test"] if (check["stage"], check["backend"]) == (stage, backend)
        ]
        assert check["error"] == f"BackendError: {message}"
    # What needs no kernels is not held up.
    assert report["stages"]["structure"]["choice"]["backend"] == "numpy"
    done = run(["-m", "allin1_core.cli", "analyze", "absent.wav", "-d", "cpu", "-o", str(tmp_path)], name)
    assert (done.returncode, done.stderr) == (2, f"allin1-core: {message}\n")


def test_the_variable_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    before = instruction_sets.instruction_sets()
    monkeypatch.setenv("ALLIN1_INSTRUCTION_SET", "AVX3")
    for kernel in (instruction_sets, _viterbi, _transform, _fused):
        assert kernel.instruction_sets() == before
        assert kernel.instruction_set() == before[0]


def test_a_set_above_the_named_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruction_sets, "_best_permitted", lambda: AVAILABLE[-1])
    assert instruction_sets.instruction_sets() == AVAILABLE[-1:]
    if len(AVAILABLE) == 1:
        return
    with pytest.raises(ValueError, match=f"instruction_set: {AVAILABLE[0]!r} has no kernels here"):
        instruction_sets.checked(AVAILABLE[0])
    monkeypatch.setattr(instruction_sets, "_best_permitted", lambda: "SSE9")
    for kernel in (_viterbi, _transform, _fused):
        with pytest.raises(BackendError, match="ALLIN1_INSTRUCTION_SET: 'SSE9'; expected one of"):
            kernel.instruction_set()
