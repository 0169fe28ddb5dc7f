"""Instructions that the compiled kernels execute on a fixed input, counted by valgrind's callgrind.

A count does not care what else the machine does: it repeats to the last one, so a loss of 1 % shows that no time would
show. It does depend on the compiler and on the instruction set that the kernel chose (valgrind offers AVX2 at
most), so counts are compared only with those of a build by the same compiler on the same machine.

    python -m bench.measure.instructions
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.measure import tree

_ROOT = Path(__file__).resolve().parents[2]

# A call of `bench.measure.tree`, and the extension module of the kernel that it exercises.
KERNELS = {
    "decoder/cython/exact": "allin1_core.dbn._viterbi",
    "decoder/cython/online": "allin1_core.dbn._viterbi",
    "spectrogram/fused/exact": "allin1_core.spectrogram._transform",
    "network/fused/exact": "allin1_core.network._fused",
}


def valgrind_is_installed() -> bool:
    """Whether counts can be taken here."""
    return shutil.which("valgrind") is not None


def compiler() -> str:
    """Version line of the C++ compiler, or ``unknown``."""
    command = os.environ.get("CXX", "c++")
    if shutil.which(command) is None:
        return "unknown"
    output = subprocess.run([command, "--version"], capture_output=True, text=True, check=False).stdout
    return output.splitlines()[0] if output else "unknown"


def count_instructions(call: str, folder: Path = _ROOT) -> int:
    """Instructions that a call executes inside the shared object of its kernel.

    Parameters
    ----------
    call : str
        One of `KERNELS`.
    folder : Path
        Holds the ``allin1_core`` and ``parity`` to run.

    Raises
    ------
    RuntimeError
        If valgrind fails or takes more than five minutes, or the kernel did not run.
    """
    extension = KERNELS[call].rpartition(".")[2]
    with tempfile.TemporaryDirectory() as scratch:
        output = Path(scratch, "callgrind.out")
        callgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={output}"]
        try:
            child = subprocess.run(
                [*callgrind, sys.executable, "-P", tree.__file__, call],
                cwd=folder,
                # An empty name leaves the choice to the processor, as which valgrind has no AVX-512.
                env={**tree.environment(folder), "ALLIN1_INSTRUCTION_SET": ""},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeError(f"{call}: valgrind took more than {error.timeout:.0f} s") from error
        if child.returncode != 0:
            raise RuntimeError(f"{call}: valgrind ended with {child.returncode}: {child.stderr[-1000:]}")
        count = _self_cost(output.read_text(encoding="utf-8"), f"/{extension}.")
    if count == 0:
        raise RuntimeError(f"{call}: callgrind saw no instruction of {extension}; the kernel did not run")
    return count


def _self_cost(profile: str, object_name: str) -> int:
    """Instructions of all functions in shared objects whose path contains `object_name`, without their callees.

    In callgrind's format a name is written ``(number) name`` once and ``(number)`` from then on; a line of two
    figures is a position and its own cost, except after ``calls=``, where it is the cost of the call.
    """
    names: dict[str, str] = {}
    inside = after_call = False
    total = 0
    for line in profile.splitlines():
        if match := re.match(r"ob=\((\d+)\)(?: (.*))?$", line):
            number, name = match.groups()
            if name:
                names[number] = name
            inside = object_name in names[number]
        elif match := re.match(r"cob=\((\d+)\) (.*)$", line):
            names[match[1]] = match[2]
        elif line.startswith("calls="):
            after_call = True
        elif line[:1] in ("+", "-", "*") or line[:1].isdigit():
            if inside and not after_call:
                total += int(line.split()[-1])
            after_call = False
    return total


def main() -> int:
    """Count and print all kernels."""
    if not valgrind_is_installed():
        print("instructions: valgrind is not installed", file=sys.stderr)
        return 1
    print(f"compiler: {compiler()}")
    for call in KERNELS:
        print(f"{call}: {count_instructions(call):,} instructions", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
