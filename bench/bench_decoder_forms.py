"""The decoder's other forms: online and bars on given beats beside madmom, what madmom has not beside plain decoding.

The calls are those of the gate (bench/gate/forms.py), on longer activations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allin1_core.dbn import OnlineDownBeatTracker
from allin1_core.dbn.posterior import BeatPosterior
from bench.gate.forms import FORMS, OURS_ALONE, form_case, moved_anchors, plain_decoder, through_online
from bench.measure.paired import paired_times, sure_rounds
from bench.report.records import BenchRecord, BenchRecorder
from parity.agreement import compare
from parity.decoder_agreement import f_measure
from parity.inputs.activations import FPS, steady

_SECONDS = 195.5
_SECONDS_OF = {
    "online, all frames together": 60.0,
    "online, one frame a call": 10.0,
    "bars on": 250.0,
    "online downbeats": 60.0,
}
_SLOW, _FEW_ROUNDS = ("confidences", "online downbeats"), 4
# 1 minus it is 1: what it changes to is never better, and all else is as apart.
_PROHIBITIVE = 1e-300
# Of the beats' times beside plain decoding, and the mean confidence of decoded beats.
_CLOSE, _SURE = 0.99, 0.99


@pytest.mark.parametrize("form", FORMS)
def test_form(form: str, record_bench: BenchRecorder, rounds: int, benchmark: Any) -> None:
    seconds = _SECONDS_OF.get(form, _SECONDS)
    case = form_case("cython", form, seconds)
    if form not in OURS_ALONE:
        rounds = sure_rounds(rounds)
    elif form in _SLOW:
        rounds = min(rounds, _FEW_ROUNDS)
    times = paired_times(case.candidate, case.reference, rounds=rounds, benchmark=benchmark)
    agreement, agrees = _agreement(form, steady(seconds), times.candidate_output, times.reference_output)
    record_bench(
        BenchRecord(
            stage=case.stage,
            backend=case.backend,
            variant=_variant(form, seconds, times.reference_output),
            reference=case.oracle,
            track="made from a score",
            audio_seconds=seconds,
            threads=case.threads,
            **times.as_fields,
            agreement=agreement,
            agrees=agrees,
            reference_threads=1,
        )
    )
    assert agrees, agreement


def _variant(form: str, seconds: float, expected: np.ndarray) -> str:
    if form == "bars on":
        return f"bars on {len(expected)} given beats"
    if form == "hints":
        return f"hints: {len(moved_anchors(expected))} anchors"
    if form in ("bars that change", "confidences"):
        return form
    more = ", delay 2 s, 10 frames a call" if form == "online downbeats" else ""
    return f"{form}{more}, {seconds:.0f} s"


def _agreement(
    form: str, activations: np.ndarray, found: np.ndarray, expected: np.ndarray
) -> tuple[str, bool]:
    """What a form agrees in, in words, and whether it does: with madmom, or with plain decoding where it must.

    What madmom has not is not held to plain decoding where it may differ, but close to it.
    """
    compared = compare(found, expected)
    if found.dtype != expected.dtype or found.shape[1:] != expected.shape[1:]:
        return compared.fault, False
    where = ""
    if form in OURS_ALONE:
        plain = plain_decoder([3, 4], "cython")
        if form == "confidences":
            posteriors = [BeatPosterior(model, activations) for model in plain.hmms]
            error = float(np.max([abs(one.starts()[: one.before].sum() - 1) for one in posteriors]))
            between = len(found) == len(expected) and bool((np.abs(found - 0.5) <= 0.5).all())
            sure = float(found[:, 0].mean()) if len(found) else 0.0  # the song is steady
            words = f"probabilities sum to 1 within {error:.1g}, beats are {sure:.2%} sure"
            return words, between and error < 1e-9 and sure > _SURE
        score = f_measure(expected[:, 0], found[:, 0])
        if not (score >= _CLOSE and np.isin(found[:, 1], expected[:, 1]).all()):
            return f"F-measure {score:.3f} beside plain decoding, positions {np.unique(found[:, 1])}", False
        if form == "hints":
            kept = {*map(tuple, moved_anchors(expected).round(9))} <= {*map(tuple, found.round(9))}
            return "all of them kept" if kept else "anchors lost", kept
        if form == "bars that change":
            found = plain_decoder([3, 4], "cython", meter_change_prob=_PROHIBITIVE)(activations)
            where = " where a change is prohibitive"
        else:
            found = through_online(OnlineDownBeatTracker(plain, delay=len(activations) / FPS), activations)
            where = " with a delay of the whole"
        compared = compare(found, expected)
    return f"bit-identical{where}" if compared.passed else f"{compared.fault}{where}", compared.passed
