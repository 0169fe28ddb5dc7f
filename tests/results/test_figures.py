"""Figures and click tracks: what is drawn and heard, and where."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core import analyze, sonify, visualize
from allin1_core.audio.types import Audio
from allin1_core.errors import AudioError, ResultError, printable
from allin1_core.files.reading import file_digest
from allin1_core.plotting import save
from allin1_core.results import validation
from allin1_core.results.clicks import click_track
from allin1_core.results.figures import activations, loudness, overview
from allin1_core.results.page import page
from allin1_core.results.result import AnalysisResult
from allin1_core.separation import track
from allin1_core.structure import Segment
from allin1_core.timings.schema import read_timings


@pytest.fixture
def result(write_mix: Callable[..., Path]) -> AnalysisResult:
    random = np.random.default_rng(0)
    return AnalysisResult(
        path=write_mix("so$ng_x.wav", 4.0),
        bpm=120,
        beats=[0.5, 1.0, 1.5, 2.0],
        downbeats=[1.0],
        beat_positions=[4, 1, 2, 3],
        segments=[Segment(0.0, 0.02, "start"), Segment(0.02, 3.0, "verse"), Segment(3.0, 4.0, "chorus")],
        activations={
            **{name: random.random(400, np.float32) for name in ("beat", "downbeat", "segment")},
            "label": random.dirichlet(np.ones(10), 400).T.astype(np.float32),
        },
    )


def test_loudness_of_a_sine_is_3_db_below_its_peak() -> None:
    tone = np.sin(2 * np.pi * 441 * np.arange(44100) / 44100).astype(np.float32)
    times, level = loudness(Audio(np.stack([tone, tone], axis=1), 44100))
    np.testing.assert_allclose(level, -3.01, atol=0.1)
    assert times[0] == pytest.approx(2048 / 44100)
    assert (np.diff(times) > 0).all()


def test_loudness_of_silence_and_of_one_sample() -> None:
    assert (loudness(Audio(np.zeros((9000, 1), np.float32), 44100))[1] == -60).all()
    times, level = loudness(Audio(np.ones((1, 1), np.float32), 44100))
    assert level.tolist() == [0.0]
    assert len(times) == 1


def test_overview_draws_sections_and_beats_at_their_times(result: AnalysisResult) -> None:
    samples = np.full((4 * 44100, 1), 0.5, np.float32)
    level_axes, beat_axes, section_axes = overview(result, Audio(samples, 44100)).axes
    assert [(p.get_x(), p.get_x() + p.get_width()) for p in section_axes.patches] == [
        (segment.start, segment.end) for segment in result.segments
    ]
    assert [text.get_text() for text in section_axes.texts] == ["verse", "chorus"]
    assert [text.get_text() for text in section_axes.get_legend().get_texts()] == ["start"]
    ordinary, downbeats = (c.get_segments() for c in beat_axes.collections)
    assert [line[0][0] for line in ordinary] == [0.5, 1.5, 2.0]
    assert [line[0][0] for line in downbeats] == [1.0]
    assert "120 BPM" in level_axes.get_title()


def test_sections_too_narrow_for_their_label_have_it_upright(result: AnalysisResult) -> None:
    """Labels share colours: of intro and outro the one that fitted was named, and the other looked like it."""
    ends = {"intro": 0.12, "verse": 2.0, "outro": 2.1, "solo": 2.12, "chorus": 4.0}
    starts = [0.0, *ends.values()]
    result.segments = [
        Segment(start, end, label) for start, (label, end) in zip(starts, ends.items(), strict=False)
    ]
    axes = overview(result, Audio(np.zeros((4 * 44100, 1), np.float32), 44100)).axes[2]
    rotations = {text.get_text(): text.get_rotation() for text in axes.texts}
    assert rotations == {"intro": 90, "verse": 0, "outro": 90, "chorus": 0}
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["solo"]
    axes.figure.canvas.draw()
    for text in axes.texts:
        box, room = text.get_window_extent(), axes.get_window_extent()
        assert room.y0 <= box.y0 <= box.y1 <= room.y1


def test_activations_page_shows_the_curves(result: AnalysisResult) -> None:
    assert result.activations is not None
    curves = activations(result).axes[0]
    np.testing.assert_array_equal(curves.lines[0].get_ydata(), result.activations["beat"])
    np.testing.assert_array_equal(curves.lines[1].get_ydata(), result.activations["downbeat"])


def test_activations_page_needs_activations(result: AnalysisResult) -> None:
    result.activations = None
    with pytest.raises(ResultError, match="carries no activations; analyse with include_activations=True"):
        activations(result)


def test_figures_are_written_whole_and_the_same_every_time(result: AnalysisResult, tmp_path: Path) -> None:
    figures = visualize([result], tmp_path / "viz")
    assert len(figures) == 1
    names = sorted(path.name for path in (tmp_path / "viz").iterdir())
    assert names == ["so$ng_x.activations.pdf", "so$ng_x.pdf"]
    first = (tmp_path / "viz" / names[1]).read_bytes()
    assert first.startswith(b"%PDF")
    visualize(result, tmp_path / "viz")
    assert (tmp_path / "viz" / names[1]).read_bytes() == first


def test_clicks_lie_on_the_beats_and_are_higher_on_downbeats(result: AnalysisResult) -> None:
    result.segments = [Segment(0.0, 3.0, "verse"), Segment(3.0, 4.0, "chorus")]
    clicks = click_track(result, 4 * 44100, 44100)
    assert clicks.dtype == np.float32
    assert np.flatnonzero(clicks)[0] / 44100 == pytest.approx(0.5, abs=1e-3)
    for time, frequency in [(0.5, 1500), (1.0, 3000), (1.5, 1500)]:
        start = int(time * 44100)
        spectrum = np.abs(np.fft.rfft(clicks[start : start + 4410]))
        assert abs(np.argmax(spectrum) * 10 - frequency) <= 20
    assert not clicks[int(2.2 * 44100) : int(2.99 * 44100)].any()
    assert np.abs(clicks[int(3.0 * 44100) : int(3.5 * 44100)]).max() > 0.1


def test_sonification_keeps_channels_and_is_written(result: AnalysisResult, tmp_path: Path) -> None:
    mixed, sample_rate = sonify(result, tmp_path / "sonif")
    assert mixed.shape == (4 * 44100, 2)
    assert sample_rate == 44100
    assert np.abs(mixed).max() <= 1
    written, _ = soundfile.read(tmp_path / "sonif" / "so$ng_x.sonif.wav", dtype="float32")
    np.testing.assert_allclose(written, mixed, atol=1e-4)


def test_beats_near_the_end_do_not_overrun(result: AnalysisResult) -> None:
    result.beats, result.beat_positions, result.downbeats = [2.999, 3.5], [1, 2], [2.999]
    assert len(click_track(result, 3 * 44100, 44100)) == 3 * 44100


@pytest.mark.parametrize("sample_rate", [0, -44100, float("nan"), 44100.5])
def test_clicks_at_no_sample_rate(result: AnalysisResult, sample_rate: Any) -> None:
    with pytest.raises(AudioError, match=f"sample_rate: {sample_rate}; expected a whole number"):
        click_track(result, 44100, sample_rate)


@pytest.mark.parametrize("name", ["a\udcff.wav", "a\nb\x00.wav", r"x\$y$.wav"])
def test_tracks_with_odd_names_are_drawn(result: AnalysisResult, name: str, tmp_path: Path) -> None:
    result.path = tmp_path / name
    figures = [overview(result, Audio(np.zeros((44100, 1), np.float32), 44100)), activations(result)]
    for index, figure in enumerate(figures):
        save(figure, tmp_path / f"{index}.pdf")
    title = figures[0].axes[0].get_title()
    assert title == f"{printable(name)}: 120 BPM, 4 beats"


@pytest.mark.parametrize("use", [sonify, visualize, page], ids=lambda use: use.__name__)
@pytest.mark.parametrize("changed", ["song/drums.wav", "song.wav"])
def test_beats_are_not_put_over_other_audio(
    use: Callable[..., Any], changed: str, song: Path, write_mix: Callable[..., Path]
) -> None:
    write_mix("song.wav")
    path = song.parent / changed
    files = {file.name: file_digest(file) for file in (song.iterdir() if path.parent == song else [path])}
    result = AnalysisResult(
        song if path.parent == song else path,
        *(None, [], [], []),
        [Segment(0.0, 5.0 if path.parent == song else 2.0, "intro")],
        provenance={"audio_sha256": files},
    )
    use(result)
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"ab")
    with pytest.raises(ResultError, match=rf"{path.name}: found SHA-256 .*, of the audio that was analysed"):
        use(result)
    use(result, audio=result.path)


@pytest.mark.parametrize("given", ["song.json", Path("song.json"), None, [3]])
@pytest.mark.parametrize("use", [sonify, visualize], ids=lambda use: use.__name__)
def test_what_is_no_result_is_refused(use: Callable[..., Any], given: Any) -> None:
    with pytest.raises(
        ResultError, match=r"result: found .*; expected an AnalysisResult, as analyze and load_result"
    ):
        use(given)


def test_a_run_that_draws_and_sonifies_hashes_and_reads_its_audio_once(
    song: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = []

    def noted(path: Path, *more: Any) -> str:
        hashed.append(path.name)
        return file_digest(path, *more)

    for module in (track, validation):
        monkeypatch.setattr(module, "file_digest", noted)
    folders = {name: tmp_path / name for name in ("out_dir", "visualize", "sonify")}
    for _ in ("made", "there"):
        hashed.clear()
        analyze(song, **folders, timings_path=tmp_path / "t.jsonl", **options)
        assert sorted(hashed) == ["bass.wav", "drums.wav", "other.wav", "vocals.wav"]
    lines = [line for line in read_timings(tmp_path / "t.jsonl") if line.stage == "audio_read"]
    assert [line.details for line in lines] == [{}, {"what": "mix"}, {"what": "mix"}]


def test_audio_that_changes_before_it_is_drawn_is_refused(
    song: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = AnalysisResult.save

    def save_and_change(self: AnalysisResult, *arguments: Any) -> None:
        save(self, *arguments)
        with (song / "drums.wav").open("r+b") as file:
            file.seek(-2, os.SEEK_END)
            file.write(b"ab")

    monkeypatch.setattr(AnalysisResult, "save", save_and_change)
    folders = {name: tmp_path / name for name in ("out_dir", "visualize", "sonify")}
    with pytest.raises(AudioError, match=r"drums\.wav: changed while it was read"):
        analyze(song, **folders, **options)
    assert [path.name for path in tmp_path.rglob("song.*")] == ["song.json"]


def test_figures_are_drawn_whatever_backend_the_environment_names(
    song: Path, small_model: str, tmp_path: Path
) -> None:
    arguments = ["analyze", str(song), "-m", small_model, "-d", "cpu", "-v", "-q"]
    arguments += ["--viz-dir", str(tmp_path / "viz"), "-o", str(tmp_path / "out")]
    arguments += ["--timings", str(tmp_path / "t.jsonl")]
    commands = [arguments, ["timings", str(tmp_path / "t.jsonl")]]
    child = subprocess.run(
        [sys.executable, "-c", f"from allin1_core.cli import main; print([main(one) for one in {commands}])"],
        env={**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.stdout.endswith("[0, 0]\n")
    assert child.stderr == ""
    assert (tmp_path / "viz" / "song.pdf").read_bytes().startswith(b"%PDF")
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


def test_a_caller_keeps_the_plotting_backend_of_the_environment() -> None:
    code = (
        "import os; from allin1_core.plotting import new_figure; new_figure(1, 1); import matplotlib; "
        "print(matplotlib.get_backend(), os.environ['MPLBACKEND'])"
    )
    child = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "MPLBACKEND": "svg"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert child.stdout == "svg svg\n"
