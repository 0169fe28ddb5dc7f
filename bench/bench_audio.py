"""Reading the stems of a track, a thread a file: WAV against madmom's own reading, FLAC and MP3 against libsndfile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core.audio.types import STEM_NAMES, Stems
from allin1_core.separation import read_stems_folder
from allin1_core.threads import ThreadPool
from bench.measure.load import pinned_threads
from bench.measure.paired import PairedTimes, paired_times
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
    reference: str, variant: str, times: PairedTimes, same: bool, note: str, reference_threads: int
) -> BenchRecord:
    track = default_track()
    return BenchRecord(
        stage="audio reading",
        backend="soundfile",
        variant=variant,
        reference=reference,
        track=track.name,
        audio_seconds=track.seconds,
        threads=usable_cores(),
        seconds=times.candidate.tolist(),
        reference_seconds=times.reference.tolist(),
        agreement="bit-identical" if same else "other samples",
        agrees=same,
        figures={"note": note},
        reference_threads=reference_threads,
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
    record_bench(_record(f"madmom {madmom_version()}", "four stems, WAV", times, same, note, 1))
    assert same


@pytest.mark.parametrize(("suffix", "dtype"), [("flac", "int16"), ("mp3", "float32")])
def test_reading_what_is_compressed(
    tmp_path: Path, record_bench: BenchRecorder, rounds: int, suffix: str, dtype: str, benchmark: Any
) -> None:
    """Against bare decoding with libsndfile, since madmom hands every format but WAV to the program ffmpeg."""
    paths = _written(tmp_path, suffix)

    def libsndfile() -> np.ndarray:
        with ThreadPool(usable_cores()) as pool:
            return np.stack([samples for samples, _ in pool.map(_decode, paths)])

    def _decode(path: Path) -> tuple[np.ndarray, int]:
        return soundfile.read(path, dtype=dtype)

    with pinned_threads(usable_cores()):
        times = paired_times(
            lambda: read_stems_folder(tmp_path), libsndfile, rounds=max(rounds, _ROUNDS), benchmark=benchmark
        )
    same = compare(times.candidate_output.samples, times.reference_output).passed
    note = "the reference decodes in as many threads, and checks nothing"
    reference = f"soundfile {soundfile.__version__}"
    record_bench(_record(reference, f"four stems, {suffix.upper()}", times, same, note, usable_cores()))
    assert same
