"""Analyses tracks in one run, with all their arrays, and tells how much memory the process took at most for each.

Arguments: model, output folder, then the tracks. Prints a JSON list of bytes, one for each track.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from allin1_core import analyze
from allin1_core.results.result import AnalysisResult


def peak_since_last() -> int:
    """High-water mark of resident memory in bytes, which starts anew."""
    lines = Path("/proc/self/status").read_text().splitlines()
    Path("/proc/self/clear_refs").write_text("5")
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:"))


def main(model: str, folder: str, *paths: str) -> None:
    peaks: list[int] = []
    save = AnalysisResult.save

    def save_and_measure(self: AnalysisResult, *arguments: Any, **keywords: Any) -> Path:
        written = save(self, *arguments, **keywords)
        peaks.append(peak_since_last())
        return written

    AnalysisResult.save = save_and_measure  # type: ignore[method-assign]
    analyze(
        paths,
        out_dir=folder,
        model=model,
        device="cpu",
        include_activations=True,
        include_embeddings=True,
        progress=False,
    )
    print(json.dumps(peaks))


if __name__ == "__main__":
    main(*sys.argv[1:])
