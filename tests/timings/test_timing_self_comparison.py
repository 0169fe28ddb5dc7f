"""No cause is named where nothing differs: what the pipeline may record, compared with itself."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from timing_lines import line, write

from allin1_core.timings.comparison import Comparison, compare
from allin1_core.timings.schema import STAGES, StageTiming
from allin1_core.timings.verdicts import FELL_SHORT


def assert_nothing_is_named(comparison: Comparison) -> None:
    assert comparison.all_causes == ()
    assert not {component.status for component in comparison.components} & set(FELL_SHORT)
    assert comparison.exit_status == 0


def kinds(comparison: Comparison) -> set[str]:
    return {cause.kind for cause in comparison.all_causes}


def loading(runs: int) -> list[StageTiming]:
    """Of each run the two lines that the pipeline writes."""
    return [
        line("model_load", None, f"run{run}", thread=thread, details={"per": "run"})
        for run in range(runs)
        for thread in ("model_load_0", "main")
    ]


def test_the_two_threads_that_load_the_model_are_no_overlap_that_differs(tmp_path: Path) -> None:
    once, thrice = write(tmp_path / "1.jsonl", loading(1)), write(tmp_path / "3.jsonl", loading(3))
    assert_nothing_is_named(compare(once, once))
    assert_nothing_is_named(compare(once, thrice))
    one_thread = [dataclasses.replace(made, thread="main") for made in loading(1)]
    comparison = compare(once, write(tmp_path / "main.jsonl", one_thread))
    assert [cause.text for cause in comparison.all_causes] == [
        "run beside other stages (their times overlap): 1 of 2 lines before, 0 of 2 after"
    ]


def test_another_track_from_the_cache_differs_although_as_many_are(tmp_path: Path) -> None:
    def cached(*names: str) -> Path:
        lines = [line("demix", track, cached=track in names) for track in ("a", "b", "c")]
        return write(tmp_path / f"{''.join(names)}.jsonl", lines)

    assert_nothing_is_named(compare(cached("a", "c"), cached("a", "c")))
    comparison = compare(cached("a", "c"), cached("b", "c"))
    assert [cause.text for cause in comparison.all_causes] == [
        "served from a cache: 2 of 3 lines before, 2 of 3 after (differs for a, b)"
    ]
    assert comparison.exit_status == 1


def test_a_track_that_only_one_run_has_counts_for_no_share(tmp_path: Path) -> None:
    both = [line("demix", "a"), line("demix", "b", cached=True)]
    comparison = compare(write(tmp_path / "both.jsonl", both), write(tmp_path / "a.jsonl", both[:1]))
    assert kinds(comparison) == {"track"}
    assert comparison.exit_status == 0


def test_a_failure_that_both_runs_share_is_named_only_where_nothing_else_is_left(tmp_path: Path) -> None:
    failed = line("audio_read", "b", error="AudioError: b.wav: no audio", synchronized=False)
    some = write(tmp_path / "some.jsonl", [line("audio_read", "a"), failed])
    assert_nothing_is_named(compare(some, some))
    whole = write(tmp_path / "whole.jsonl", [line("audio_read", "a"), line("audio_read", "b")])
    assert [cause.text for cause in compare(whole, some).all_causes] == [
        "failed after (1 of 2 lines): AudioError: b.wav: no audio",
        "only before: b; not counted here",
    ]
    alone = write(tmp_path / "alone.jsonl", [failed])
    comparison = compare(alone, alone)
    assert kinds(comparison) == {"failure"}
    assert "| audio_read | - | - | - | - | - | **not comparable** |" in comparison.markdown()


def test_tracks_that_were_done_in_one_run_each_have_no_ratio(tmp_path: Path) -> None:
    def done(name: str) -> Path:
        lines = [
            line("nn", track, error=None if track == name else "MemoryError: ", synchronized=track == name)
            for track in ("a", "b")
        ]
        return write(tmp_path / f"{name}.jsonl", lines)

    comparison = compare(done("a"), done("b"))
    assert [component.status for component in comparison.components] == ["not comparable"]
    assert kinds(comparison) == {"failure", "track"}


BACKENDS = [("fused", "allin1-core", "cpu"), ("torch", "torch", "cuda:0"), ("mlx", "mlx", "mlx"), None]


@st.composite
def recorded_lines(draw: st.DrawFn) -> list[StageTiming]:
    """Lines as the pipeline may write them; of each stage one at least was finished."""

    def one_of(*values: Any) -> Any:
        return draw(st.sampled_from(values))

    drawn: list[StageTiming] = []
    for stage in draw(st.lists(st.sampled_from(STAGES), min_size=1, max_size=6, unique=True)):
        for index in range(draw(st.integers(1, 6))):
            failed = index > 0 and draw(st.booleans())
            start, duration = draw(st.floats(0, 100)), one_of(0.0, 1e-7, 1e-4, 0.02, 3.0)
            names, details = (
                ("beats_per_bar", "folds", "model", "frames", "per"),
                (1, 8, "run", "track", [3, 4]),
            )
            fields: dict[str, Any] = {
                "parent": one_of(None, "postprocess"),
                "start": start,
                "end": start + duration,
                "duration": duration,
                "audio_seconds": one_of(None, 5.0, 195.5),
                "synchronized": not failed,
                "cached": draw(st.booleans()),
                "thread": one_of("main", "model_load_0"),
                "error": "OSError: disk full" if failed else None,
                "details": draw(st.dictionaries(st.sampled_from(names), st.sampled_from(details))),
                "machine": {"cpu": "CPU", "cores": one_of(1, 2), "platform": "Linux"},
                "versions": {name: one_of("1.0", "2.0") for name in one_of((), ("torch",), ("torch", "mlx"))},
            }
            if ran := one_of(*BACKENDS):
                fields |= dict(zip(("backend", "library", "device"), ran, strict=True))
                fields |= {
                    "library_version": one_of("1.0", "2.0"),
                    "requested_backend": one_of("auto", ran[0]),
                    "requested_device": "auto",
                    "computed_by": one_of(None, "fused"),
                    "instruction_set": one_of(None, "AVX2", "AVX-512"),
                    "precision": one_of("exact", "fast"),
                    "reason": "auto: the first choice",
                }
            drawn.append(line(stage, one_of(None, "a", "b"), one_of("run0", "run1", "run2"), **fields))
    return drawn


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(lines=recorded_lines(), repeats=st.integers(1, 3))
def test_any_recorded_file_compared_with_itself_names_nothing(lines: list[StageTiming], repeats: int) -> None:
    """And with the same runs recorded several times over, as a file of more runs is."""
    again = [
        dataclasses.replace(made, run_id=f"{made.run_id}-{repeat}")
        for repeat in range(repeats)
        for made in lines
    ]
    with tempfile.TemporaryDirectory() as folder:
        one, other = write(Path(folder) / "1.jsonl", lines), write(Path(folder) / "2.jsonl", again)
        assert_nothing_is_named(compare(one, one))
        assert_nothing_is_named(compare(one, other))
