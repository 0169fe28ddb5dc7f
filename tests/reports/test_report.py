"""The reports: what they claim, what they refuse to claim, and that they are written whole or not at all."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from timing_lines import line

from bench.report import plots, readme, report
from bench.report.baseline import Earlier
from bench.report.records import BenchRecord, read_report
from bench.report.report import Session, render, write_bench_report
from bench.report.summary import headline_rows
from parity.reports.records import in_order
from parity.reports.report import write_parity_report


def bench_record(ratio: float = 6.0, **fields: Any) -> BenchRecord:
    seconds = [0.4 * noise for noise in (0.98, 0.99, 1.0, 1.0, 1.0, 1.01, 1.02)]
    given: dict[str, Any] = {
        "stage": "spectrogram",
        "backend": "torch",
        "device": "cpu",
        "precision": "exact",
        "variant": "",
        "reference": "madmom 0.17",
        "track": "song",
        "audio_seconds": 195.5,
        "threads": 2,
        "seconds": seconds,
        "reference_seconds": [0.4 * ratio] * 7,
        "agreement": "max 3.6e-07",
        "agrees": True,
        "peak_memory_bytes": 50 * 2**20,
    }
    return BenchRecord(**{**given, **fields})


LENGTHS = [
    {"audio_seconds": length, "seconds": length / 100, "peak_memory_bytes": 2**20 * length}
    for length in (15.0, 60.0, 240.0)
]
LINES = [dataclasses.asdict(line("nn", backend="fused", device="cpu", precision="exact"))]


def test_the_bench_report_and_its_files(tmp_path: Path) -> None:
    records = [
        bench_record(6.0, figures={"by_length": LENGTHS}),
        bench_record(10.0, precision="fast"),
        bench_record(40.0, stage="decoder", backend="cython", variant="[3, 4]"),
        bench_record(0.08, stage="decoder", backend="other-project", role="peer"),
        bench_record(stage="pipeline", reference="", reference_seconds=[], figures={"timings": LINES}),
    ]
    path = write_bench_report(records, tmp_path, Session(7))
    text = path.read_text(encoding="utf-8")
    for name in ("bench_ratios.png", "bench_lengths.png", "bench_peers.png", "bench_waterfall.png"):
        assert f"({name})" in text
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    summary = readme.between(text)
    assert "| spectrogram | **6x** (" in summary
    assert "madmom 0.17" in summary
    assert "max 3.6e-07" in summary
    assert summary.count("\n| ") == 1 + 4  # the head, then two spectrograms, decoder, pipeline
    assert "50 MiB" in text
    found, content = read_report(tmp_path / "bench.json")
    assert found == records
    assert content["session"] == {
        "rounds": 7,
        "failed": [],
        "skipped": [],
    }


UNPAIRED: dict[str, Any] = {"stage": "pipeline", "reference": "", "reference_seconds": []}
NOISY = [1.0, 3.0, 1.1, 2.9, 1.2, 2.8, 2.0]


@pytest.mark.parametrize(
    ("fields", "words", "unsaid"),
    [
        (
            {"ratio": 50.0, "agrees": False, "agreement": "max 0.3"},
            ["not counted: does not agree", "**does not agree:** max 0.3"],
            "**50",
        ),
        ({"reference_seconds": NOISY}, ["too noisy to judge"], "**5"),
        ({"reference": "", "reference_seconds": [], "agreement": ""}, ["| 489 | 50 MiB | - |"], "**6"),
    ],
    ids=["wrong", "noisy", "compared with nothing"],
)
def test_what_cannot_be_judged_is_said_and_not_claimed(
    fields: dict[str, Any], words: list[str], unsaid: str, tmp_path: Path
) -> None:
    record = bench_record(**fields)
    text = write_bench_report([record], tmp_path).read_text(encoding="utf-8")
    for said in words:
        assert said in text
    assert unsaid not in text
    assert headline_rows([record]) == ([record] if record.agrees else [])


@pytest.mark.parametrize(
    ("rows", "first"),
    [
        ([bench_record(backend="mlx", reference_seconds=[4 * s for s in NOISY]), bench_record(3.0)], 1),
        ([bench_record(20.0, threads=1), bench_record(6.0)], 1),
        (
            [
                bench_record(90.0, stage="decoder", variant="[4], 1 thread"),
                bench_record(99.0, stage="decoder", variant="construction", audio_seconds=0.0),
                bench_record(40.0, stage="decoder", variant="[3, 4], 1 thread"),
            ],
            2,
        ),
        (
            [
                bench_record(variant="a part", seconds=[0.1] * 3, **UNPAIRED),
                bench_record(variant="stems to result", seconds=[9.0] * 3, **UNPAIRED),
            ],
            1,
        ),
        (
            [
                bench_record(90.0, stage="pipeline", variant="all but the network"),
                bench_record(
                    stage="pipeline", variant="stems to result", seconds=[2.0], reference_seconds=[24.0]
                ),
            ],
            1,
        ),
        ([bench_record(50.0, stage="structure")], None),
    ],
    ids=["sure", "all threads", "as analyzed", "whole", "whole from one round", "a trifle"],
)
def test_the_headline_is_a_sure_row_of_what_an_analysis_runs(
    rows: list[BenchRecord], first: int | None
) -> None:
    assert headline_rows(rows) == ([] if first is None else [rows[first]])


def test_a_run_from_a_mix_has_its_row_and_its_waterfall_at_the_top_of_the_report_and_of_the_readme(
    tmp_path: Path,
) -> None:
    figures = {"timings": LINES, "note": "random weights"}
    whole = {"stage": "pipeline", "reference": "before", "reference_seconds": [24.0], "seconds": [2.0]}
    rows = [
        bench_record(**whole, variant="mix to result, 20 s, 8 folds", audio_seconds=20.0, figures=figures),
        bench_record(**whole, variant="stems to result, 8 folds", figures={"timings": LINES}),
    ]
    assert headline_rows(rows) == [rows[1], rows[0]]
    report = write_bench_report(rows, tmp_path / "reports")
    summary = readme.between(report.read_text(encoding="utf-8"))
    assert "separation included (2 s for 20 s of audio; random weights):" in summary
    assert summary.rstrip().endswith("(bench_waterfall_mix.png)")
    assert (tmp_path / "reports" / "bench_waterfall_mix.png").read_bytes().startswith(b"\x89PNG")
    assert report.read_text(encoding="utf-8").count("waterfall") == 2  # and that from stems, below
    page = tmp_path / "README.md"
    page.write_text(f"{readme.BEGIN}{readme.END}", encoding="utf-8")
    assert readme.embed(page, report)
    assert "](reports/bench_waterfall_mix.png)" in page.read_text(encoding="utf-8")
    assert not readme.embed(page, report)


@pytest.mark.parametrize(
    ("rounds", "words"),
    [
        (1, "| 6x (one round, no interval) |"),
        (2, "| 6x (6-6, range of 2 rounds: 50 %, too few to judge) |"),
        (3, "| **6x** (6-6, range of 3 rounds: 75 %) |"),
        (7, "| **6x** (6-6, range of 7 rounds: 98 %) |"),
        (9, "| **6x** (6-6) |"),
    ],
)
def test_an_interval_says_what_it_is_in_the_table_and_at_the_top(
    rounds: int, words: str, tmp_path: Path
) -> None:
    record = bench_record(seconds=[0.4] * rounds, reference_seconds=[2.4] * rounds)
    text = write_bench_report([record], tmp_path).read_text(encoding="utf-8")
    assert text.count(words) == 2
    assert words in readme.between(text)


def test_the_reference_has_its_time_its_threads_and_its_memory(tmp_path: Path) -> None:
    record = bench_record(reference_threads=1, reference_peak_memory_bytes=2 * 2**30)
    text = write_bench_report([record], tmp_path).read_text(encoding="utf-8")
    assert "| madmom 0.17 | 2.4 s, 1 thread |" in text
    assert "| madmom 0.17: 2.4 s, 1 thread |" in readme.between(text)
    assert "| 50 MiB (reference: 2,048 MiB) |" in text


def test_rows_on_other_inputs_are_not_one_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: drawn.append(figure))
    of_a_minute = {"variant": "[3, 4], 1 thread, 60 s", "audio_seconds": 60.0}
    rows = [
        bench_record(40.0, stage="decoder", variant="[3, 4], 1 thread"),
        bench_record(30.0, stage="decoder", variant="[4], 1 thread"),
        bench_record(stage="decoder", backend="metricon", role="peer", **of_a_minute),
        bench_record(stage="decoder", variant="hints", reference="our own"),  # beside no other project
    ]
    assert plots.draw_peers(rows, tmp_path / "peers.png")
    labels = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert [label for label in labels if "madmom 0.17" in label] == [
        "decoder · madmom 0.17, [3, 4], 196 s",
        "decoder · madmom 0.17, [4], 196 s",
        "decoder · madmom 0.17, [3, 4], 60 s",
    ]
    assert len(labels) == 6


def test_figures_and_notes_of_some_rows_stand_below_their_stage() -> None:
    figures = [{"gflops": 4.0, "note": "one fold"}, {"note": "one fold"}, {}]
    records = [bench_record(variant=f"v{number}", figures=given) for number, given in enumerate(figures)]
    table = report._table(records).splitlines()
    assert "GFLOP/s" in table[0]
    assert [row.split("|")[-3].strip() for row in table[2:]] == ["10", "-", "-"]
    first, second, _ = (plots.label(record, stage=False) for record in records)
    assert report._notes(records) == [f"- {first}; {second}: one fold", ""]


def test_rows_that_cannot_be_judged_look_so() -> None:
    noisy = bench_record(reference_seconds=NOISY)
    few = bench_record(seconds=[0.4], reference_seconds=[2.4])
    handed_on = bench_record(figures={"computed_by": "fused"})
    assert plots._look(bench_record(), "C0") == ("o", "C0", "C0", "")
    assert plots._look(bench_record(agrees=False), "C0") == ("x", "0.6", "0.6", ", does not agree")
    assert plots._look(noisy, "C0") == ("o", "0.6", "white", ", too noisy to judge")
    assert plots._look(few, "C0") == ("o", "0.6", "white", ", 1 round")
    assert plots._look(handed_on, "C0") == ("^", "C0", "C0", ", computed by fused")


def test_plots_follow_the_pipeline() -> None:
    found = [bench_record(stage=stage) for stage in ("pipeline", "decoder", "invented", "spectrogram")]
    assert [record.stage for record in in_order(found)] == [
        "spectrogram",
        "decoder",
        "pipeline",
        "invented",
    ]


@pytest.mark.parametrize(
    ("rows", "is_own", "words"),
    [
        (1, False, "Against the baseline of 2020-01-01: why."),
        (1, True, "This run has become the committed baseline; it is drawn against the one before."),
        (0, True, "This run has become the committed baseline; there was none before it"),
    ],
)
def test_an_earlier_baseline_is_drawn_beside_this_run(
    rows: int, is_own: bool, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = bench_record(6.0)
    before = dict([(record.key, (5.0, record.reference, record.track))][:rows])
    monkeypatch.setattr(report, "earlier", lambda *_: Earlier(before, "2020-01-01: why", is_own))
    assert words in write_bench_report([record], tmp_path).read_text(encoding="utf-8")
    assert (tmp_path / "bench_baseline.png").exists() == (rows > 0)


def test_the_fitted_exponent_and_the_spread() -> None:
    assert bench_record(seconds=[1.0, 2.0, 4.0, 5.0, 9.0]).spread == 3  # the interquartile range
    lengths = np.array([15.0, 60.0, 240.0])
    assert plots.fitted_exponent(lengths, 3 * lengths**1.5) == pytest.approx(1.5)


def test_an_empty_session_claims_nothing(tmp_path: Path) -> None:
    assert "Nothing to compare was measured" in write_bench_report([], tmp_path).read_text(encoding="utf-8")
    text = write_parity_report([], tmp_path).read_text(encoding="utf-8")
    assert "Nothing was compared in this run." in text


def test_a_report_that_cannot_be_made_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bench_report([bench_record(6.0)], tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fail(*_: object) -> bool:
        raise RuntimeError("no plot")

    monkeypatch.setattr(plots, "draw_lengths", fail)
    with pytest.raises(RuntimeError, match="no plot"):
        write_bench_report([bench_record(7.0)], tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_plots_of_an_earlier_run_do_not_stay(tmp_path: Path) -> None:
    (tmp_path / "keep.png").touch()
    write_bench_report([bench_record(figures={"by_length": LENGTHS})], tmp_path)
    assert (tmp_path / "bench_lengths.png").exists()
    write_bench_report([bench_record()], tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["bench.json", "bench.md", "bench_ratios.png", "keep.png"]


def test_the_readme_shows_the_summary(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"# Title\n{readme.BEGIN}\nold\n{readme.END}\nrest\n", encoding="utf-8")
    path = write_bench_report([bench_record()], tmp_path)
    assert readme.main(["--readme", str(page), "--report", str(path)]) == 0
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Title\n")
    assert text.endswith("rest\n")
    assert "| spectrogram | **6x** (" in text
    assert "old" not in text
    assert not readme.embed(page, path)


def test_a_readme_without_marks_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "README.md"
    page.write_text("# Title\n", encoding="utf-8")
    path = write_bench_report([bench_record()], tmp_path)
    assert readme.main(["--readme", str(page), "--report", str(path)]) == 1
    assert "expected one line <!-- bench:begin -->" in capsys.readouterr().err
    assert page.read_text(encoding="utf-8") == "# Title\n"


def test_records_of_another_schema_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    path.write_text('{"schema": 99, "records": []}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"bench\.json: schema 99; expected 1"):
        read_report(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"bench\.json: not JSON"):
        read_report(path)


def test_a_report_is_made_again_as_it_was(tmp_path: Path) -> None:
    session = Session(7, ("bench/bench_x.py::test_y",), created="2020-01-01 00:00 UTC", source="digest")
    path = write_bench_report([bench_record()], tmp_path, session)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    assert render(tmp_path) == path
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    text = path.read_text(encoding="utf-8")
    assert "measured 2020-01-01 00:00 UTC" in text
    assert "- `bench/bench_x.py::test_y`" in text


def test_keys_tell_rows_apart() -> None:
    record = bench_record(variant="[3, 4]")
    assert record.key == "spectrogram/torch/cpu/exact/[3, 4]/2 threads"
    assert dataclasses.replace(record, threads=1).key.endswith("/1 thread")
    assert record.ratio is not None
    assert record.ratio.rounds == 7
    assert dataclasses.replace(record, reference_seconds=[]).ratio is None
