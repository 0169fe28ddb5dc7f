"""Runs a command with AVX-512 left out of everything that computes: ``python -m parity.without_avx512 COMMAND ...``.

A machine with AVX-512 stands for one without: the kernels of this project, numpy, its BLAS, torch and its libraries
each choose their code by the processor, and each can be told to take what a processor with AVX2 alone would run. On a
machine without AVX-512 this changes nothing.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import numpy as np


def environment() -> dict[str, str]:
    """The variables to set. numpy names its groups of instructions anew from release to release, and is asked."""
    found = np.show_config(mode="dicts")["SIMD Extensions"]["found"]
    return {
        "ALLIN1_INSTRUCTION_SET": "AVX2",
        "NPY_DISABLE_CPU_FEATURES": " ".join(name for name in found if name.startswith(("AVX512", "X86_V4"))),
        "OPENBLAS_CORETYPE": "Haswell",
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
    }


def what_computes() -> dict[str, object]:
    """What this process computes with, as each library says of itself."""
    import torch
    from threadpoolctl import threadpool_info

    from allin1_core.dbn import _viterbi
    from allin1_core.network import _fused
    from allin1_core.spectrogram import _transform

    return {
        "kernels": sorted({kernel.instruction_set() for kernel in (_transform, _fused, _viterbi)}),
        "numpy": np.show_config(mode="dicts")["SIMD Extensions"]["found"],
        "blas": sorted({str(pool["architecture"]) for pool in threadpool_info() if "architecture" in pool}),
        "torch": torch.backends.cpu.get_cpu_capability(),
    }


def main(command: Sequence[str]) -> None:
    """Replace this process by the command."""
    os.execvpe(command[0], list(command), {**os.environ, **environment()})


if __name__ == "__main__":
    main(sys.argv[1:])
