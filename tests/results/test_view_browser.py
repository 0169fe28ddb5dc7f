"""The page of a result in a browser, wide and on a phone: it shows what the JSON says, zooms, seeks and plays."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from browser_page import Page, window
from selenium.webdriver import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.keys import Keys
from test_view import made, noise

from allin1_core.audio.conversion import resample
from allin1_core.audio.types import STEM_NAMES
from allin1_core.results.page import write_page
from allin1_core.results.result import AnalysisResult
from allin1_core.results.summary import COLOURS
from allin1_core.separation.mix import read_mix
from allin1_core.structure import Segment

SECONDS = 24.0
LANES = ["Time, bars", "Sections", "Beats"]


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> AnalysisResult:
    """Of a folder of stems, 24 s; the drums click on the beats."""
    folder = tmp_path_factory.mktemp("stems") / "my <song>"
    folder.mkdir()
    result = made(folder, SECONDS)
    result.segments = [
        Segment(0.0, 6.0, "intro"),
        Segment(6.0, 15.0, "verse"),
        Segment(15.0, SECONDS, "chorus"),
    ]
    for name, level in zip(STEM_NAMES, (0.1, 0.2, 0.3, 0.4), strict=True):
        soundfile.write(folder / f"{name}.flac", level * noise(SECONDS, 1).samples, 44100)
    return result


@pytest.fixture(scope="module")
def pages(result: AnalysisResult, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The page of the mix, of the stems, and beside another result."""
    other = copy.deepcopy(result)
    other.beats[10] += 0.03
    other.beats[20] += 0.1
    other.beat_positions[30:32] = [4, 4]
    del other.beats[40], other.beat_positions[40]
    numbered = zip(other.beats, other.beat_positions, strict=True)
    other.downbeats = [time for time, position in numbered if position == 1]
    other.segments[1:] = [Segment(6.0, 16.0, "verse"), Segment(16.0, SECONDS, "chorus")]
    folder = tmp_path_factory.mktemp("pages")
    given: dict[str, dict[str, Any]] = {"mix": {}, "stems": {"stems": True}, "against": {"against": other}}
    return {name: write_page(result, folder / f"{name}.html", **options) for name, options in given.items()}


class ResultPage(Page):
    """The page of a result."""

    def lane(self, title: str) -> Any:
        """In the middle of the window."""
        canvas = self.find(f'canvas[aria-label="{title}"]')
        self.run("arguments[0].scrollIntoView({block: 'center'})", canvas)
        return canvas

    def titles(self) -> list[str]:
        return list(self.run("return lanes.map((lane) => lane.title)"))

    @property
    def at(self) -> float:
        """Seconds."""
        return float(self.run("return position()"))

    def after(self, *keys: str) -> float:
        """Where it is when they were pressed."""
        self.press(*keys)
        return self.at

    @property
    def view(self) -> list[float]:
        """Its start and end in seconds."""
        return list(self.run("return [view.from, view.to]"))

    @property
    def pointed(self) -> float:
        """The moment in seconds under the pointer, which is on a whole pixel: 0.07 s on a phone."""
        script = "return timeAt(parseFloat(byId('hover').style.left) - lanes[0].canvas.offsetLeft)"
        return float(self.run(script))

    def point(self, title: str, time: float) -> ActionChains:
        """The pointer at a time of a lane."""
        canvas, (start, end) = self.lane(title), self.view
        width = canvas.size["width"]
        across = round(width * (time - start) / (end - start) - width / 2)
        return ActionChains(self.driver).move_to_element_with_offset(canvas, across, 0)

    def colour(self, title: str, time: float, y: int) -> str:
        """Of a lane's pixel, as #RRGGBB."""
        script = """const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
        draw();
        copy.drawImage(arguments[0], -Math.round(x(arguments[1])) * devicePixelRatio, -arguments[2] * devicePixelRatio);
        return [...copy.getImageData(0, 0, 1, 1).data].slice(0, 3)"""
        return "#" + bytes(self.run(script, self.lane(title), time, y)).hex().upper()


Open = Callable[[str], ResultPage]


