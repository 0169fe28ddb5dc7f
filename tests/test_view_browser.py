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
from selenium.webdriver import ActionChains
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait
from test_view import made, noise

from allin1_core.audio.types import STEM_NAMES
from allin1_core.results.colours import COLOURS
from allin1_core.results.page import write_page
from allin1_core.results.result import AnalysisResult
from allin1_core.structure import Segment

SECONDS = 24.0


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
    other.downbeats = [
        time for time, position in zip(other.beats, other.beat_positions, strict=True) if position == 1
    ]
    other.segments[1:] = [Segment(6.0, 16.0, "verse"), Segment(16.0, SECONDS, "chorus")]
    folder = tmp_path_factory.mktemp("pages")
    return {
        "mix": write_page(result, folder / "mix.html"),
        "stems": write_page(result, folder / "stems.html", stems=True),
        "against": write_page(result, folder / "against.html", against=other),
    }


@pytest.fixture(params=[(1400, 1), (390, 2)], ids=["wide", "phone"])
def opened(
    request: pytest.FixtureRequest, browser: Any, pages: dict[str, Path]
) -> Iterator[Callable[[str], Any]]:
    """Opens a page in a window of each width and density; nothing overflows or is loaded, the console stays empty."""
    width, density = request.param
    size = {"width": width, "height": 900, "deviceScaleFactor": density, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def open_page(name: str) -> Any:
        browser.get(pages[name].as_uri())
        return browser

    yield open_page
    run = browser.execute_script
    assert run("return [innerWidth, devicePixelRatio]") == [width, density]
    assert run("return document.documentElement.scrollWidth") <= width
    assert run("return performance.getEntriesByType('resource').length") == 0
    assert browser.get_log("browser") == []


def find(browser: Any, selector: str) -> Any:
    return browser.find_element("css selector", selector)


def lane(browser: Any, title: str) -> Any:
    return find(browser, f'canvas[aria-label="{title}"]')


def view(browser: Any) -> list[float]:
    found: list[float] = browser.execute_script("return [view.from, view.to]")
    return found


def point(browser: Any, title: str, time: float) -> ActionChains:
    """The pointer at a time of a lane."""
    canvas = lane(browser, title)
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    start, end = view(browser)
    width = canvas.size["width"]
    return ActionChains(browser).move_to_element_with_offset(
        canvas, round(width * (time - start) / (end - start) - width / 2), 0
    )


def colour(browser: Any, title: str, time: float, y: int) -> list[int]:
    """Red, green and blue of a lane's pixel."""
    script = """const copy = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
    draw();
    copy.drawImage(arguments[0], -Math.round(x(arguments[1])) * devicePixelRatio, -arguments[2] * devicePixelRatio);
    return [...copy.getImageData(0, 0, 1, 1).data].slice(0, 3)"""
    found: list[int] = browser.execute_script(script, lane(browser, title), time, y)
    return found


def rgb(text: str) -> list[int]:
    return [int(text[index : index + 2], 16) for index in (1, 3, 5)]


def test_what_it_shows_equals_the_json(opened: Callable[[str], Any], result: AnalysisResult) -> None:
    browser = opened("mix")
    run, fields = browser.execute_script, json.loads(result.to_json())
    assert run("return [result.beats, result.positions]") == [fields["beats"], fields["beat_positions"]]
    assert run("return result.segments") == [list(segment.values()) for segment in fields["segments"]]
    assert find(browser, "h1").text == "my <song>"
    assert find(browser, "#about").text == "120 BPM, 48 beats, 12 downbeats, 3 sections, 0:24"
    buttons = browser.find_elements("css selector", "#sections button")
    assert [button.get_attribute("textContent") for button in buttons] == [
        "intro 0:00",
        "verse 0:06",
        "chorus 0:15",
    ]
    assert run("return document.querySelectorAll('*').length") < 200
    for segment in result.segments:
        # At its left, where no label is written.
        assert colour(browser, "Sections", segment.start + 0.15, 3) == rgb(COLOURS[segment.label])
    run("show(5, 4)")
    background = colour(browser, "Beats", 5.5, 50)
    for index, time in enumerate(result.beats):
        if 5.2 < time < 8.8:
            assert colour(browser, "Beats", time, 50) != background
            # Only downbeats are so tall.
            assert (colour(browser, "Beats", time, 3) != background) == (result.beat_positions[index] == 1)
            assert colour(browser, "Beats", time + 0.25, 50) == background


def test_the_tooltip_tells_what_is_known_of_a_moment(
    opened: Callable[[str], Any], result: AnalysisResult
) -> None:
    browser = opened("mix")
    assert result.activations is not None
    for title, time in (("Beats", 7.3), ("Activations", 16.1), ("mix", 0.1)):
        point(browser, title, time).perform()
        tip = find(browser, "#tip")
        # To a pixel: 0.07 s on a phone.
        moment = browser.execute_script(
            "return timeAt(parseFloat(byId('hover').style.left) - lanes[0].canvas.offsetLeft)"
        )
        assert moment == pytest.approx(time, abs=0.07)
        index = int(np.searchsorted(result.beats, moment, side="right")) - 1
        frame = int(moment * 100 + 0.5)
        curves = [float(result.activations[name][frame]) for name in ("beat", "downbeat", "segment")]
        segment = next(segment for segment in result.segments if moment < segment.end)
        beat, bar = "", ""
        if index >= 0:
            beat = f"beat at {result.beats[index]:.2f} s\n"
            number = result.beat_positions[: index + 1].count(1)
            bar = f", bar {number}, beat {result.beat_positions[index]}"
        expected = (
            f"0:{moment:05.2f}{bar}\n{segment.label}, 0:{segment.start:05.2f} to 0:{segment.end:05.2f}\n{beat}"
            f"P(beat) {curves[0]:.3f}, P(downbeat) {curves[1]:.3f}, P(section) {curves[2]:.3f}"
        )
        assert tip.text == expected
        assert (
            0
            <= tip.rect["x"]
            <= tip.rect["x"] + tip.rect["width"]
            <= browser.execute_script("return innerWidth")
        )
    find(browser, "body").send_keys(Keys.ESCAPE)
    assert not find(browser, "#tip").is_displayed()


def test_it_zooms_and_moves(opened: Callable[[str], Any]) -> None:
    browser = opened("mix")
    run, density = browser.execute_script, browser.execute_script("return devicePixelRatio")
    point(browser, "mix", 8.0).perform()
    moment = run("return timeAt(parseFloat(byId('hover').style.left) - lanes[0].canvas.offsetLeft)")
    before = run("return x(arguments[0])", moment)
    canvas = lane(browser, "mix")
    across = round(before - canvas.size["width"] / 2)
    ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(canvas, across, 0), 0, -200).perform()
    start, end = view(browser)
    assert end - start == pytest.approx(SECONDS * np.exp(-0.5 / density))
    # What is under the pointer stays there; the pointer is on a whole pixel, up to one off, of which 0.65 show.
    assert run("return x(arguments[0])", moment) == pytest.approx(before, abs=0.7)
    ActionChains(browser).scroll_from_origin(ScrollOrigin.from_element(canvas, 0, 0), 50, 0).perform()
    span = end - start
    assert view(browser)[0] == pytest.approx(start + span * 50 / density / canvas.size["width"])
    before_drag = view(browser)[0]
    ActionChains(browser).click_and_hold(canvas).move_by_offset(-100, 0).release().perform()
    assert view(browser)[0] == pytest.approx(
        min(SECONDS - span, before_drag + span * 100 / canvas.size["width"])
    )
    assert run("return position()") == 0  # a drag is no click
    find(browser, "#in").click()
    assert np.diff(view(browser)) == pytest.approx(span / 2)
    find(browser, "#out").click()
    assert np.diff(view(browser)) == pytest.approx(span)
    find(browser, "#fit").click()
    assert view(browser) == [0, SECONDS]
    for _ in range(10):
        find(browser, "body").send_keys("+")
    assert np.diff(view(browser)) == pytest.approx(1)  # no closer than a second
    find(browser, "body").send_keys("0")
    pinch(browser, canvas, 40, 80)
    assert np.diff(view(browser)) == pytest.approx(SECONDS / 2, rel=0.02)


