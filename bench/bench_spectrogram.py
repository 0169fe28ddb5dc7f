"""The log spectrogram of four stems: every backend and precision against madmom, its growth, and its memory."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy.typing as npt
import pytest

from allin1_core.spectrogram import log_spectrogram, select
from bench.machine import pinned_threads, usable_cores
from bench.memory import peak_memory_bytes
from bench.paired import paired_times
from bench.records import BenchRecord, BenchRecorder
from bench.tracks import SAMPLE_RATE, default_track
from parity.assertions import measure_agreement
from parity.cases_spectrogram import (
    OWN_OPERATIONS,
    Implementation,
    label,
    own_operations,
    spectrogram_backends,
)
from parity.oracles.madmom_import import madmom_version
from parity.oracles.madmom_spectrogram import backend as madmom

_GROWTH_SECONDS = (15, 60, 195, 600)
_MEMORY_SECONDS = (195, 600)
_GROWTH_ROUNDS = 3

_NOTE = "here this backend's arrays hold what the fused kernels compute; its own operations have rows of their own"

IMPLEMENTATIONS = [
    pytest.param(implementation, id=str(implementation)) for implementation in spectrogram_backends()
]
COMPARED = [
    *IMPLEMENTATIONS,
    *(
        pytest.param(implementation, id=f"{label(implementation.backend)}-{implementation.precision}")
        for implementation in own_operations()
    ),
]


def compute_once(stems: npt.NDArray, **keywords: Any) -> npt.NDArray:
    """What a fresh process runs to measure memory."""
    return log_spectrogram(stems, **keywords)


@pytest.mark.parametrize("implementation", COMPARED)
def test_against_madmom(implementation: Implementation, record_bench: BenchRecorder, rounds: int) -> None:
    track = default_track()
    compute = select(implementation.backend, device=implementation.device, precision=implementation.precision)
    with pinned_threads(usable_cores()) as threads:
        times = paired_times(
            lambda: compute(track.stems), lambda: madmom(track.stems, SAMPLE_RATE), rounds=rounds
        )
        agreement = measure_agreement(times.candidate_output, times.reference_output)
        agrees = agreement.within(implementation.bound.music)
    figures: dict[str, Any] = {}
    if compute.choice.hands_on:
        figures |= {"computed_by": compute.choice.computed_by, "note": _NOTE}
    elif implementation.backend not in OWN_OPERATIONS.values():
        figures["by_length"] = [_point(implementation, seconds) for seconds in _GROWTH_SECONDS]
    record_bench(
        BenchRecord(
            stage="spectrogram",
            backend=label(compute.choice.backend),
            device=compute.choice.device,
            precision=implementation.precision,
            variant="",
            reference=f"madmom {madmom_version()}",
            track=track.name,
            audio_seconds=track.seconds,
            threads=threads,
            seconds=times.candidate.tolist(),
            reference_seconds=times.reference.tolist(),
            agreement=str(agreement),
            agrees=agrees,
            peak_memory_bytes=_peak_memory(implementation, track.stems),
            figures=figures,
        )
    )
    assert agrees, f"{implementation} on {track.name}: {agreement}, declared {implementation.bound.music:.2g}"


def _point(implementation: Implementation, seconds: int) -> dict[str, Any]:
    """Median time, and peak memory for some, of the track cut or repeated to a length."""
    stems = default_track().lasting(seconds).stems
    compute = select(implementation.backend, device=implementation.device, precision=implementation.precision)
    times = []
    for _ in range(_GROWTH_ROUNDS):
        start = time.perf_counter()
        compute(stems)
        times.append(time.perf_counter() - start)
    point: dict[str, Any] = {"audio_seconds": seconds, "seconds": statistics.median(times)}
    if seconds in _MEMORY_SECONDS:
        point["peak_memory_bytes"] = _peak_memory(implementation, stems)
    return point


def _peak_memory(implementation: Implementation, stems: npt.NDArray) -> int:
    return peak_memory_bytes(
        compute_once,
        stems,
        warmup=(stems[:, :SAMPLE_RATE].copy(),),
        backend=implementation.backend,
        precision=implementation.precision,
        device=implementation.device,
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_time(implementation: Implementation, benchmark: Any, rounds: int) -> None:
    compute = select(implementation.backend, device=implementation.device, precision=implementation.precision)
    output = benchmark.pedantic(compute, args=(default_track().stems,), rounds=rounds, warmup_rounds=1)
    assert output.shape[0] == 4