@pytest.fixture(params=[(1400, 1), (390, 2)], ids=["wide", "phone"])
def opened(request: pytest.FixtureRequest, browser: Any, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens a page in a window of each width and density."""
    with window(browser, *request.param):
        yield lambda name: ResultPage(browser, pages[name])


def test_what_it_shows_equals_the_json(opened: Open, result: AnalysisResult) -> None:
    page, fields = opened("mix"), json.loads(result.to_json())
    assert page.run("return [result.beats, result.positions]") == [fields["beats"], fields["beat_positions"]]
    assert page.run("return result.segments") == [list(segment.values()) for segment in fields["segments"]]
    assert page.find("h1").text == "my <song>"
    assert page.find("#about").text == "120 BPM, 48 beats, 12 downbeats, 3 sections, 0:24"
    names = [button.get_attribute("textContent") for button in page.find_all("#sections button")]
    assert names == ["intro 0:00", "verse 0:06", "chorus 0:15"]
    assert page.run("return document.querySelectorAll('*').length") < 200
    for segment in result.segments:
        # At its left, where no label is written.
        assert page.colour("Sections", segment.start + 0.15, 3) == COLOURS[segment.label]
    page.run("show(5, 4)")
    background = page.colour("Beats", 5.5, 50)
    for time, position in zip(result.beats, result.beat_positions, strict=True):
        if 5.2 < time < 8.8:
            assert page.colour("Beats", time, 50) != background
            # Only downbeats are so tall.
            assert (page.colour("Beats", time, 3) != background) == (position == 1)
            assert page.colour("Beats", time + 0.25, 50) == background


def test_the_tooltip_tells_what_is_known_of_a_moment(opened: Open, result: AnalysisResult) -> None:
    page = opened("mix")
    for title, time in (("Beats", 7.3), ("Activations", 16.1), ("mix", 0.1)):
        page.point(title, time).perform()
        moment = page.pointed
        assert moment == pytest.approx(time, abs=0.07)
        index = int(np.searchsorted(result.beats, moment, side="right")) - 1
        frame = int(moment * 100 + 0.5)
        curves = [result.activations[name][frame] for name in ("beat", "downbeat", "segment")]
        segment = next(segment for segment in result.segments if moment < segment.end)
        number = result.beat_positions[: index + 1].count(1)
        bar = f", bar {number}, beat {result.beat_positions[index]}" if index >= 0 else ""
        beat = f"beat at {result.beats[index]:.2f} s\n" if index >= 0 else ""
        assert page.tip() == (
            f"0:{moment:05.2f}{bar}\n{segment.label}, 0:{segment.start:05.2f} to 0:{segment.end:05.2f}\n{beat}"
            f"P(beat) {curves[0]:.3f}, P(downbeat) {curves[1]:.3f}, P(section) {curves[2]:.3f}"
        )
    page.press(Keys.ESCAPE)
    assert not page.find("#tip").is_displayed()


def test_it_zooms_and_moves(opened: Open) -> None:
    page = opened("mix")
    run = page.run
    page.point("mix", 8.0).perform()
    moment = page.pointed
    before = run("return x(arguments[0])", moment)
    box = run("return arguments[0].getBoundingClientRect()", canvas := page.lane("mix"))
    width, middle, y = box["width"], box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def scroll(across: int, *by: int) -> None:
        origin = ScrollOrigin.from_element(canvas, across, 0)
        ActionChains(page.driver).scroll_from_origin(origin, *by).perform()

    scroll(round(before - width / 2), 0, -200)
    start, end = page.view
    span = end - start
    assert span == pytest.approx(SECONDS * np.exp(-0.5 / (density := run("return devicePixelRatio"))))
    # What is under the pointer stays there; the pointer is on a whole pixel, up to one off, of which 0.65 show.
    assert run("return x(arguments[0])", moment) == pytest.approx(before, abs=0.7)
    scroll(0, 50, 0)
    moved = page.view[0]
    assert moved == pytest.approx(start + span * 50 / density / width)
    ActionChains(page.driver).click_and_hold(canvas).move_by_offset(-100, 0).release().perform()
    assert page.view[0] == pytest.approx(min(SECONDS - span, moved + span * 100 / width))
    assert page.at == 0  # a drag is no click
    page.click("#in")
    assert np.diff(page.view) == pytest.approx(span / 2)
    page.click("#out")
    assert np.diff(page.view) == pytest.approx(span)
    page.click("#fit")
    assert page.view == [0, SECONDS]
    page.press(*"++++++++++")
    assert np.diff(page.view) == pytest.approx(1)  # no closer than a second
    page.press("0")
    for apart in range(40, 81, 4):  # two fingers
        fingers = [{"x": middle, "y": y, "id": 0}, {"x": middle + apart, "y": y, "id": 1}]
        page.touch("touchMove" if apart > 40 else "touchStart", fingers)
    page.touch("touchEnd", [])
    assert np.diff(page.view) == pytest.approx(SECONDS / 2, rel=0.02)


def test_it_seeks_by_click_keys_and_sections(opened: Open, result: AnalysisResult) -> None:
    page = opened("mix")
    page.point("Sections", 7.0).click().perform()
    assert page.at == pytest.approx(7.0, abs=0.07)
    first, second = [time for time in result.beats if time > page.at][:2]
    assert page.after(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT) == second
    assert page.after(Keys.ARROW_LEFT) == first
    assert page.after(Keys.SHIFT, Keys.ARROW_RIGHT) == next(time for time in result.downbeats if time > first)
    assert page.after("]") == 15.0
    assert page.after("[") == 6.0
    buttons = page.find_all("#sections button")
    buttons[2].click()
    assert page.at == 15.0
    assert [button.get_attribute("aria-current") for button in buttons] == ["false", "false", "true"]
    assert page.find("#now").get_attribute("textContent") == "0:15.00 / 0:24.00   bar 8.1"
    page.click("#previous")
    assert page.at == 6.0
    assert page.after(Keys.END) == SECONDS
    page.run("show(0, 5)")
    page.press(Keys.HOME, Keys.END)  # the view goes along
    assert page.view == [SECONDS - 5, SECONDS]


def test_it_plays_with_clicks_and_pauses(opened: Open) -> None:
    page = opened("mix")
    run = page.run
    page.click("#play")
    page.wait("player.playing && position() > 0.3")
    assert page.find("#play").text == "❚❚ Pause"
    assert run("return player.clicks[0].gain.gain.value") == 0
    page.click("#click")
    assert run("return [player.clicks[0].gain.gain.value, player.gains[0].gain.value]") == [1, 1]
    run("pause(); play(); seek(9.8)")  # before it has begun; then over the seam of two pieces
    page.wait("player.playing && position() > 10.1")
    run("show(0, 1)")
    page.wait("view.from > 9")  # the view follows
    page.press(" ")
    assert not run("return player.playing")
    assert page.at == run("return new Promise((resolve) => setTimeout(() => resolve(position()), 150))")
    assert run("return player.sources.length") == 0
    run("seek(duration - 0.2); play()")
    page.wait(f"position() === {SECONDS} && !player.playing")


def test_the_song_is_heard_with_clicks(browser: Any, pages: dict[str, Path], result: AnalysisResult) -> None:
    """Played into memory from 9.5 s on, over the seam at 10 s, without and with clicks."""
    script = """
    const done = arguments[1], offline = new OfflineAudioContext(1, 48000, 48000);
    offline.resume = () => Promise.resolve();
    window.AudioContext = function () { return offline; };
    if (arguments[0]) toggle("click");
    seek(9.5);
    play();
    // The next piece is scheduled when it is decoded: both, before a sample is rendered.
    const isPiece = (source) => source.buffer.length > 48000;
    const wait = () => player.sources.filter(isPiece).length < 2 ? setTimeout(wait, 20)
      : offline.startRendering().then((buffer) => done([player.origin, [...buffer.getChannelData(0)]]));
    wait();
    """
    heard = {}
    for wanted in (False, True):
        browser.get(pages["mix"].as_uri())
        origin, samples = browser.execute_async_script(script, wanted)
        assert origin == pytest.approx(0.05 - 9.5)
        heard[wanted] = np.array(samples)
    mix = resample(read_mix(result.path).samples, 44100, 48000)[456_000:, 0]  # from 9.5 s on
    expected = np.concatenate([np.zeros(2400), mix[:45600]])
    assert not heard[False][:2399].any()
    for start in (2400, 20_000, 26_400 - 1200, 40_000):  # 10 s is at 26,400
        rows = [heard[False][start:], *(expected[start + lag :] for lag in range(-3, 4))]
        fit = np.corrcoef([row[:2400] for row in rows])[0, 1:]
        assert np.argmax(fit) == 3
        assert fit[3] > 0.95
    clicks = heard[True] - heard[False]
    [first] = [time for time in result.beats if 9.5 <= time < 9.9]
    assert np.flatnonzero(np.abs(clicks) > 0.02)[0] == pytest.approx((0.05 + first - 9.5) * 48000, abs=3)


def test_stems_can_be_muted_and_played_alone(opened: Open) -> None:
    page = opened("stems")
    assert page.titles() == [*LANES, *STEM_NAMES, "Activations", "Functions"]
    page.click("#play")
    page.wait("player.playing && position() > 0.1")
    for clicked, gains in (
        ([], [1, 1, 1, 1]),
        (["#mute-drums"], [1, 0, 1, 1]),
        (["#solo-vocals"], [0, 0, 0, 1]),
        (["#solo-bass"], [1, 0, 0, 1]),
        (["#solo-bass", "#solo-vocals", "#mute-drums"], [1, 1, 1, 1]),
    ):
        page.click(*clicked)
        assert page.run("return player.gains.map((gain) => gain.gain.value / data.audio.gain)") == gains
    page.click("#play")


def test_two_results_and_their_differences(opened: Open, result: AnalysisResult) -> None:
    page, beats = opened("against"), result.beats
    counts = "43 beats the same, 1 moved by 1 to 70 ms, 2 at another position, 2 only here, 1 only there"
    assert page.find("#differences").text.splitlines()[1:7] == [
        *counts.split(", "),
        "1 span of other sections",
    ]
    assert [page.after("n") for _ in range(6)] == [
        beats[10],
        beats[20],
        beats[20] + 0.1,
        15.0,
        beats[30],
        beats[31],
    ]
    assert page.after("p") == beats[30]
    page.run("show(4.5, 2)")
    page.point("Beats", beats[10]).perform()
    assert page.tip().splitlines()[-1] == "beat moved by 30 ms"
    page.run("show(14, 3)")
    page.point("Sections", 15.7).perform()
    assert page.tip().splitlines()[1:3] == ["chorus, 0:15.00 to 0:24.00", "other: verse, 0:06.00 to 0:16.00"]
    assert page.colour("Sections", 15.5, 10) == COLOURS["chorus"]
    assert page.colour("Sections", 15.5, 38) == COLOURS["verse"]


def test_sound_that_cannot_be_played_is_told(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    before, piece, after = pages["mix"].read_text().partition("T2dnUw")  # OggS
    assert piece
    (tmp_path / "damaged.html").write_text(f"{before}AAAAAA{after}")
    page = ResultPage(browser, tmp_path / "damaged.html")
    page.click("#play")
    page.wait("byId('note').checkVisibility()")
    assert page.find("#note").text.startswith("This browser cannot play the sound, Opus in Ogg (")
    assert not page.find("#play").is_enabled()
    assert not page.run("return player.playing || player.starting")


def test_without_sound_it_says_so(browser: Any, tmp_path: Path, result: AnalysisResult) -> None:
    silent = copy.deepcopy(result)
    silent.path, silent.activations = Path("/nowhere/<b>&.wav"), None
    page = ResultPage(browser, write_page(silent, tmp_path / "silent.html"))
    words = "There is no audio at /nowhere/<b>&.wav: this page has neither"
    assert page.find("#note").text.startswith(words)
    assert not page.find("#play").is_enabled()
    assert page.titles() == LANES
    page.press(" ", "]")
    assert page.run("return [player.playing, position()]") == [False, 6.0]
    assert browser.get_log("browser") == []
