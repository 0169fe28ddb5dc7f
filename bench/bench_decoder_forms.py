"""The decoder's other forms: online and bars on given beats beside madmom, what madmom has not beside plain decoding.

The input is made as that of bench_decoder.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import (
    DBNBarTrackingProcessor,
    DBNBeatTrackingProcessor,
    DBNDownBeatTrackingProcessor,
    OnlineDownBeatTracker,
    activations_at_beats,
)
from allin1_core.dbn.posterior import BeatPosterior
from bench.measure.paired import PairedTimes, paired_times, sure_rounds
from bench.report.records import BenchRecord, BenchRecorder
from parity.agreement import compare
from parity.decoder_agreement import compare_decodings
from parity.inputs.activations import FPS, steady
from parity.oracles import madmom_dbn

_SECONDS = 195.5
_FEW_ROUNDS = 4
_TRACK = "made from a score"


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
def test_online(together: bool, record_bench: BenchRecorder, rounds: int, benchmark: Any) -> None:
    """Beats online: all frames of a minute in one call, or one in each; madmom keeps all probabilities of a call."""
    seconds = 60.0 if together else 10.0
    array = steady(seconds).sum(axis=1)
    pieces = [array] if together else list(array[:, np.newaxis])
    ours = DBNBeatTrackingProcessor(fps=FPS, online=True)
    oracle = madmom_dbn.make_online_decoder(fps=FPS)

    def through(decoder: Callable[..., np.ndarray]) -> np.ndarray:
        return np.concatenate([decoder(piece, reset=piece is pieces[0]) for piece in pieces])

    times = paired_times(
        lambda: through(ours),
        lambda: through(oracle),
        rounds=sure_rounds(rounds),
        benchmark=benchmark,
    )
    agreement = compare_decodings([], times.candidate_output, [], times.reference_output)
    record_bench(
        BenchRecord(
            stage="decoder",
            backend=ours.choice.backend,
            variant=f"online, {'all frames together' if together else 'one frame a call'}, {seconds:.0f} s",
            reference=madmom_dbn.oracle_name(),
            track=_TRACK,
            audio_seconds=seconds,
            threads=1,
            seconds=times.candidate.tolist(),
            reference_seconds=times.reference.tolist(),
            agreement="bit-identical" if agreement.identical else agreement.fault,
            agrees=agreement.identical,
            reference_threads=1,
        )
    )
    assert agreement.identical, agreement


def _record(
    record_bench: BenchRecorder,
    variant: str,
    times: PairedTimes,
    reference: str,
    agreement: str,
    agrees: bool,
    **more: Any,
) -> None:
    record_bench(
        BenchRecord(
            stage="decoder",
            backend="cython",
            variant=variant,
            reference=reference,
            track=_TRACK,
            threads=1,
            seconds=times.candidate.tolist(),
            reference_seconds=times.reference.tolist(),
            agreement=agreement,
            agrees=agrees,
            reference_threads=1,
            **more,
        )
    )
    assert agrees, agreement


def test_bars_on_given_beats(record_bench: BenchRecorder, rounds: int, benchmark: Any) -> None:
    activations = steady(250.0)
    beats = DBNDownBeatTrackingProcessor([4], fps=FPS)(activations)[:, 0]
    rows = activations_at_beats(beats, activations[:, 1], FPS)
    ours, oracle = DBNBarTrackingProcessor(), madmom_dbn.make_bar_tracker()
    times = paired_times(
        lambda: ours(rows), lambda: oracle(rows), rounds=sure_rounds(rounds), benchmark=benchmark
    )
    agreement = compare_decodings([], times.candidate_output, [], times.reference_output)
    words = "bit-identical" if agreement.identical else agreement.fault
    variant = f"bars on {len(beats)} given beats"
    name = madmom_dbn.oracle_name()
    _record(record_bench, variant, times, name, words, agreement.identical, audio_seconds=250.0)


# 1 minus it is 1: what it changes to is never better, and all else is as apart.
_PROHIBITIVE = 1e-300


def _through(online: OnlineDownBeatTracker, pieces: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([*map(online, pieces), online.finish()])


@pytest.mark.parametrize("kind", ["hints", "changing bars", "confidences", "online downbeats"])
def test_beside_plain_decoding(kind: str, record_bench: BenchRecorder, rounds: int, benchmark: Any) -> None:
    """What madmom has not, beside our own decoding of the same: how much more it costs."""
    seconds = 60.0 if kind == "online downbeats" else _SECONDS
    array = steady(seconds)
    plain = DBNDownBeatTrackingProcessor([3, 4], fps=FPS, threshold=0)
    beats = plain(array)
    if kind == "hints":
        anchors = beats[::20].copy()
        anchors[:, 0] += 0.03
        candidate: Callable[[], np.ndarray] = functools.partial(plain, array, anchors=anchors)
        kept = {*map(tuple, np.round(anchors, 9))} <= {*map(tuple, np.round(candidate(), 9))}
        agreement, agrees = ("all of them kept" if kept else "anchors lost"), kept
        variant = f"hints: {len(anchors)} anchors"
    elif kind == "changing bars":
        candidate = functools.partial(
            DBNDownBeatTrackingProcessor([3, 4], fps=FPS, threshold=0, meter_change_prob=1e-3), array
        )
        prohibitive = DBNDownBeatTrackingProcessor(
            [3, 4], fps=FPS, threshold=0, meter_change_prob=_PROHIBITIVE
        )
        agrees = compare(prohibitive(array), beats).passed
        agreement = (
            "bit-identical where a change is prohibitive" if agrees else "other beats without a change"
        )
        variant = "bars that change"
    elif kind == "confidences":
        candidate = functools.partial(plain.confidences, array, beats[:, 0])
        posteriors = [BeatPosterior(model, array) for model in plain.hmms]
        error = max(abs(one.starts()[: one.before].sum() - 1) for one in posteriors)
        agreement, agrees = f"probabilities sum to 1 within {error:.1g}", error < 1e-9
        variant = "confidences"
    else:
        variant = "online downbeats, delay 2 s, 10 frames a call, 60 s"
        online = OnlineDownBeatTracker(plain, delay=2)
        pieces = [array[second : second + 10] for second in range(0, len(array), 10)]
        candidate = functools.partial(_through, online, pieces)
        whole = OnlineDownBeatTracker(plain, delay=seconds)
        for piece in pieces:
            whole(piece)
        agrees = compare(whole.finish(), beats).passed
        agreement = (
            "bit-identical with a delay of the whole" if agrees else "other beats with a delay of the whole"
        )
        variant = "online downbeats, delay 2 s, 10 frames a call, 60 s"
    times = paired_times(
        candidate,
        lambda: plain(array),
        rounds=rounds if kind in ("hints", "changing bars") else min(rounds, _FEW_ROUNDS),
        benchmark=benchmark,
    )
    reference = "our own [3, 4] without it"
    _record(record_bench, variant, times, reference, agreement, agrees, audio_seconds=seconds)
