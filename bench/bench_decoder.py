"""The decoder: every kernel against madmom, on one thread and two, its growth, its memory, and its peers.

The input is made from a score (madmom's and ours alike are given the same array): activations of a song in 4/4 at
about 104 BPM, 195.5 s, with a network's faults. Every row's paths and log probabilities are compared with the
oracle's; a row that differs in a single frame does not agree.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import DBNDownBeatTrackingProcessor
from allin1_core.dbn.hidden_markov_model import bar_model
from bench.measure.calls import decode
from bench.measure.memory import peak_memory_bytes
from bench.measure.paired import growth_point, is_brief, own_times, paired_times, sure_rounds
from bench.report.records import BenchRecord, BenchRecorder
from parity.agreement import compare
from parity.decoder_agreement import compare_decodings, decode_all, f_measure
from parity.environment import usable_cores
from parity.inputs.activations import FPS, steady
from parity.oracles import madmom_dbn

SECONDS = 195.5
_GROWTH_SECONDS = (15, 60, 195, 600, 1800, 3600)
_PEER_SECONDS = 30.0
# Of what takes seconds.
_FEW_ROUNDS = 4
_TRACK = "made from a score"


def _memory(backend: str, meters: list[int], threads: int, seconds: float) -> int:
    keywords: dict[str, Any] = {"beats_per_bar": meters, "num_threads": threads, "backend": backend}
    return peak_memory_bytes(decode, steady(seconds), warmup=(steady(5),), **keywords)


def _by_length(decoder: DBNDownBeatTrackingProcessor, meters: list[int]) -> list[dict[str, Any]]:
    """Median time and peak memory of activations of each length; madmom keeps 2 GB of states for 195 s."""
    return [
        growth_point(
            seconds,
            functools.partial(decoder, steady(seconds)),
            _memory("cython", meters, decoder.num_threads, seconds),
        )
        for seconds in _GROWTH_SECONDS
    ]


def _in_processes(array: np.ndarray, meters: list[int], number: int) -> str:
    """A note: how long madmom takes where it decodes bar lengths side by side, which is not its default."""
    with madmom_dbn.decoder_in_processes(number, beats_per_bar=meters, fps=FPS) as oracle:
        seconds = np.median(own_times(lambda: oracle(array), rounds=_FEW_ROUNDS))
    return f"madmom takes {seconds * 1000:.0f} ms in {number} processes, which it is not by default"


# A thread decodes one bar length, and the numpy kernel holds the GIL: other combinations are the same as these. The
# numpy kernel, there to be read, takes 2 s for the whole: it decodes a quarter of a minute.
_ROWS = [
    ("cython", [3, 4], 1, SECONDS),
    ("cython", [3, 4], 2, SECONDS),
    ("cython", [4], 1, SECONDS),
    ("numpy", [3, 4], 1, 15.0),
]


def _variant(meters: list[int], threads: int, seconds: float) -> str:
    length = "" if seconds == SECONDS else f", {seconds:.0f} s"
    return f"{meters}, {threads} thread{'s' * (threads > 1)}{length}"


@pytest.mark.parametrize(("backend", "meters", "threads", "seconds"), _ROWS, ids=str)
def test_against_madmom(
    backend: str,
    meters: list[int],
    threads: int,
    seconds: float,
    record_bench: BenchRecorder,
    rounds: int,
    benchmark: Any,
) -> None:
    array = steady(seconds)
    ours = DBNDownBeatTrackingProcessor(meters, fps=FPS, num_threads=threads, backend=backend)
    oracle = madmom_dbn.make_decoder(beats_per_bar=meters, fps=FPS)
    times = paired_times(
        lambda: ours(array),
        lambda: oracle(array),
        rounds=min(rounds, _FEW_ROUNDS) if backend == "numpy" else sure_rounds(rounds),
        benchmark=benchmark,
    )
    found, expected = decode_all(ours, array), decode_all(oracle, array)
    agreement = compare_decodings(found[1], times.candidate_output, expected[1], times.reference_output)
    figures: dict[str, Any] = {}
    if threads > 1:
        figures["note"] = _in_processes(array, meters, threads)
    # What an analysis runs.
    if backend == "cython" and meters == [3, 4] and threads == 2 and not is_brief(rounds):
        figures["by_length"] = _by_length(ours, meters)
    record_bench(
        BenchRecord(
            stage="decoder",
            backend=ours.choice.backend,
            variant=_variant(meters, threads, seconds),
            reference=madmom_dbn.oracle_name(),
            track=_TRACK,
            audio_seconds=seconds,
            threads=min(threads, usable_cores()),
            **times.as_fields,
            agreement="bit-identical"
            if agreement.identical
            else f"{agreement.frames_different} frames differ",
            agrees=agreement.identical,
            peak_memory_bytes=_memory(backend, meters, threads, seconds),
            figures=figures,
            reference_threads=1,
        )
    )
    assert agreement.identical, agreement


_STATES = ("num_states", "state_positions", "state_intervals", "first_states", "last_states")
_TRANSITIONS = ("states", "pointers", "probabilities", "log_probabilities")


def _models_differ(ours: Any, oracle: Any) -> list[str]:
    """The attributes of states and transitions that are not madmom's to the bit, over all bar lengths."""
    wrong = []
    for found, expected in zip(ours.hmms, oracle.hmms, strict=True):
        ours_model, oracle_model = found.transition_model, expected.transition_model
        wrong += _unequal(ours_model, oracle_model, _TRANSITIONS)
        wrong += _unequal(ours_model.state_space, oracle_model.state_space, _STATES)
    return wrong


