"""Progress bars: on standard error, one for the tracks and one for the stages of the present one."""

from __future__ import annotations

import pytest

from allin1_core.batch.progress import Progress


def test_bars_name_track_stage_and_part(capsys: pytest.CaptureFixture[str]) -> None:
    bars = Progress(2, shown=True)
    for name in ("one", "two"):
        with bars.track(name):
            bars.start_stage("demix")
            bars.show_part(0.5)
            bars.start_stage("nn")
    bars.close()
    captured = capsys.readouterr()
    assert captured.out == ""
    for words in ("Tracks: 100%", "2/2", "one:", "two:", "demix 50%", "nn"):
        assert words in captured.err, words


@pytest.mark.parametrize("shown", [False, None])
def test_bars_are_not_shown_on_request_nor_off_a_terminal(
    shown: bool | None, capsys: pytest.CaptureFixture[str]
) -> None:
    bars = Progress(2, shown=shown)
    with bars.track("one"):
        bars.start_stage("demix")
    bars.close()
    assert capsys.readouterr().err == ""


def test_one_track_has_no_bar_of_tracks_and_stages_may_be_outside_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bars = Progress(1, shown=True)
    bars.start_stage("model_load")
    bars.show_part(0.5)
    with bars.track("one"):
        bars.start_stage("demix")
    bars.close()
    assert "Tracks" not in capsys.readouterr().err


def test_of_tracks_side_by_side_there_is_the_bar_of_those_that_are_done(
    capsys: pytest.CaptureFixture[str],
) -> None:
    bars = Progress(2, shown=True, side_by_side=True)
    with bars.track("one"), bars.track("two"):
        bars.start_stage("demix")
        bars.show_part(0.5)
    bars.close()
    shown = capsys.readouterr().err
    assert "2/2" in shown
    for words in ("one:", "two:", "demix"):
        assert words not in shown, words


def test_bars_need_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service may have closed it; tqdm writes to what is not there."""
    monkeypatch.setattr("sys.stderr", None)
    bars = Progress(2)
    with bars.track("one"):
        bars.start_stage("demix")
    bars.close()
