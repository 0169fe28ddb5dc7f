"""Inputs and outputs of NATTEN 0.17.5's neighbourhood attention, recorded; needs no NATTEN."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

ORACLE = "NATTEN 0.17.5"
CASES = ("1d/0", "1d/1", "1d/2", "1d/3", "1d/4", "2d/0", "2d/1", "2d/2")


@dataclasses.dataclass(frozen=True)
class AttentionCase:
    """One recorded call: queries, keys and values (B, heads, T, D) or (B, heads, rows, T, D), the bias, the output."""

    kernel_size: int
    dilation: int
    queries: np.ndarray
    keys: np.ndarray
    values: np.ndarray
    bias: np.ndarray
    output: np.ndarray


def read_case(shared: Path, case: str) -> AttentionCase:
    """The recorded call of that name, one of `CASES`."""
    with np.load(shared / "golden" / "natten_0_17_5.npz") as archive:
        return AttentionCase(
            kernel_size=int(archive[f"{case}/kernel_size"]),
            dilation=int(archive[f"{case}/dilation"]),
            queries=archive[f"{case}/q"],
            keys=archive[f"{case}/k"],
            values=archive[f"{case}/v"],
            bias=archive[f"{case}/rpb"],
            output=archive[f"{case}/out"],
        )
