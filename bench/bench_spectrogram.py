"""The log spectrogram of four stems: every backend and precision against madmom, its growth, and its memory.

What an analysis runs is timed on the whole track: on a minute it would be over before the second core is awake. The
others are timed on a minute, in proportion to which madmom's time grows; their memory is of the whole track.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from allin1_core.spectrogram import select
from bench.measure.calls import compute_spectrogram
from bench.measure.load import pinned_threads
from bench.measure.memory import peak_memory_bytes
from bench.measure.paired import growth_point, is_brief, own_times, paired_times, sure_rounds
from bench.report.records import BenchRecord, BenchRecorder
from parity.agreement import compare
from parity.environment import usable_cores
from parity.implementations import Implementation, implementations, label, own_operations
from parity.material import SAMPLE_RATE, default_track
from parity.oracles.madmom_import import madmom_version
from parity.oracles.madmom_spectrogram import backend as madmom

_SECONDS = 60
_GROWTH_SECONDS = (15, 60, 195, 600)
_CLEARLY_LESS = 0.8
# What an analysis runs, and whose growth is shown.
_DEFAULT = "fused"
# On one thread, as madmom is, stand the default and the backend that is bit-identical.
_ON_ONE_THREAD = ("fused", "numpy")

_NOTE = "here this backend's arrays hold what the fused kernels compute; its own operations have rows of their own"

IMPLEMENTATIONS = [
    pytest.param(implementation, id=str(implementation)) for implementation in implementations("spectrogram")
]
COMPARED = [
    *IMPLEMENTATIONS,
    *(
        pytest.param(implementation, id=f"{label(implementation.backend)}-{implementation.precision}")
        for implementation in own_operations()
    ),
]


@pytest.mark.parametrize("implementation", COMPARED)
def test_against_madmom(
    implementation: Implementation, record_bench: BenchRecorder, rounds: int, benchmark: Any
) -> None:
    row = _paired_row(implementation, usable_cores(), rounds, benchmark)
    if (implementation.backend, implementation.precision) == ("numpy", "fast"):
        row.figures.update(_without_threads_in_blas(implementation, row.median))
    if implementation.backend == _DEFAULT:
        row.figures["by_length"] = [_point(implementation, seconds) for seconds in _GROWTH_SECONDS]
    record_bench(row)
    assert row.agrees, f"{implementation} on {row.track}: {row.agreement}"


@pytest.mark.skipif(usable_cores() == 1, reason="the rows above are on one thread")
@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("backend", _ON_ONE_THREAD)
def test_on_one_thread(
    backend: str, precision: str, record_bench: BenchRecorder, rounds: int, benchmark: Any
) -> None:
    """Thread for thread: madmom uses one."""
    if is_brief(rounds) and precision == "fast":
        pytest.skip(f"{rounds} rounds: a thorough run has fast on one thread too")
    row = _paired_row(Implementation(backend, precision), 1, rounds, benchmark)
    record_bench(row)
    assert row.agrees, f"{backend}, {precision} on {row.track}: {row.agreement}"


def _paired_row(implementation: Implementation, threads: int, rounds: int, benchmark: Any) -> BenchRecord:
    """Time one implementation against madmom on the track or a minute of it, and compare what they return."""
    track = default_track()
    if implementation.backend != _DEFAULT or threads != usable_cores():
        track = track.lasting(_SECONDS)
    compute = select(implementation.backend, device=implementation.device, precision=implementation.precision)
    hands_on = compute.choice.hands_on
    with pinned_threads(threads):
        times = paired_times(
            lambda: compute(track.stems),
            lambda: madmom(track.stems, SAMPLE_RATE),
            rounds=sure_rounds(rounds),
            benchmark=benchmark,
        )
    agreement, agrees = agreement_of(
        times.candidate_output, times.reference_output, implementation.bound.music
    )
    figures: dict[str, Any] = {}
    if hands_on:
        figures = {"computed_by": compute.choice.computed_by, "note": _NOTE}
    return BenchRecord(
        stage="spectrogram",
        backend=label(compute.choice.backend),
        device=compute.choice.device,
        precision=implementation.precision,
        reference=f"madmom {madmom_version()}",
        track=track.name,
        audio_seconds=track.seconds,
        threads=threads,
        **times.as_fields,
        agreement=agreement,
        agrees=agrees,
        # Of what is handed on it is that of the kernels.
        peak_memory_bytes=None if hands_on else _peak_memory(implementation, default_track().stems, threads),
        figures=figures,
        # Its product with the filterbank, a hundredth of its time, is left to a BLAS, which has those of the row.
        reference_threads=1,
    )


def _without_threads_in_blas(implementation: Implementation, median: float) -> dict[str, str]:
    """A note where ``fast`` is slowed down by its many small products, which wait for one another in the BLAS."""
    from threadpoolctl import threadpool_limits

    compute = select(implementation.backend, precision=implementation.precision)
    stems = default_track().lasting(_SECONDS).stems
    with pinned_threads(usable_cores()), threadpool_limits(1, "blas"):
        times = own_times(lambda: compute(stems), rounds=3)
    alone = float(np.median(times))
    if alone > _CLEARLY_LESS * median:
        return {}
    return {
        "note": f"{alone * 1000:.3g} ms where the BLAS is held to one thread: threads of ours and of the BLAS wait for "
        "one another at its many small products; the rows on one thread show the two precisions without that"
    }


def agreement_of(found: Any, expected: npt.NDArray, bound: float) -> tuple[str, bool]:
    """How close a log spectrogram is to the reference's, in words, and whether that is close enough."""
    agreement = compare(found, expected, allowed=bound)
    if agreement.max_difference == 0:
        return "bit-identical", True
    return f"max {agreement.max_difference:.2g} in log10 of magnitude, bound {bound:.2g}", agreement.passed


def _point(implementation: Implementation, seconds: int) -> dict[str, Any]:
    """Median time and peak memory of the track cut or repeated to a length."""
    stems = default_track().lasting(seconds).stems
    compute = select(implementation.backend, device=implementation.device, precision=implementation.precision)
    with pinned_threads(usable_cores()) as threads:
        peak = _peak_memory(implementation, stems, threads)
        return growth_point(seconds, lambda: compute(stems), peak)


def _peak_memory(implementation: Implementation, stems: npt.NDArray, threads: int) -> int:
    return peak_memory_bytes(
        compute_spectrogram,
        stems,
        warmup=(stems[:, :SAMPLE_RATE].copy(),),
        threads=threads,
        backend=implementation.backend,
        precision=implementation.precision,
        device=implementation.device,
    )
