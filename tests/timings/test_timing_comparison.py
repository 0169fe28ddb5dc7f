"""The timing investigation finds each cause from recorded lines, and names none where nothing differs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from timing_lines import DURATIONS, MACHINE, VERSIONS, change, record

from allin1_core.errors import TimingsError
from allin1_core.timings.comparison import Comparison, compare
from allin1_core.timings.schema import StageTiming


def status(comparison: Comparison, stage: str) -> str:
    return next(component.status for component in comparison.components if component.stage == stage)


def named(comparison: Comparison) -> set[tuple[str, str | None]]:
    return {(cause.kind, cause.stage) for cause in comparison.all_causes}


def text(comparison: Comparison, kind: str) -> str:
    return " | ".join(cause.text for cause in comparison.all_causes if cause.kind == kind)


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return record(tmp_path / "before.jsonl")


@pytest.mark.parametrize(
    ("runs", "status"), [(1, "cannot tell"), (2, "cannot tell"), (8, "cannot tell"), (9, "as expected")]
)
def test_nothing_is_named_where_nothing_differs(tmp_path: Path, runs: int, status: str) -> None:
    one = record(tmp_path / "before.jsonl", runs=runs)
    other = record(tmp_path / "after.jsonl", runs=runs, jitter=0.02)
    comparison = compare(one, other)
    assert comparison.all_causes == ()
    assert {component.status for component in comparison.components} == {status}
    assert comparison.exit_status == 0
    report = comparison.markdown()
    assert "None found" in report
    assert (f"It takes 9 runs a side or more, recorded by turns; the fewest here are {runs}." in report) is (
        runs < 9
    )
    assert ("**All 7 stages are as expected or better.**" in report) is (runs == 9)


def test_what_was_expected_is_no_cause_and_is_not_denied(before: Path, tmp_path: Path) -> None:
    expected = '[stage.spectrogram]\nspeedup = [0.8, 1.25]\nbackend = ["mlx"]\n'
    (tmp_path / "expectations.toml").write_text(expected, encoding="utf-8")
    after = record(tmp_path / "after.jsonl", edit=change("spectrogram", backend="mlx"))
    comparison = compare(before, after, tmp_path / "expectations.toml")
    assert comparison.all_causes == ()
    assert "None found: beyond what was expected, nothing that" in comparison.markdown()


def test_a_gain_that_was_expected_of_what_did_not_run(tmp_path: Path) -> None:
    """2.5-5x expected on the spectrogram, 1.07x found, because madmom's backend had run before and after."""
    madmom = change(
        "spectrogram",
        backend="madmom",
        library="madmom",
        library_version="0.17.post1",
        requested_device="cpu",
        reason="device 'cpu' was asked for; madmom is the choice for cpu",
    )

    def recorded(runs: int) -> list[Path]:
        return [
            record(
                tmp_path / f"{index}.jsonl", runs=runs, scale={"spectrogram": scale}, edit=madmom, jitter=0
            )
            for index, scale in enumerate([1.0, 0.935])
        ]

    expectations = tmp_path / "expectations.toml"
    gain = "[stage.spectrogram]\nspeedup = [2.5, 5.0]\n"
    expectations.write_text(f'{gain}backend = ["mlx"]\n', encoding="utf-8")
    comparison = compare(*recorded(1), expectations)
    rows = {component.stage: component for component in comparison.components}
    assert rows["spectrogram"].speedup == pytest.approx(1 / 0.935)
    assert rows["spectrogram"].status == "none"
    # One run tells nothing where the right backend ran; that another one did needs no repetition.
    assert {rows[stage].status for stage in ("metrical_dbn", "nn", "metrical_prep")} == {"cannot tell"}
    assert comparison.exit_status == 1
    assert ("backend", "spectrogram") in named(comparison)
    found = text(comparison, "backend")
    assert "madmom (madmom 0.17.post1, device cpu) ran, where mlx was expected" in found
    assert "requested: backend auto, device cpu" in found
    assert "device 'cpu' was asked for" in found
    report = comparison.markdown()
    assert "| spectrogram | 400.0 | 374.0 | 26.0 | 1.07x | 2.5-5x, mlx | **none** |" in report
    assert "spectrogram: 80.0 to 160.0 ms expected, 374.0 ms measured" in report
    # Without a word on the backend in the expectations, the lines still tell.
    expectations.write_text(gain, encoding="utf-8")
    found = text(compare(*recorded(9), expectations), "backend")
    assert "the same implementation ran before and after: madmom" in found
    newer = record(tmp_path / "newer.jsonl", edit=change("spectrogram", library_version="1.1"))
    assert "same" not in compare(record(tmp_path / "old.jsonl"), newer, expectations).markdown()