def pinch(browser: Any, canvas: Any, start: int, end: int) -> None:
    """Two fingers about the middle of an element, from one distance to another."""
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    box = browser.execute_script(
        "const b = arguments[0].getBoundingClientRect(); return [b.x, b.y, b.width, b.height]", canvas
    )
    left, y = box[0] + box[2] / 2, box[1] + box[3] / 2

    def touch(kind: str, *distances: float) -> None:
        points = [{"x": left + distance, "y": y, "id": index} for index, distance in enumerate(distances)]
        browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    touch("touchStart", 0, start)
    for distance in range(start, end + 1, 4):
        touch("touchMove", 0, distance)
    touch("touchEnd")


def test_it_seeks_by_click_keys_and_sections(opened: Callable[[str], Any], result: AnalysisResult) -> None:
    browser = opened("mix")

    def at() -> float:
        return float(browser.execute_script("return position()"))

    point(browser, "Sections", 7.0).click().perform()
    assert at() == pytest.approx(7.0, abs=0.07)
    body = find(browser, "body")
    following = [time for time in result.beats if time > at()]
    body.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert at() == following[1]
    body.send_keys(Keys.ARROW_LEFT)
    assert at() == following[0]
    body.send_keys(Keys.SHIFT, Keys.ARROW_RIGHT)
    assert at() == next(time for time in result.downbeats if time > following[0])
    body.send_keys("]")
    assert at() == 15.0
    body.send_keys("[")
    assert at() == 6.0
    buttons = browser.find_elements("css selector", "#sections button")
    buttons[2].click()
    assert at() == 15.0
    assert [button.get_attribute("aria-current") for button in buttons] == ["false", "false", "true"]
    assert find(browser, "#now").get_attribute("textContent") == "0:15.00 / 0:24.00   bar 8.1"
    find(browser, "#previous").click()
    assert at() == 6.0
    body.send_keys(Keys.END)
    assert at() == SECONDS
    browser.execute_script("show(0, 5)")
    body.send_keys(Keys.HOME, Keys.END)  # the view goes along
    assert view(browser) == [SECONDS - 5, SECONDS]


