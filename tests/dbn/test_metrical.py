"""The decoder's input, and the tempo."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from allin1_core.dbn.metrical import (
    MIN_BEATS_FOR_TEMPO,
    Beats,
    beats_from_decoder,
    decoder_input,
    fitted_tempo,
    most_frequent_tempo,
)


def test_decoder_input_is_that_of_torch_to_the_bit() -> None:
    """All-In-One computes it in torch; a decoder that compares log probabilities sees the last bit."""
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    beat, downbeat = random.random((2, 5000), dtype=np.float32)
    beat[:3], downbeat[:3] = (0.5, 0, 1), (0.5, 0, 1)
    b, d = torch.from_numpy(beat), torch.from_numpy(downbeat)
    rows = [torch.maximum(torch.tensor(1e-8), b - d), d, ((1.0 - b) + (1.0 - d)) / 2]
    together = torch.stack(rows, dim=-1)
    together /= together.sum(dim=-1, keepdim=True)
    np.testing.assert_array_equal(decoder_input(beat, downbeat), together.numpy()[:, :2])


@pytest.mark.parametrize("tempo", [fitted_tempo, most_frequent_tempo])
@pytest.mark.parametrize(
    ("last", "message"),
    [
        (np.nan, "expected finite times"),
        (6.0, "expected ascending"),
        (7.0, "expected asc"),
        (7.0 + 1e-12, "nanosecond"),
    ],
)
def test_tempo_of_beats_in_another_order_is_refused(
    tempo: Callable[[list[float]], object], last: float, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        tempo([*(float(number) for number in range(8)), last])


@pytest.mark.parametrize("value", [np.nan, 1.2, -0.1])
def test_decoder_input_is_made_of_probabilities_alone(value: float) -> None:
    """Divided by their sum, other values may look like probabilities, which the decoder cannot tell."""
    given = np.full(4, 0.1, np.float32)
    wrong = np.array([0.1, 0.1, value, 0.1], np.float32)
    for beat, downbeat in ((wrong, given), (given, wrong)):
        with pytest.raises(
            ValueError, match=r"in frame 2 \(1 such values\); expected probabilities from 0 to 1"
        ):
            decoder_input(beat, downbeat)
    with pytest.raises(ValueError, match="beat: 3 frames, downbeat: 4; expected as many"):
        decoder_input(given[:3], given)


@pytest.mark.parametrize(
    ("beats", "expected"),
    [
        ([], None),
        ([1.0], None),
        ([0.0, 0.5], 120),
        ([0.0, 0.5, 1.0, 1.5, 2.1], 120),
        # 60 / 0.58 = 103.4 and 60 / 0.57 = 105.3: as often as each other, so the faster.
        ([0.0, 0.58, 1.15], 105),
    ],
)
def test_tempo_is_the_most_frequent_rounded_rate(beats: list[float], expected: int | None) -> None:
    assert most_frequent_tempo(beats) == expected


def test_beats_of_a_decoder_that_found_none() -> None:
    beats = beats_from_decoder(np.empty((0, 2)))
    assert beats == Beats([], [])
    assert beats.downbeats == []


def test_downbeats_are_the_beats_at_position_one() -> None:
    beats = beats_from_decoder(np.array([[0.1, 4.0], [0.6, 1.0], [1.1, 2.0], [1.6, 1.0]]))
    assert beats.positions == [4, 1, 2, 1]
    assert beats.downbeats == [0.6, 1.6]


def _grid(bpm: float, seconds: float, first: float = 0.0) -> np.ndarray:
    """Beats of a steady tempo, rounded to frames as the decoder's are."""
    return np.rint(np.arange(first, seconds, 60 / bpm) * 100) / 100


def _assert_tempo(beats: np.ndarray, bpm: float, within: float) -> float:
    """Returns the spread."""
    tempo = fitted_tempo(beats.tolist())
    assert tempo is not None
    assert abs(tempo.bpm - bpm) <= within, f"{tempo} of {bpm} BPM"
    return tempo.spread


@pytest.mark.parametrize("bpm", range(60, 216))
def test_every_whole_tempo_is_found_in_thirty_seconds(bpm: int) -> None:
    """All-In-One's own value is another for 88 of these 156. The bound is what rounding beats to 0.01 s can do."""
    for first in (0.0, 0.003, 0.1234, 0.2):
        assert _assert_tempo(_grid(bpm, 30, first), bpm, within=0.03) < 0.25


def test_all_in_ones_value_is_another_for_88_of_156_whole_tempi() -> None:
    """What `fitted_tempo` is for; the value itself stays as it is defined."""
    wrong = [bpm for bpm in range(60, 216) if most_frequent_tempo(_grid(bpm, 180).tolist()) != bpm]
    assert len(wrong) == 88


def test_tempo_between_whole_ones() -> None:
    # Of all tempi from 55 to 215, in steps of an eighth, the one with the largest error; a tempo has two decimals.
    for first in np.arange(0, 0.01, 0.001):
        _assert_tempo(_grid(214.25, 30, first), 214.25, within=0.0701)
        _assert_tempo(_grid(214.25, 60, first), 214.25, within=0.0301)
    for bpm in (61.25, 87.4, 119.97, 133.33, 174.62):
        _assert_tempo(_grid(bpm, 180), bpm, within=0.01)