@pytest.mark.parametrize(
    ("stage", "fields", "kind", "words"),
    [
        ("spectrogram", {"backend": "numpy"}, "backend", "backend torch before, numpy after"),
        ("spectrogram", {"precision": "fast"}, "precision", "precision exact before, fast after"),
        (
            "spectrogram",
            {"library_version": "1.1"},
            "versions",
            "different version of torch: 1.0 before, 1.1 after",
        ),
        ("spectrogram", {"computed_by": "torch"}, "backend", "computed by fused before, torch after"),
        ("spectrogram", {"instruction_set": "AVX2"}, "machine", "kernels for AVX-512 before, AVX2 after"),
        ("nn", {"device": "cuda"}, "device", "device cpu before, cuda after"),
        ("nn", {"track": "other"}, "track", "another track: song before, other after"),
        ("nn", {"audio_seconds": 30.0}, "track", "another length of song: 195.5 s before, 30.0 s after"),
        (
            "metrical_dbn",
            {"details": {"beats_per_bar": [4]}},
            "meters",
            "beats_per_bar [3, 4] before, [4] after",
        ),
        ("nn", {"details": {"folds": 1}}, "model", "folds 8 before, 1 after"),
        ("spectrogram", {"cached": True}, "cache", "served from a cache: 0 of 9 lines before, 9 of 9 after"),
        ("model_load", {"thread": "loader"}, "overlap", "0 of 9 lines before, 9 of 9 after"),
        ("save", {"error": "OSError: full"}, "failure", "failed after (9 of 9 lines): OSError: full"),
    ],
)
def test_each_cause_is_found_where_it_is_and_alone(
    stage: str, fields: dict[str, Any], kind: str, words: str, before: Path, tmp_path: Path
) -> None:
    """And a ratio that has no meaning because of it is not shown."""
    comparison = compare(before, record(tmp_path / "after.jsonl", edit=change(stage, **fields)))
    assert words in text(comparison, kind)
    assert named(comparison) == {(kind, stage)}
    report = comparison.markdown()
    assert words in report
    has_ratio = kind not in ("track", "meters", "model", "cache", "failure")
    assert (status(comparison, stage) != "not comparable") == has_ratio
    row = next(line for line in report.splitlines() if line.startswith(f"| {stage} |"))
    assert (row.split("|")[5].strip() != "-") == has_ratio
    assert comparison.exit_status == (not has_ratio)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("machine", {**MACHINE, "cpu": "Other CPU"}, "cpu Test CPU before, Other CPU after"),
        ("machine", {**MACHINE, "cores": 8}, "cores 2 before, 8 after"),
        ("versions", {**VERSIONS, "torch": "2.14.0"}, "torch: 2.13.0 before, 2.14.0 after"),
    ],
)
def test_another_machine_or_version(
    kind: str, value: dict[str, Any], words: str, before: Path, tmp_path: Path
) -> None:
    after = record(tmp_path / "after.jsonl", edit=lambda line: dataclasses.replace(line, **{kind: value}))
    comparison = compare(before, after)
    assert named(comparison) == {(kind, None)}
    assert words in text(comparison, kind)
    assert comparison.exit_status == 0


