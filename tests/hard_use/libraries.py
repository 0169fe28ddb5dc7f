"""Folders of short tracks, the command that analyses them, and what it leaves behind."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from allin1_core.audio.types import STEM_NAMES

ROOT = Path(__file__).resolve().parents[2]


def write_library(folder: Path, stems: np.ndarray, number: int, seconds: float = 1.5) -> list[Path]:
    """Write a folder of stems for each of so many tracks, no two alike; their paths."""
    length, paths = int(seconds * 44100), []
    for index in range(number):
        paths.append(folder / f"track{index:04d}")
        paths[-1].mkdir(parents=True)
        for stem, samples in zip(STEM_NAMES, np.roll(stems, 1009 * index, axis=1)[:, :length], strict=True):
            soundfile.write(paths[-1] / f"{stem}.wav", samples, 44100)
    return paths


def write_mixes(folder: Path, stems: np.ndarray, number: int, seconds: float = 0.5) -> list[Path]:
    """Write so many mixes, no two alike; their paths."""
    folder.mkdir(parents=True)
    mix, paths = (stems.astype(np.int32).sum(axis=0) // 4).astype(np.int16), []
    for index in range(number):
        paths.append(folder / f"track{index:04d}.wav")
        samples = np.roll(mix, 1009 * index)[: int(seconds * 44100)]
        soundfile.write(paths[-1], np.stack([samples, samples // 2], axis=1), 44100)
    return paths


def command(
    paths: Sequence[Path], model: str, folder: Path, separation_folder: Path | None = None
) -> list[str]:
    """``allin1-core analyze`` with everything that it can leave below a folder; mixes are separated by ``small.th``."""
    separation = ["--demix-model", "small", "--demix-repository", str(separation_folder)]
    return [
        *(sys.executable, "-m", "allin1_core.cli", "analyze", *map(str, paths), "--model", model),
        *("--device", "cpu", "--nn-backend", "fused", "--num-threads", "1", "--jobs", "3", "--quiet"),
        *("--out-dir", str(folder / "struct"), "--activ", "--embed", "--export", "beats,audacity"),
        *("--keep-byproducts", "--spec-dir", str(folder / "spec"), "--demix-dir", str(folder / "demix")),
        *("--timings", str(folder / "timings.jsonl")),
        *(separation if separation_folder else ()),
    ]


def environment() -> dict[str, str]:
    """One thread for each library: several processes share the machine."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": str(ROOT)}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file that a run left, by its path below the folder, without timings."""
    files = (
        path
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in (".jsonl", ".part", ".claim")
    )
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def differing(found: dict[str, bytes], expected: dict[str, bytes]) -> list[str]:
    """Names of files that are not, byte for byte, what they should be."""
    return [name for name, content in found.items() if content != expected.get(name)]


def leftovers(folder: Path) -> list[Path]:
    """Temporary files that were not cleaned up."""
    return [*folder.rglob("*.part"), *folder.rglob("*.claim")]


def rows(out: Path, table: str = "songs") -> list[dict[str, Any]]:
    """The rows of a table of a library, by song."""
    from pyarrow import parquet

    return sorted(parquet.read_table(out / table).to_pylist(), key=lambda row: row["song"])