@pytest.mark.parametrize("bpm", [62, 97, 128, 174, 211])
@pytest.mark.parametrize(
    "fault",
    [
        "one missing of ten",
        "sixteen missing",
        "one added",
        "doubled",
        "halved",
        "first one late",
        "half a beat later from the middle on",
        "a third of a beat late for a while",
    ],
)
def test_wrong_beats_do_not_change_the_tempo(bpm: int, fault: str) -> None:
    beats, period = _grid(bpm, 90), 60 / bpm
    if fault == "one missing of ten":
        beats = beats[np.random.default_rng(0).random(len(beats)) > 0.1]
    elif fault == "sixteen missing":
        beats = np.delete(beats, np.arange(30, 46))
    elif fault == "one added":
        beats = np.insert(beats, 31, beats[30] + period / 2)
    elif fault == "doubled":
        beats = np.sort(np.append(beats, beats[20:40] + period / 2))
    elif fault == "halved":
        beats = np.delete(beats, np.arange(20, 60, 2))
    elif fault == "first one late":
        beats[0] += 0.4 * period
    elif fault == "half a beat later from the middle on":
        beats[45:] += period / 2
    else:
        beats[20:35] += period / 3
    _assert_tempo(beats, bpm, within=0.03)


def test_jitter_widens_the_spread_and_leaves_the_tempo() -> None:
    random = np.random.default_rng(0)
    for bpm in (62, 97, 128, 174, 211):
        beats = np.sort(_grid(bpm, 180) + random.normal(0, 0.02, len(_grid(bpm, 180))))
        # Two standard errors of the slope of a line: 2 * 0.02 * sqrt(12 / n^3) of a period, in BPM.
        bound = 2 * 0.02 * np.sqrt(12 / len(beats) ** 3) * bpm**2 / 60
        # 1.645 standard deviations (90 % of a normal distribution) of a rate over 16 beats, whose two ends jitter.
        spread = 1.645 * np.sqrt(2) * 0.02 / 16 * bpm**2 / 60
        assert _assert_tempo(beats, bpm, within=bound + 0.01) == pytest.approx(spread, rel=0.3)


def test_the_spread_shows_how_far_the_tempo_moves() -> None:
    """Ninety seconds at 100 and ninety at 120 BPM: the middle 90 % of the local tempi reach from one to the other."""
    beats = np.concatenate([_grid(100, 90), 90 + _grid(120, 90)])
    assert _assert_tempo(beats, 110, within=1) == pytest.approx(10, abs=0.2)
    ramp = np.cumsum(60 / np.linspace(90, 130, 300))
    # The middle 90 % of 40 BPM, less what 16 beats average.
    assert _assert_tempo(ramp, 109, within=1) == pytest.approx(18, abs=1.5)


def test_too_few_beats_have_no_tempo() -> None:
    beats = _grid(120, 60).tolist()
    assert fitted_tempo([]) is None
    assert fitted_tempo(beats[: MIN_BEATS_FOR_TEMPO - 1]) is None
    assert fitted_tempo(beats[:MIN_BEATS_FOR_TEMPO]) is not None
    for bpm in range(60, 216):
        # 0.01 s in seven periods is 0.6 % at 215 BPM, 0.2 % at 60.
        _assert_tempo(_grid(bpm, 60)[:MIN_BEATS_FOR_TEMPO], bpm, within=0.01 / 7 * bpm**2 / 60)


def test_any_beats_give_a_finite_tempo() -> None:
    random = np.random.default_rng(0)
    for number in (8, 9, 17, 40):
        for _ in range(200):
            beats = np.cumsum(np.round(random.uniform(0.01, 3, number) ** random.uniform(0.2, 4), 2) + 0.01)
            tempo = fitted_tempo(beats.tolist())
            assert tempo is not None
            assert 0 < tempo.bpm < 6000
            assert 0 <= tempo.spread < 6000


def test_an_hour_takes_no_more_memory_than_its_pairs_allow() -> None:
    """All pairs of 12,000 beats would take 1.7 GB."""
    beats = _grid(200, 3600).tolist()
    tracemalloc.start()
    tempo = fitted_tempo(beats)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert tempo is not None
    assert tempo.bpm == 200
    assert peak < 20e6, peak


@pytest.mark.parametrize(("track", "bpm"), [("keep_on_rolling", 104), ("boogi_marabi", 153)])
def test_tempo_of_steady_scores_and_of_what_the_network_hears_in_them(
    shared: Path, track: str, bpm: int
) -> None:
    score = np.rint(np.loadtxt(shared / "audio" / track / "beats.tsv")[:, 0] * 100) / 100
    assert _assert_tempo(score, bpm, within=0.005) < 0.25
    heard = json.loads((shared / "golden" / f"{track}.json").read_text(encoding="utf-8"))["beats"]
    _assert_tempo(np.array(heard), bpm, within=0.02)


def test_tempo_of_a_score_that_changes_61_times_between_120_and_150(shared: Path) -> None:
    beats = np.loadtxt(shared / "audio" / "midnight_snow_run" / "beats.tsv")[:, 0]
    mean = 60 * (len(beats) - 1) / (beats[-1] - beats[0])
    assert _assert_tempo(beats, mean, within=8) == pytest.approx(15, abs=0.1)
    heard = json.loads((shared / "golden" / "midnight_snow_run.json").read_text(encoding="utf-8"))["beats"]
    assert _assert_tempo(np.array(heard), mean, within=8) == pytest.approx(15, abs=0.5)
