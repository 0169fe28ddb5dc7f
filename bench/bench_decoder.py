"""The decoder: every kernel against madmom, on one thread and two, its growth, its memory, and its peers.

The input is made from a score (madmom's and ours alike are given the same array): activations of a song in 4/4 at
about 104 BPM, 195.5 s, with a network's faults. Every row's paths and log probabilities are compared with the
oracle's; a row that differs in a single frame does not agree.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import DBNDownBeatTrackingProcessor
from allin1_core.dbn.hidden_markov_model import bar_model
from bench.machine import usable_cores
from bench.memory import peak_memory_bytes
from bench.paired import paired_times
from bench.records import BenchRecord, BenchRecorder
from parity.activations import FPS, from_beats
from parity.decoder_agreement import compare, decode_all, f_measure
from parity.oracles import madmom_dbn

SECONDS = 195.5
_GROWTH_SECONDS = (15, 60, 195, 600, 1800, 3600)
# madmom keeps a state for every frame: 2 GB for 195 s. Ours is held to 64 MB there, and to 500 MB for an hour.
_MEMORY_SECONDS = (195, 600, 3600)
_GROWTH_ROUNDS = 3
_TRACK = "made from a score"


@functools.cache
def activations(seconds: float) -> np.ndarray:
    """Activations of that length, ``float32 (num_frames, 2)``, the same in every run."""
    times = np.arange(0.3, seconds - 0.5, 60 / 104)
    array = from_beats(times, np.arange(len(times)) % 4 + 1, seconds, seed=3)
    array.setflags(write=False)
    return array


def decode_once(array: np.ndarray, **keywords: Any) -> np.ndarray:
    """What a fresh process runs to measure memory."""
    return DBNDownBeatTrackingProcessor(fps=FPS, **keywords)(array)


def _memory(backend: str, meters: list[int], threads: int, seconds: float) -> int:
    keywords: dict[str, Any] = {"beats_per_bar": meters, "num_threads": threads, "backend": backend}
    return peak_memory_bytes(decode_once, activations(seconds), warmup=(activations(5),), **keywords)


def _by_length(decoder: DBNDownBeatTrackingProcessor, meters: list[int]) -> list[dict[str, Any]]:
    """Median time, and peak memory for some, of activations of each length."""
    points = []
    for seconds in _GROWTH_SECONDS:
        times = []
        for _ in range(_GROWTH_ROUNDS):
            start = time.perf_counter()
            decoder(activations(seconds))
            times.append(time.perf_counter() - start)
        point: dict[str, Any] = {"audio_seconds": seconds, "seconds": statistics.median(times)}
        if seconds in _MEMORY_SECONDS:
            point["peak_memory_bytes"] = _memory("cython", meters, decoder.num_threads, seconds)
        points.append(point)
    return points


# A thread decodes one bar length, and the numpy kernel holds the GIL: other combinations are the same as these.
_ROWS = [("cython", [3, 4], 1), ("cython", [3, 4], 2), ("cython", [4], 1), ("numpy", [3, 4], 1)]


@pytest.mark.parametrize(("backend", "meters", "threads"), _ROWS, ids=str)
def test_against_madmom(
    backend: str, meters: list[int], threads: int, record_bench: BenchRecorder, rounds: int
) -> None:
    array = activations(SECONDS)
    ours = DBNDownBeatTrackingProcessor(meters, fps=FPS, num_threads=threads, backend=backend)
    oracle = madmom_dbn.make_decoder(beats_per_bar=meters, fps=FPS)
    times = paired_times(lambda: ours(array), lambda: oracle(array), rounds=rounds)
    found, expected = decode_all(ours, array), decode_all(oracle, array)
    agreement = compare(found[1], times.candidate_output, expected[1], times.reference_output)
    figures: dict[str, Any] = {"f_measure": agreement.f_measure}
    if backend == "cython" and meters == [3, 4]:
        figures["by_length"] = _by_length(ours, meters)
    record_bench(
        BenchRecord(
            stage="decoder",
            backend=ours.choice.backend,
            device="cpu",
            precision="exact",
            variant=f"{meters}, {threads} thread{'s' * (threads > 1)}",
            reference=madmom_dbn.oracle_name(),
            track=_TRACK,
            audio_seconds=SECONDS,
            threads=min(threads, usable_cores()),
            seconds=times.candidate.tolist(),
            reference_seconds=times.reference.tolist(),
            agreement="bit-identical"
            if agreement.identical
            else f"{agreement.frames_different} frames differ",
            agrees=agreement.identical,
            peak_memory_bytes=_memory(backend, meters, threads, SECONDS),
            figures=figures,
        )
    )
    assert agreement.identical, agreement


def test_construction(record_bench: BenchRecorder, rounds: int) -> None:
    """Making a decoder, with its models made anew, and with those of the one before."""
    parameters: dict[str, Any] = {"beats_per_bar": [3, 4], "fps": FPS}

    def cold() -> None:
        bar_model.cache_clear()
        DBNDownBeatTrackingProcessor(**parameters)

    times = paired_times(cold, lambda: madmom_dbn.make_decoder(**parameters), rounds=max(rounds, 5))
    cached = []
    for _ in range(rounds):
        start = time.perf_counter()
        DBNDownBeatTrackingProcessor(**parameters)
        cached.append(time.perf_counter() - start)
    record_bench(
        BenchRecord(
            stage="decoder",
            backend="cython",
            device="cpu",
            precision="exact",
            variant="construction",
            reference=madmom_dbn.oracle_name(),
            track="[3, 4]",
            audio_seconds=0.0,
            threads=1,
            seconds=times.candidate.tolist(),
            reference_seconds=times.reference.tolist(),
            agreement="same states and transitions (parity)",
            agrees=True,
            figures={"cached_seconds": statistics.median(cached)},
        )
    )
    assert statistics.median(cached) < statistics.median(times.candidate)


def _madmom_infer() -> Callable[[np.ndarray], np.ndarray]:
    from madmom_infer.features.downbeats import DBNDownBeatTrackingProcessor as Decoder

    decoder: Callable[[np.ndarray], np.ndarray] = Decoder(beats_per_bar=[3, 4], fps=FPS)
    return decoder


def _metricon() -> Callable[[np.ndarray], np.ndarray]:
    from metricon import Activations, track_downbeats

    def decode(array: np.ndarray) -> np.ndarray:
        seen = Activations.from_activations(array.sum(axis=1), array[:, 1], fps=FPS)
        found = track_downbeats(seen, beats_per_bar=(3, 4), fps=FPS, num_tempi=60, threshold=0.05)
        return np.asarray(found.as_array())

    return decode


_PEERS = {"madmom-infer": _madmom_infer, "metricon": _metricon}
_INSTALLED = [name for name in _PEERS if importlib.util.find_spec(name.replace("-", "_"))]


@pytest.mark.parametrize("peer", _INSTALLED)
def test_against_peer(peer: str, record_bench: BenchRecorder, rounds: int) -> None:
    """How long others take for 60 s, and how far their beats are from madmom's."""
    array = activations(60)
    theirs = _PEERS[peer]()
    oracle = madmom_dbn.make_decoder(beats_per_bar=[3, 4], fps=FPS)
    times = paired_times(lambda: theirs(array), lambda: oracle(array), rounds=min(rounds, 3), warmup=0)
    beats, expected = np.asarray(times.candidate_output), times.reference_output
    score = f_measure(expected[:, 0], beats[:, 0])
    record_bench(
        BenchRecord(
            stage="decoder",
            backend=f"{peer} {importlib.metadata.version(peer)}",
            device="cpu",
            precision="exact",
            variant="",
            reference=madmom_dbn.oracle_name(),
            track=_TRACK,
            audio_seconds=60.0,
            threads=1,
            seconds=times.candidate.tolist(),
            reference_seconds=times.reference.tolist(),
            agreement="same beats" if np.array_equal(beats, expected) else f"F-measure {score:.3f}",
            agrees=bool(np.array_equal(beats, expected)),
            figures={"f_measure": score},
            role="peer",
        )
    )


def test_speed(benchmark: Any) -> None:
    """Absolute times, for ``pytest-benchmark compare``."""
    decoder = DBNDownBeatTrackingProcessor([3, 4], fps=FPS)
    beats = benchmark(decoder, activations(SECONDS))
    assert len(beats) > 300
