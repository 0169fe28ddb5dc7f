"""No cause is named where nothing differs: recorded runs, and drawn ones, compared with themselves."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import allin1_core
from allin1_core.errors import BatchError
from allin1_core.timings.comparison import Comparison, compare
from allin1_core.timings.schema import SCHEMA_VERSION, STAGES, StageTiming, read_timings
from allin1_core.timings.verdicts import FELL_SHORT


def write(path: Path, lines: list[StageTiming]) -> Path:
    path.write_text("".join(json.dumps(dataclasses.asdict(line)) + "\n" for line in lines), encoding="utf-8")
    return path


def assert_nothing_is_named(comparison: Comparison) -> None:
    assert comparison.all_causes == ()
    assert not {component.status for component in comparison.components} & set(FELL_SHORT)
    assert comparison.exit_status == 0


def kinds(comparison: Comparison) -> set[str]:
    return {cause.kind for cause in comparison.all_causes}


@pytest.fixture
def record_run(
    tmp_path: Path, small_model: str, separation_repository: Path, write_mix: Callable[[str], Path]
) -> Callable[[str], Path]:
    """Record a batch of three: the stems of the first are there already, and the last is no audio."""
    first, second = write_mix("mixes/first.wav"), write_mix("mixes/second.wav")
    broken = tmp_path / "mixes" / "broken.wav"
    broken.write_bytes(b"no audio")

    def record(name: str) -> Path:
        options = {
            "model": small_model,
            "device": "cpu",
            "demix_model": "small",
            "demix_repository": separation_repository,
            "demix_dir": tmp_path / name / "demix",
            "spec_dir": tmp_path / name / "spec",
            "keep_byproducts": True,
            "progress": False,
        }
        allin1_core.analyze(first, **options)
        with pytest.raises(BatchError):
            allin1_core.analyze([first, second, broken], timings_path=tmp_path / f"{name}.jsonl", **options)
        return tmp_path / f"{name}.jsonl"

    return record


def test_recorded_runs_compared_with_themselves_and_with_each_other(
    record_run: Callable[[str], Path],
) -> None:
    one, other = record_run("one"), record_run("other")
    lines = read_timings(one)
    # Lines of either kind, so that the comparisons below have something to get wrong.
    assert sorted(line.thread == "main" for line in lines if line.stage == "model_load") == [False, True]
    assert [line.cached for line in lines if line.stage == "demix"] == [True, False]
    assert [line.track for line in lines if line.error is not None] == ["broken"]
    for path in (one, other):
        assert_nothing_is_named(compare(path, path))
    # The two took different times, and a single run of each tells nothing.
    for pair in ((one, other), (other, one)):
        assert_nothing_is_named(compare(*pair))


def line(stage: str, track: str | None = "song", run: str = "run", **fields: object) -> StageTiming:
    made = StageTiming(
        schema=SCHEMA_VERSION,
        run_id=run,
        run_started="2026-01-15T10:00:00.000+00:00",
        stage=stage,
        parent=None,
        start=0.0,
        end=0.5,
        duration=0.5,
        track=track,
        audio_seconds=195.5,
        backend=None,
        requested_backend=None,
        device=None,
        requested_device=None,
        precision=None,
        library=None,
        library_version=None,
        reason=None,
        synchronized=True,
        cached=False,
        thread="main",
        error=None,
        details={},
        machine={"cpu": "Test CPU", "cores": 2, "platform": "Linux-6.1"},
        versions={"python": "3.12.1", "allin1-core": "0.1.0"},
    )
    return dataclasses.replace(made, **fields)  # type: ignore[arg-type]


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


BACKENDS = st.sampled_from(
    [("fused", "allin1-core", "cpu"), ("torch", "torch", "cuda:0"), ("mlx", "mlx", "mlx"), None]
)


@st.composite
def recorded_lines(draw: st.DrawFn) -> list[StageTiming]:
    """Lines as the pipeline may write them; of each stage one at least was finished."""
    tracks: list[str | None] = [None, "a", "b"]
    drawn: list[StageTiming] = []
    for stage in draw(st.lists(st.sampled_from(STAGES), min_size=1, max_size=6, unique=True)):
        for index in range(draw(st.integers(1, 6))):
            ran = draw(BACKENDS)
            failed = index > 0 and draw(st.booleans())
            start = draw(st.floats(0, 100))
            duration = draw(st.sampled_from([0.0, 1e-7, 1e-4, 0.02, 3.0]))
            requested = draw(st.sampled_from(["auto", ran[0] if ran else "auto"]))
            drawn.append(
                line(
                    stage,
                    draw(st.sampled_from(tracks)),
                    draw(st.sampled_from(["run0", "run1", "run2"])),
                    parent=draw(st.sampled_from([None, "postprocess"])),
                    start=start,
                    end=start + duration,
                    duration=duration,
                    audio_seconds=draw(st.sampled_from([None, 5.0, 195.5])),
                    backend=ran and ran[0],
                    library=ran and ran[1],
                    library_version=ran and draw(st.sampled_from(["1.0", "2.0"])),
                    device=ran and ran[2],
                    requested_backend=ran and requested,
                    requested_device=ran and "auto",
                    computed_by=ran and draw(st.sampled_from([None, "fused"])),
                    instruction_set=ran and draw(st.sampled_from([None, "AVX2", "AVX-512"])),
                    precision=ran and draw(st.sampled_from(["exact", "fast"])),
                    reason=ran and "auto: the first choice",
                    synchronized=not failed,
                    cached=draw(st.booleans()),
                    thread=draw(st.sampled_from(["main", "model_load_0"])),
                    error="OSError: disk full" if failed else None,
                    details=draw(
                        st.dictionaries(
                            st.sampled_from(["beats_per_bar", "folds", "model", "frames", "per"]),
                            st.sampled_from([1, 8, "run", "track", [3, 4]]),
                        )
                    ),
                    machine={"cpu": "CPU", "cores": draw(st.integers(1, 2)), "platform": "Linux"},
                    versions=draw(
                        st.dictionaries(st.sampled_from(["torch", "mlx"]), st.sampled_from(["1.0", "2.0"]))
                    ),
                )
            )
    return drawn


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
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