def _unequal(one: Any, other: Any, names: tuple[str, ...]) -> list[str]:
    pairs = {name: [np.asarray(getattr(model, name)) for model in (one, other)] for name in names}
    return [name for name, (found, expected) in pairs.items() if not compare(found, expected).passed]


def test_construction(record_bench: BenchRecorder, rounds: int, benchmark: Any) -> None:
    """Making a decoder, with its models made anew, and with those of the one before."""
    parameters: dict[str, Any] = {"beats_per_bar": [3, 4], "fps": FPS}

    def warm() -> DBNDownBeatTrackingProcessor:
        return DBNDownBeatTrackingProcessor(**parameters)

    def cold() -> DBNDownBeatTrackingProcessor:
        bar_model.cache_clear()
        return warm()

    times = paired_times(
        cold, lambda: madmom_dbn.make_decoder(**parameters), rounds=max(rounds, 9), benchmark=benchmark
    )
    cached = float(np.median(own_times(warm, rounds=9)))
    wrong = _models_differ(times.candidate_output, times.reference_output)
    record_bench(
        BenchRecord(
            stage="decoder",
            backend="cython",
            variant="construction",
            reference=madmom_dbn.oracle_name(),
            track="[3, 4]",
            audio_seconds=0.0,
            threads=1,
            **times.as_fields,
            agreement="bit-identical states and transitions"
            if not wrong
            else f"other than madmom's: {', '.join(wrong)}",
            agrees=not wrong,
            figures={"note": f"a second decoder with the same parameters takes {cached * 1000:.2g} ms"},
            reference_threads=1,
        )
    )
    assert not wrong
    assert cached < np.median(times.candidate)


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


def _differences(beats: np.ndarray, expected: np.ndarray) -> str:
    """How one list of beats, ``(num_beats, 2)`` of time and position, differs from another."""
    agreement = compare(beats, expected)
    if agreement.passed:
        return "same beats"
    if beats.dtype != expected.dtype or beats.shape[1:] != expected.shape[1:]:
        return agreement.fault
    score = f_measure(expected[:, 0], beats[:, 0])
    if len(beats) != len(expected):
        return f"{len(beats)} beats instead of {len(expected)}, F-measure {score:.3f}"
    times, positions = (compare(beats[:, column], expected[:, column]) for column in (0, 1))
    return (
        f"of {len(beats)} beats {times.different} at other times (up to {times.max_difference * 1000:.0f} ms), "
        f"{positions.different} in other positions; F-measure {score:.3f}"
    )


@pytest.mark.parametrize("peer", _PEERS)
def test_against_peer(peer: str, record_bench: BenchRecorder, rounds: int, benchmark: Any) -> None:
    """How long others take for half a minute, and how far their beats are from madmom's."""
    if importlib.util.find_spec(peer.replace("-", "_")) is None:
        pytest.skip(f"{peer} is not installed (`make peers`)")
    array = steady(_PEER_SECONDS)
    theirs = _PEERS[peer]()
    oracle = madmom_dbn.make_decoder(beats_per_bar=[3, 4], fps=FPS)
    # A call of madmom-infer takes seconds.
    counted = min(rounds, _FEW_ROUNDS) if peer == "madmom-infer" else sure_rounds(rounds)
    times = paired_times(lambda: theirs(array), lambda: oracle(array), rounds=counted, benchmark=benchmark)
    beats, expected = np.asarray(times.candidate_output), times.reference_output
    record_bench(
        BenchRecord(
            stage="decoder",
            backend=f"{peer} {importlib.metadata.version(peer)}",
            variant=_variant([3, 4], 1, _PEER_SECONDS),
            reference=madmom_dbn.oracle_name(),
            track=_TRACK,
            audio_seconds=_PEER_SECONDS,
            threads=1,
            **times.as_fields,
            agreement=_differences(beats, expected),
            agrees=compare(beats, expected).passed,
            role="peer",
            reference_threads=1,
        )
    )