def test_a_version_that_the_runs_name_is_not_named_again_for_each_stage(before: Path, tmp_path: Path) -> None:
    def newer(line: StageTiming) -> StageTiming:
        version = "2.0" if line.library == "torch" else line.library_version
        return dataclasses.replace(line, library_version=version, versions={**VERSIONS, "torch": "2.14.0"})

    assert named(compare(before, record(tmp_path / "after.jsonl", edit=newer))) == {("versions", None)}


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ((1e-4, 9e-4), "too short"),
        ((9e-4, 11e-4), "regressed"),
        ((11e-4, 0.0), "better"),
        ((0, 0), "too short"),
    ],
)
def test_no_verdict_on_a_stage_that_takes_no_time(
    tmp_path: Path, seconds: tuple[float, float], expected: str
) -> None:
    paths = [
        record(tmp_path / f"{side}.jsonl", scale={"save": value / DURATIONS["save"]}, jitter=0)
        for side, value in enumerate(seconds)
    ]
    comparison = compare(*paths)
    assert status(comparison, "save") == expected
    assert comparison.all_causes == ()
    assert comparison.exit_status == (expected == "regressed")
    report = comparison.markdown()
    if expected == "too short":
        assert "**All 6 stages of 1 ms or more are as expected or better.**" in report
        row = next(line for line in report.splitlines() if line.startswith("| save |"))
        assert row.endswith("| - | - | too short |")


def test_a_library_that_was_not_loaded_is_no_other_version(before: Path, tmp_path: Path) -> None:
    less = {name: version for name, version in VERSIONS.items() if name != "torch"}
    after = record(tmp_path / "after.jsonl", edit=lambda line: dataclasses.replace(line, versions=less))
    assert compare(before, after).all_causes == ()


@pytest.mark.parametrize(
    ("runs", "jitter", "scale", "expected"),
    [
        (8, 0.0, 3.0, "cannot tell"),  # too few, whatever they show
        (9, 0.01, 1.2, "regressed"),
        (9, 0.25, 1.15, "cannot tell"),
        (9, 0.01, 1.05, "as expected"),
    ],
)
def test_a_loss_is_one_where_the_interval_leaves_nothing_else(
    tmp_path: Path, runs: int, jitter: float, scale: float, expected: str
) -> None:
    paths = [
        record(tmp_path / f"{name}.jsonl", runs=runs, scale={"nn": factor}, jitter=jitter)
        for name, factor in (("before", 1.0), ("after", scale))
    ]
    comparison = compare(*paths)
    assert status(comparison, "nn") == expected
    assert comparison.exit_status == (expected == "regressed")
    assert comparison.all_causes == ()


def test_runs_without_one_of_the_tracks_do_not_count(tmp_path: Path) -> None:
    def edit(line: StageTiming) -> list[StageTiming]:
        return [] if (line.run_id, line.track) == ("run8", "b") else [line]

    paths = [record(tmp_path / f"{name}.jsonl", tracks=("a", "b"), edit=edit) for name in ("before", "after")]
    component = next(component for component in compare(*paths).components if component.stage == "nn")
    assert (component.runs, component.interval, component.speedup) == (8, None, 1.0)


def test_tracks_side_by_side_are_no_loss(before: Path, tmp_path: Path) -> None:
    """Two tracks that share two cores: each stage takes twice as long, and the run as a whole less."""

    def beside(line: StageTiming) -> StageTiming:
        return dataclasses.replace(line, concurrent=2, thread="track_1")

    after = record(tmp_path / "after.jsonl", edit=beside, scale=dict.fromkeys(DURATIONS, 2.0))
    comparison = compare(before, after)
    assert {component.status for component in comparison.components} == {"not comparable"}
    assert named(comparison) == {("overlap", stage) for stage in DURATIONS}
    assert "tracks at the same time: 1 before, 2 after; record both with one --jobs" in text(
        comparison, "overlap"
    )
    # With as many before, a loss is one, and which thread took a track is no cause.
    again = record(
        tmp_path / "again.jsonl", edit=lambda line: dataclasses.replace(beside(line), thread="MainThread")
    )
    slower = compare(again, after)
    assert status(slower, "nn") == "regressed"
    assert slower.all_causes == ()


