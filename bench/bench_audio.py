"""Reading the stems of a track, a thread a file: WAV against madmom's own reading, FLAC and MP3 on their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core.audio.types import STEM_NAMES, Stems
from allin1_core.separation import read_stems_folder
from bench.measure.load import pinned_threads
from bench.measure.paired import own_times, paired_times
from bench.report.records import BenchRecord, BenchRecorder
from parity.agreement import compare
from parity.environment import usable_cores
from parity.material import SAMPLE_RATE, default_track
from parity.oracles.madmom_import import import_madmom, madmom_version

_ROUNDS = 9  # it is a tenth of a second


def _written(folder: Path, suffix: str) -> list[Path]:
    """The default track's stems as files of 16 bits, or MP3."""
    paths = [folder / f"{stem}.{suffix}" for stem in STEM_NAMES]
    for path, samples in zip(paths, default_track().stems, strict=True):
        soundfile.write(path, samples, SAMPLE_RATE)
    return paths


def _record(
    backend: str, variant: str, seconds: np.ndarray, reference_seconds: np.ndarray, same: bool, note: str
) -> BenchRecord:
    track = default_track()
    return BenchRecord(
        stage="audio reading",
        backend=backend,
        variant=variant,
        reference=f"madmom {madmom_version()}" if reference_seconds.size else "",
        track=track.name,
        audio_seconds=track.seconds,
        threads=usable_cores(),
        seconds=seconds.tolist(),
        reference_seconds=reference_seconds.tolist(),
        agreement="bit-identical" if same else "other samples",
        agrees=same,
        figures={"note": note} if note else {},
        reference_threads=1 if reference_seconds.size else None,
    )


def test_reading_wav(tmp_path: Path, record_bench: BenchRecorder, rounds: int, benchmark: Any) -> None:
    import_madmom()
    from madmom.audio.signal import Signal

    paths = _written(tmp_path, "wav")

    def madmom() -> np.ndarray:
        # Of a WAV file madmom has the pages mapped: to stack them is to read them.
        return np.stack([np.asarray(Signal(str(path), num_channels=1)) for path in paths])

    with pinned_threads(usable_cores()):
        times = paired_times(
            lambda: read_stems_folder(tmp_path), madmom, rounds=max(rounds, _ROUNDS), benchmark=benchmark
        )
    stems: Stems = times.candidate_output
    same = compare(stems.samples, times.reference_output).passed
    note = (
        "ours reads, checks and copies every sample, where madmom maps the file into memory; both from files that "
        "the system keeps in memory"
    )
    record_bench(_record("soundfile", "four stems, WAV", times.candidate, times.reference, same, note))
    assert same


@pytest.mark.parametrize("suffix", ["flac", "mp3"])
def test_reading_what_is_compressed(
    tmp_path: Path, record_bench: BenchRecorder, rounds: int, suffix: str, benchmark: Any
) -> None:
    """On its own: madmom hands every format but WAV to the program ffmpeg."""
    _written(tmp_path, suffix)
    with pinned_threads(usable_cores()):
        seconds = own_times(
            lambda: read_stems_folder(tmp_path), rounds=max(rounds, _ROUNDS), benchmark=benchmark
        )
    samples, expected = read_stems_folder(tmp_path).samples, default_track().stems
    same = samples.shape == expected.shape if suffix == "mp3" else compare(samples, expected).passed
    note = "madmom reads it only with the program ffmpeg; compared with the samples that were written"
    note += " in number alone, for MP3 loses some of each" if suffix == "mp3" else ""
    record_bench(_record("ffmpeg", f"four stems, {suffix.upper()}", seconds, np.empty(0), same, note))
    assert same
