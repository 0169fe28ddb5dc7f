"""Reading the stems of a track, a thread a file: WAV against madmom's own reading, FLAC and MP3 against libsndfile."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core.audio.types import Stems
from allin1_core.separation import read_stems_folder
from bench.gate.cases import reading_case, reading_variant, write_reading_stems
from bench.measure.load import pinned_threads
from bench.measure.paired import PairedTimes, paired_times
from bench.report.records import BenchRecord, BenchRecorder
from parity.agreement import compare
from parity.environment import usable_cores
from parity.material import default_track
from parity.oracles.madmom_import import import_madmom, madmom_version

_ROUNDS = 9  # it is a tenth of a second


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
        **times.as_fields,
        agreement="bit-identical" if same else "other samples",
        agrees=same,
        figures={"note": note},
        reference_threads=reference_threads,
    )


@pytest.mark.parametrize("kind", ["wav", "wav stereo"])
def test_reading_wav(
    tmp_path: Path, record_bench: BenchRecorder, rounds: int, kind: str, benchmark: Any
) -> None:
    import_madmom()
    from madmom.audio.signal import Signal

    paths = write_reading_stems(tmp_path, kind)

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
    record_bench(_record(f"madmom {madmom_version()}", reading_variant(kind), times, same, note, 1))
    assert same


@pytest.mark.parametrize("kind", ["flac", "flac stereo", "mp3"])
def test_reading_what_is_compressed(
    record_bench: BenchRecorder, rounds: int, kind: str, benchmark: Any
) -> None:
    """Against bare decoding with libsndfile, since madmom hands every format but WAV to the program ffmpeg."""
    case = reading_case(kind)
    with pinned_threads(case.threads):
        times = paired_times(case.candidate, case.reference, rounds=max(rounds, _ROUNDS), benchmark=benchmark)
    same = compare(times.candidate_output, times.reference_output).passed
    note = "the reference decodes in as many threads, mixes with numpy's mean, and checks nothing"
    record_bench(_record(case.oracle, case.backend, times, same, note, case.threads))
    assert same