@pytest.mark.parametrize(
    ("gain", "expected"),
    [(6.0, "better"), (3.0, "as expected"), (1.5, "partial"), (1.0, "none"), (0.5, "regressed")],
)
def test_statuses(tmp_path: Path, before: Path, gain: float, expected: str) -> None:
    expectations = tmp_path / "expectations.toml"
    expectations.write_text("[stage.metrical_dbn]\nspeedup = [2.5, 5.0]\n", encoding="utf-8")
    after = record(tmp_path / "after.jsonl", scale={"metrical_dbn": 1 / gain})
    comparison = compare(before, after, expectations)
    assert status(comparison, "metrical_dbn") == expected
    assert comparison.exit_status == (expected not in ("better", "as expected"))


def test_what_a_stage_contains_keeps_it_from_being_compared(tmp_path: Path) -> None:
    def whole(line: StageTiming) -> list[StageTiming]:
        if line.stage != "metrical_prep":
            return [line]
        return [dataclasses.replace(line, stage="postprocess", parent=None, duration=0.65), line]

    one_meter = change("metrical_dbn", details={"beats_per_bar": [4]})

    def both(line: StageTiming) -> list[StageTiming]:
        edited = one_meter(line)
        assert isinstance(edited, StageTiming)
        return whole(edited)

    comparison = compare(
        record(tmp_path / "before.jsonl", edit=whole), record(tmp_path / "after.jsonl", edit=both)
    )
    assert named(comparison) == {("meters", "metrical_dbn"), ("meters", "postprocess")}
    assert status(comparison, "postprocess") == "not comparable"


def test_only_the_tracks_of_both_runs_count(tmp_path: Path) -> None:
    before = record(tmp_path / "before.jsonl", tracks=("a", "b"))
    after = record(tmp_path / "after.jsonl", tracks=("a",))
    comparison = compare(before, after)
    row = next(component for component in comparison.components if component.stage == "nn")
    assert row.speedup == pytest.approx(1.0)
    assert "only before: b; not counted here" in text(comparison, "track")


def test_an_empty_file_is_refused(before: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(TimingsError, match=r"empty\.jsonl: holds no timings"):
        compare(before, tmp_path / "empty.jsonl")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[stage.spectrum]\nspeedup = [1, 2]\n", "no such stage; expected one of audio_read"),
        ("[stage.nn]\nspeedup = [2]\n", "expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = [3, 2]\n", "expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = [1, 2]\nbackends = []\n", "unknown key 'backends'"),
        ('[stage.nn]\nspeedup = [1, 2]\nbackend = "mlx"\n', "expected a list of names"),
        ("unchange = 1.5\n", "unknown key 'unchange'; expected 'unchanged' and [stage.<name>]"),
        ("unchanged = 0.5\n", "expected a factor of at least 1"),
        ("unchanged = true\n", "unchanged is True; expected a factor"),
        ("unchanged = nan\n", "unchanged is nan; expected a factor"),
        ("unchanged = inf\n", "unchanged is inf; expected a factor"),
        (f"unchanged = 1{'0' * 400}\n", "expected a factor of at least 1"),
        (f"unchanged = 1{'0' * 5000}\n", "expected TOML"),
        ("stage = 3\n", "stage is 3; expected a table [stage.<name>]"),
        ("[stage]\nnn = [1, 2]\n", "[stage.nn]: [1, 2]; expected a table with speedup"),
        ("[stage.nn]\n", "speedup is None; expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = [nan, 2]\n", "expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = [1, nan]\n", "expected [lowest, highest]"),
        ('[stage.nn]\nspeedup = ["1", "2"]\n', "expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = [1, 2]\ndevice = [1]\n", "expected a list of names"),
        (f"unchanged = {'[' * 5000}\n", "expected TOML"),
        ("not toml", "expected TOML"),
        (b"unchanged = 1.1 # caf\xe9\n", "expected TOML"),
        (b"\0" * (2 << 20), "expected at most"),
        (None, "is a folder; expected a file"),
    ],
)
def test_expectations_that_cannot_be_used(
    before: Path, tmp_path: Path, content: str | bytes | None, words: str
) -> None:
    path = tmp_path / "expectations.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TimingsError, match=r"expectations\.toml") as raised:
        compare(before, before, path)
    assert words in str(raised.value)
    assert str(raised.value).count("expectations.toml") == 1