def playing_after(browser: Any, time: float) -> float:
    WebDriverWait(browser, 20).until(
        lambda _: browser.execute_script("return player.playing && position()") > time
    )
    return float(browser.execute_script("return position()"))


def test_it_plays_with_clicks_and_pauses(opened: Callable[[str], Any]) -> None:
    browser = opened("mix")
    run = browser.execute_script
    find(browser, "#play").click()
    playing_after(browser, 0.3)
    assert find(browser, "#play").text == "❚❚ Pause"
    assert run("return player.clicks[0].gain.gain.value") == 0
    find(browser, "#click").click()
    assert run("return [player.clicks[0].gain.gain.value, player.gains[0].gain.value]") == [1, 1]
    run("pause(); play(); seek(9.8)")  # before it has begun; then over the seam of two pieces
    playing_after(browser, 10.1)
    run("show(0, 1)")
    WebDriverWait(browser, 20).until(lambda _: view(browser)[0] > 9)  # the view follows
    find(browser, "body").send_keys(" ")
    assert not run("return player.playing")
    paused = run("return position()")
    assert run("return new Promise((resolve) => setTimeout(() => resolve(position()), 150))") == paused
    assert run("return player.sources.length") == 0
    run("seek(duration - 0.2); play()")
    WebDriverWait(browser, 20).until(
        lambda _: run("return position()") == SECONDS and not run("return player.playing")
    )


def test_what_is_heard_is_the_song_with_clicks_on_its_beats(
    browser: Any, pages: dict[str, Path], result: AnalysisResult
) -> None:
    """Played into memory from 9.5 s on, over the seam at 10 s, without and with clicks."""
    heard = {}
    for wanted in (False, True):
        browser.get(pages["mix"].as_uri())
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
        origin, samples = browser.execute_async_script(script, wanted)
        assert origin == pytest.approx(0.05 - 9.5)
        heard[wanted] = np.array(samples)
    from allin1_core.audio.conversion import resample
    from allin1_core.separation.mix import read_mix

    mix = resample(read_mix(result.path).samples, 44100, 48000)[:, 0]
    begin = round(9.5 * 48000)
    expected = np.concatenate([np.zeros(2400), mix[begin : begin + 45600]])
    assert not heard[False][:2399].any()
    for start in (2400, 20_000, 26_400 - 1200, 40_000):  # 10 s is at 26,400
        fit = [
            np.corrcoef(heard[False][start : start + 2400], expected[start + lag : start + lag + 2400])[0, 1]
            for lag in range(-3, 4)
        ]
        assert np.argmax(fit) == 3
        assert fit[3] > 0.95
    clicks = heard[True] - heard[False]
    [first] = [time for time in result.beats if 9.5 <= time < 9.9]
    onset = int(np.flatnonzero(np.abs(clicks) > 0.02)[0])
    assert onset == pytest.approx((0.05 + first - 9.5) * 48000, abs=3)


