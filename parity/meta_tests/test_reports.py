"""What the reports show of checks that failed: failures, in tables and in valid JSON, and never a difference of 0."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parity import test_attention, test_network, test_network_random, test_pipeline, test_structure
from parity.decoder_agreement import compare_decodings
from parity.full.confidences import EDGES, calibration
from parity.full.track_agreement import compare_networks
from parity.implementations import Implementation
from parity.inputs.spectrogram import Case
from parity.meta_tests.test_network import made_up, spoilt
from parity.meta_tests.test_pipeline import EXPECTED, right
from parity.oracles.madmom_dbn import require_identical
from parity.oracles.natten_golden import AttentionCase
from parity.oracles.network_golden import OUTPUTS
from parity.oracles.pipeline import compare_results, measures
from parity.reports import accuracy
from parity.reports.publish import dump_json
from parity.reports.records import Outcome, ParityRecorder, read_records
from parity.reports.report import write_parity_report
from parity.test_spectrogram import check as check_spectrogram

NAN_LAST = "NaN at the last place"
FUSED = Implementation("fused", "exact")


def without_a_frame(stems: np.ndarray, sample_rate: int, **keywords: Any) -> np.ndarray:
    """A backend of empty spectrograms, which have as many identical values as values."""
    return np.zeros((len(stems), 0, 81), np.float32)


def failures(monkeypatch: pytest.MonkeyPatch) -> ParityRecorder:
    """A record of every stage, of a check that failed."""
    record = ParityRecorder()
    wrong = spoilt(made_up(), "label", NAN_LAST)
    array = np.zeros((1, 1, 5, 12), np.float32)
    golden = AttentionCase(5, 1, array, array, array, np.zeros((1, 9), np.float32), array)
    monkeypatch.setattr("parity.oracles.natten_golden.read_case", lambda *_: golden)
    monkeypatch.setattr(test_attention, "attention_of", lambda _: lambda *_, **__: array * np.nan)
    monkeypatch.setattr(test_structure, "_run", lambda *_: (array, array, []))
    path, beats = np.zeros(3, np.uint32), np.array([[0.5, 1.0]])
    result = right()
    result.segments.pop()
    samples = np.zeros((1, 900), np.int16)
    case = Case("noise", "music", "int16", 44100, ("bass",), lambda: samples)
    empty, backend = np.zeros((1, 0, 81), np.float32), Implementation(f"{__name__}:without_a_frame", "exact")
    decoding = compare_decodings([(path, 0.0), (path, math.nan)], beats, [(path, 0.0), (path, 0.0)], beats)
    for check in (
        lambda: check_spectrogram((case, samples, np.zeros((1, 3, 81), np.float32)), backend, record),
        lambda: check_spectrogram((case, samples, empty.astype(np.float64)), backend, record),
        lambda: test_attention.test_natten("1d/0", Implementation("torch", "exact", "cpu"), Path(), record),
        lambda: test_network.check(
            record, "song", "torch", FUSED, test_network.differences(wrong, made_up())
        ),
        lambda: test_network_random.check(
            record, "random weights, 5 frames", "naive", FUSED, test_network.differences(wrong, made_up())
        ),
        lambda: require_identical(record, "song", "synthetic", "cython", decoding),
        lambda: test_structure.test_made_up_probabilities(97, 1, Implementation("numpy", "exact"), record),
        lambda: test_pipeline.check(result, "song", EXPECTED, record),
    ):
        with contextlib.suppress(AssertionError):
            check()
    assert not any(entry.passed for entry in record.records)
    return record


def refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def test_every_failure_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = failures(monkeypatch).records
    path = write_parity_report(records, tmp_path, Outcome(0, ("a test",), ()))
    text = path.read_text(encoding="utf-8")
    assert "**8 of 8 comparisons are outside their bounds" in text
    summary = text.partition("## Spectrogram")[0]
    rows = [line for line in summary.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 8 - 1, rows  # both spectrograms are of one backend
    for row in rows:
        *_, within, worst, ulp = row.strip("| ").split(" | ")
        assert within == "**0**"
        assert any(words in worst for words in ("inf", "differs on song", "(97 frames of 2 values)")), worst
        assert worst not in ("0", "no difference", "bit-identical")
        assert ulp == ("-" if row.startswith("| pipeline") else "inf"), row
    sections = text.partition("## Spectrogram")[2]
    assert sections.count("**no**") >= 8
    assert "nan" not in text.lower().replace("nan at", "")
    content = json.loads((tmp_path / "parity.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert len(content["records"]) == 8
    assert read_records(tmp_path / "parity.json") == records
    for stage in ("spectrogram", "network"):
        assert (tmp_path / f"parity_{stage}.png").read_bytes().startswith(b"\x89PNG")


def test_a_fold_that_failed_and_a_kind_that_is_new_show(tmp_path: Path) -> None:
    """Neither behind a fold that differs by more within its bounds, nor for want of words."""
    record = ParityRecorder()
    far = spoilt(made_up(), "beat", NAN_LAST)
    test_network.check(
        record, "falcon69, harmonix-fold0", "torch", FUSED, test_network.differences(made_up(), made_up())
    )
    with contextlib.suppress(AssertionError):
        test_network.check(
            record, "falcon69, harmonix-fold1", "torch", FUSED, test_network.differences(far, made_up())
        )
    passed, failed = record.records
    wrong = dataclasses.replace(failed, measures={**failed.measures, "max_difference": 0.0, "beat": 0.0})
    right = dataclasses.replace(passed, measures={**passed.measures, "max_difference": 1e-5})
    beats = np.array([[0.5, 1.0]])
    require_identical(record, "song", "of a new kind", "cython", compare_decodings([], beats, [], beats))
    text = write_parity_report([right, wrong, record.records[-1]], tmp_path).read_text(encoding="utf-8")
    [row] = [line for line in text.splitlines() if line.startswith("| falcon69, harmonix-fold")]
    assert row.startswith("| falcon69, harmonix-fold1")
    assert row.endswith("| **no** |")
    assert "| of a new kind | cython | 1 | 1 of 1 |" in text


def test_rows_of_a_track_that_failed_show(tmp_path: Path) -> None:
    result = right()
    result.segments.pop()
    result.downbeats.pop()
    part = {
        "implementation": "numpy-exact",
        "computed_by": "numpy",
        "by_stem": {"bass": 0.0, "drums": math.inf, "other": 0.0, "vocals": 0.0},
        "largest": math.inf,
        "bound": 0.0,
        "passed": False,
    }
    row = {
        "track": "song",
        "seconds": 3.0,
        "spectrogram": [part],
        "network": compare_networks(spoilt(made_up(), "segment", NAN_LAST), made_up()),
        "pipeline": measures(result, compare_results(result, EXPECTED)),
    }
    content = {"command": "none", "oracle": "madmom", "model": "m", "folds": 1, "rows": [row]}
    text = accuracy.update(tmp_path, "tracks", content).read_text(encoding="utf-8")
    assert "on 0 of 1 tracks (spectrogram) and 0 of 1 (network)" in text
    assert "the same beats, positions and sections on 0 of 1" in text
    assert "| song | inf **(!)** |" in text
    assert "| song | 3.0 | inf **(!)** | segment | 6 | yes | **no** | 1 | **no** | inf s **(!)** |" in text
    # The page can be made again from what was kept.
    kept = json.loads((tmp_path / "accuracy_tracks.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert kept["rows"][0]["network"]["by_output"]["segment"] == math.inf
    assert set(kept["rows"][0]["network"]["by_output"]) == set(OUTPUTS)
    assert accuracy.render(tmp_path, "tracks", kept).read_text(encoding="utf-8") == text


def test_a_song_whose_log_probability_is_no_number_counts_as_different(tmp_path: Path) -> None:
    path, beats = np.zeros(3, np.uint32), np.array([[0.5, 1.0]])
    row = {
        "song": "0001",
        "duration": 3600.0,
        "tempo": "steady",
        "interval_spread": 0.0,
        "meter": 4,
        "agreement": compare_decodings(
            [(path, 0.0), (path, math.nan)], beats, [(path, 0.0)] * 2, beats
        ).measures(),
        "ours": dict.fromkeys(("f_measure", "cmlt", "amlt", "downbeat_f_measure"), 1.0),
        "oracle": dict.fromkeys(("f_measure", "cmlt", "amlt", "downbeat_f_measure"), 1.0),
        "online": compare_decodings([], beats[:, 0], [], beats[:, 0]).measures(),
        "bars": compare_decodings([], beats, [], beats + 0.5).measures(),
    }
    content = {"command": "none", "oracle": "madmom", "rows": [row, {**row, "tempo": "changing"}]}
    text = accuracy.update(tmp_path, "decoder", content).read_text(encoding="utf-8")
    assert "0 of 2 songs: identical paths, log probabilities and beats" in text
    assert "; 2 with identical beats online, 0 with identical bars on the annotated beats." in text
    assert "| positions of given beats matched | 0 of 2 |" in text
    assert "| largest difference of log probability | inf |" in text


def test_beats_are_counted_by_their_confidence(tmp_path: Path) -> None:
    """Two of three of 0.55 are right, one that is 70 ms away; of another song one of 1 is not."""
    found = calibration(
        np.array([1.0, 2.07, 3.2, 4.0]), np.array([0.55, 0.56, 0.54, 0.01]), np.array([1.0, 2.0, 3.0, 4.0])
    )
    column = EDGES.index(0.5)
    assert [found[name][column] for name in ("number", "right")] == [3, 2]
    assert found["sure"][column] == pytest.approx(1.65)
    assert (found["number"][0], found["right"][0], sum(found["number"])) == (1, 1, 4)
    wrong = calibration(np.array([1.0]), np.array([1.0]), np.array([]))
    assert (wrong["number"][-1], wrong["right"][-1]) == (1, 0)
    rows = [{"song": "0001", "beats": one, "downbeats": one} for one in (found, wrong)]
    content = {"command": "none", "edges": EDGES, "rows": rows}
    text = accuracy.update(tmp_path, "confidences", content).read_text(encoding="utf-8")
    assert "2 songs: of 5 beats 60.00% are right, their mean confidence is 53.20%" in text
    assert "The least sure 80.0% of the beats, those above the last row, hold 50% of the wrong ones." in text
    assert "| 0.5 to 0.6 | 3 | 0.5500 | 0.6667 | 3 |" in text
    assert (tmp_path / "accuracy_confidences.png").stat().st_size > 10_000


def test_a_section_that_is_replaced_leaves_the_others_though_only_the_page_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a clone, which has the committed page and plots, and no JSON."""

    def section(name: str) -> types.SimpleNamespace:
        def render(content: dict[str, Any], scratch: Path) -> str:
            (scratch / content["plot"]).write_bytes(b"plot")
            return f"## {name}\n\n{content['words']}\n\n![A plot]({content['plot']})\n"

        return types.SimpleNamespace(render=render)

    for name in ("one", "other"):
        monkeypatch.setitem(sys.modules, f"parity.reports.sections.accuracy_{name}", section(name))
    accuracy.update(tmp_path, "one", {"words": "456 songs", "plot": "one.png"})
    accuracy.update(tmp_path, "other", {"words": "3 tracks", "plot": "other.png"})
    for path in tmp_path.glob("*.json"):
        path.unlink()
    text = accuracy.update(tmp_path, "other", {"words": "4 tracks", "plot": "new.png"}).read_text(
        encoding="utf-8"
    )
    assert "## one\n\n456 songs\n\n![A plot](one.png)\n" in text
    assert "## other\n\n4 tracks\n\n![A plot](new.png)\n" in text
    assert "3 tracks" not in text
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "accuracy.md",
        "accuracy_other.json",
        "new.png",
        "one.png",
    ]


def test_what_json_has_no_form_for_is_refused_and_what_is_not_finite_has_one() -> None:
    text = dump_json({"NaN": [np.float32(0.5), math.nan, -math.inf, math.inf, "Infinity"]}, indent=None)
    assert text == '{"NaN": [0.5, null, -1e999, 1e999, "Infinity"]}\n'
    with pytest.raises(TypeError, match="complex does not go into JSON: 1j"):
        dump_json([1j])
