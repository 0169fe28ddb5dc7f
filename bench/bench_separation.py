"""Separation of two segments by a network of the published shape, against demucs-infer's ``apply_model``.

On a GPU, where segments are taken in batches, `make device` measures it.
"""

from __future__ import annotations

from typing import Any

import pytest

from allin1_core import backends
from bench.gate.cases import separation_case
from bench.measure.load import pinned_threads
from bench.measure.paired import paired_times
from bench.report.records import BenchRecord, BenchRecorder
from parity.agreement import compare
from parity.material import default_track

# Less than a segment of 7.8 s, but more than the 5.85 s after which the next one begins.
_SECONDS = 7


def test_two_segments(record_bench: BenchRecorder, rounds: int, benchmark: Any) -> None:
    pytest.importorskip("demucs_infer", reason="demucs-infer is not installed (extra 'demucs')")
    track, case = default_track().lasting(_SECONDS), separation_case(seconds=_SECONDS)
    with pinned_threads(case.threads) as threads:
        times = paired_times(case.candidate, case.reference, rounds=min(rounds, 3), benchmark=benchmark)
    bound = backends.get("separation", "demucs-infer").bounds["exact"].anything
    agreement = compare(times.candidate_output, times.reference_output, allowed=bound)
    record_bench(
        BenchRecord(
            stage=case.stage,
            backend=case.backend,
            variant=f"htdemucs, {_SECONDS} s",
            reference=case.oracle,
            track=track.name,
            audio_seconds=track.seconds,
            threads=threads,
            **times.as_fields,
            agreement=f"max {agreement.max_difference:.1e} of full scale, bound {bound:.0e}",
            agrees=agreement.passed,
            reference_threads=threads,
            figures={
                "note": "its networks as demucs-infer loads them, convolutions, linear layers, attention by oneDNN"
            },
        )
    )
    assert agreement.passed
