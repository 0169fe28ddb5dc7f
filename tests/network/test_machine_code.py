"""The inner loops of the network's linear layers and convolutions, as compiled here: no accumulator goes to memory."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from allin1_core.network import _fused

# Products in a step of the inner loop, OUTPUTS * VECTORS of layers.h: as many accumulators.
ACCUMULATORS = {"avx512": 24, "avx2": 12} if platform.machine() == "x86_64" else {"baseline": 24}
PRODUCT = re.compile(r"vfn?madd\d+ps|fmla")
# A store of a vector register relative to the stack's pointer or the frame's.
SPILL = re.compile(r"v?mov\w*\s+%[xyz]mm\d+,\S*\(%r[sb]p|st[rpu]+\s+q\d+,.*\[(?:sp|x29)")
BRANCH = re.compile(r"(?:j\w+|b(?:\.\w+)?|cbn?z|tbn?z)\s+(?:.*,\s*)?(?:0x)?([0-9a-f]+)\s*<")


def inner_loops(disassembly: str) -> list[list[str]]:
    """Instructions of each loop that has no loop within."""
    lines = re.findall(r"^\s*([0-9a-f]+):\s+(.*)$", disassembly, re.MULTILINE)
    places = {int(address, 16): place for place, (address, _) in enumerate(lines)}
    loops = []
    for stop, (_, instruction) in enumerate(lines):
        if branch := BRANCH.match(instruction):
            start = places.get(int(branch[1], 16), stop + 1)
            if start <= stop:
                loops.append((start, stop))
    inner = [
        (start, stop)
        for start, stop in loops
        if not any(start <= a and b <= stop and (a, b) != (start, stop) for a, b in loops)
    ]
    return [[instruction for _, instruction in lines[start : stop + 1]] for start, stop in inner]


def spills(loops: list[list[str]], accumulators: int) -> list[int]:
    """Spilled registers in each loop with that many products, or a multiple where loops were joined."""
    counts = [(sum(bool(PRODUCT.match(line)) for line in loop), loop) for loop in loops]
    return [
        sum(bool(SPILL.match(line)) for line in loop)
        for products, loop in counts
        if products and products % accumulators == 0
    ]


@pytest.mark.skipif(shutil.which("objdump") is None, reason="needs objdump, which reads machine code")
@pytest.mark.parametrize("name", ACCUMULATORS)
@pytest.mark.parametrize("kernel", ["stem", "time_layers", "instrument_layers"])
def test_no_accumulator_of_a_linear_layer_or_a_convolution_is_spilled(name: str, kernel: str) -> None:
    command = ["objdump", "-d", "--no-show-raw-insn", str(Path(_fused.__file__))]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    functions = dict(re.findall(r"^[0-9a-f]+ <(\w+)>:\n((?:.+\n)+)", text, re.MULTILINE))
    [code] = [
        body
        for symbol, body in functions.items()
        if re.match(rf"_ZN\d+{name}\d+_GLOBAL__N_1L?\d+{kernel}E", symbol)  # "L": GCC 16
    ]
    found = spills(inner_loops(code), ACCUMULATORS[name])
    assert len(found) >= 3
    assert found == [0] * len(found)


def test_a_spill_is_seen() -> None:
    loop = ["vfmadd231ps %ymm1,%ymm2,%ymm3"] * 12
    for spill, count in (("vmovaps %ymm3,0x40(%rsp)", 1), ("vmovaps 0x40(%rsp),%ymm3", 0)):
        lines = [*loop, spill, "jne 0 <f>"]
        text = "".join(f" {4 * place:x}:\t{line}\n" for place, line in enumerate(lines))
        assert spills(inner_loops(text), 12) == [count]
    arm = [*["fmla v1.4s, v2.4s, v3.s[0]"] * 24, "str q1, [sp, #32]", "b.ne 0 <f>"]
    assert spills(inner_loops("".join(f" {4 * i:x}:\t{line}\n" for i, line in enumerate(arm))), 24) == [1]
