"""The Triton kernels of the network are compiled for every kind of card that they are offered for, without one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

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
def test_kernels_are_compiled_once_and_fit(capability: int, precision: str, tmp_path: Path) -> None:
    """Once for all lengths, and numbers of tracks and folds: nothing is compiled while a track waits."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-m", "parity.triton_targets", str(capability), precision]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    kernels = json.loads(done.stdout)
    assert [kernel["name"] for kernel in kernels] == NAMES
    assert {kernel["after"] for kernel in kernels} == {0}
    assert max(kernel["shared"] for kernel in kernels) <= LEAST_SHARED