def test_stems_can_be_muted_and_played_alone(opened: Callable[[str], Any]) -> None:
    browser = opened("stems")
    titles = browser.execute_script("return lanes.map((lane) => lane.title)")
    assert titles == ["Time, bars", "Sections", "Beats", *STEM_NAMES, "Activations", "Functions"]
    find(browser, "#play").click()
    playing_after(browser, 0.1)

    def gains() -> list[float]:
        return list(
            browser.execute_script("return player.gains.map((gain) => gain.gain.value / data.audio.gain)")
        )

    assert gains() == [1, 1, 1, 1]
    find(browser, "#mute-drums").click()
    assert gains() == [1, 0, 1, 1]
    find(browser, "#solo-vocals").click()
    assert gains() == [0, 0, 0, 1]
    find(browser, "#solo-bass").click()
    assert gains() == [1, 0, 0, 1]
    find(browser, "#solo-bass").click()
    find(browser, "#solo-vocals").click()
    find(browser, "#mute-drums").click()
    assert gains() == [1, 1, 1, 1]
    find(browser, "#play").click()


def test_two_results_and_their_differences(opened: Callable[[str], Any], result: AnalysisResult) -> None:
    browser = opened("against")
    text = find(browser, "#differences").text
    for words in (
        "43 beats the same",
        "1 moved by 1 to 70 ms",
        "2 at another position",
        "2 only here",
        "1 only there",
    ):
        assert words in text
    assert "1 span of other sections" in text
    steps = []
    body = find(browser, "body")
    for _ in range(6):
        body.send_keys("n")
        steps.append(browser.execute_script("return position()"))
    beats = result.beats
    assert steps == [beats[10], beats[20], beats[20] + 0.1, 15.0, beats[30], beats[31]]
    body.send_keys("p")
    assert browser.execute_script("return position()") == beats[30]
    browser.execute_script("show(4.5, 2)")
    point(browser, "Beats", beats[10]).perform()
    assert find(browser, "#tip").text.splitlines()[-1] == "beat moved by 30 ms"
    browser.execute_script("show(14, 3)")
    point(browser, "Sections", 15.7).perform()
    lines = find(browser, "#tip").text.splitlines()
    assert lines[1:3] == ["chorus, 0:15.00 to 0:24.00", "other: verse, 0:06.00 to 0:16.00"]
    assert colour(browser, "Sections", 15.5, 10) == rgb(COLOURS["chorus"])
    assert colour(browser, "Sections", 15.5, 38) == rgb(COLOURS["verse"])


def test_sound_that_cannot_be_played_is_told(browser: Any, pages: dict[str, Path], tmp_path: Path) -> None:
    before, piece, after = pages["mix"].read_text().partition("T2dnUw")  # OggS
    (tmp_path / "damaged.html").write_text(f"{before}AAAAAA{after}")
    assert piece
    browser.get((tmp_path / "damaged.html").as_uri())
    find(browser, "#play").click()
    WebDriverWait(browser, 20).until(lambda _: find(browser, "#note").is_displayed())
    assert find(browser, "#note").text.startswith("This browser cannot play the sound, Opus in Ogg (")
    assert not find(browser, "#play").is_enabled()
    assert not browser.execute_script("return player.playing || player.starting")


def test_without_sound_it_says_so(browser: Any, tmp_path: Path, result: AnalysisResult) -> None:
    silent = copy.deepcopy(result)
    silent.path, silent.activations = Path("/nowhere/<b>&.wav"), None
    browser.get(write_page(silent, tmp_path / "silent.html").as_uri())
    assert find(browser, "#note").text.startswith(
        "There is no audio at /nowhere/<b>&.wav: this page has neither"
    )
    assert not find(browser, "#play").is_enabled()
    assert browser.execute_script("return lanes.map((lane) => lane.title)") == [
        "Time, bars",
        "Sections",
        "Beats",
    ]
    find(browser, "body").send_keys(" ", "]")
    assert browser.execute_script("return [player.playing, position()]") == [False, 6.0]
    assert browser.get_log("browser") == []
