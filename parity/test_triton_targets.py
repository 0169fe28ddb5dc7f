"""The Triton kernels are compiled for every kind of card that they are offered for, without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

NAMES = [
    *("stem_frequency", "stem_time", "attend_time", "feed_forward_time", "attend_instruments"),
    *("feed_forward_instruments", "feed_forward_instruments", "heads"),
]
# Bytes of shared memory that a program may have on the smallest of these: 8.6, 8.9 and 12.0.
LEAST_SHARED = 99 << 10
CAPABILITIES = (80, 86, 89, 90, 100, 120)


@pytest.mark.parametrize(
    ("capability", "precision"),
    [
        pytest.param(
            capability,
            precision,
            marks=() if (capability, precision) == (90, "fast") else pytest.mark.full,
        )
        for capability in CAPABILITIES
        for precision in ("exact", "fast")
    ],
)
def test_kernels_of_the_network_are_compiled_once_and_fit(
    capability: int, precision: str, tmp_path: Path
) -> None:
    """Once for all lengths, and numbers of tracks and folds: nothing is compiled while a track waits."""
    kernels = compiled(capability, precision, tmp_path)
    assert [kernel["name"] for kernel in kernels] == NAMES
    assert {kernel["after"] for kernel in kernels} == {0}
    assert max(kernel["shared"] for kernel in kernels) <= LEAST_SHARED


@pytest.mark.parametrize(
    "capability",
    [pytest.param(one, marks=() if one == 90 else pytest.mark.full) for one in CAPABILITIES],
)
def test_kernels_of_the_separation_are_compiled_and_fit(capability: int, tmp_path: Path) -> None:
    pytest.importorskip("demucs_infer", reason="demucs-infer is not installed (extra 'demucs')")
    kernels = compiled(capability, "separation", tmp_path)
    assert {kernel["name"] for kernel in kernels} == {"activate", "attend", "moments", "normalise"}
    assert max(kernel["shared"] for kernel in kernels) <= LEAST_SHARED


def compiled(capability: int, what: str, cache: Path) -> list[dict[str, Any]]:
    """What `parity.triton_targets` prints, in a process of its own: Triton's target is one for a process."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(cache)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "parity.triton_targets", str(capability), what]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    kernels: list[dict[str, Any]] = json.loads(done.stdout)
    return kernels
