"""The page of a result, made: what it holds is what the result and its audio hold, and what does not fit is refused."""

from __future__ import annotations

import base64
import copy
import html
import io
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core.audio.types import Audio, Stems
from allin1_core.errors import AudioError, ResultError, StemsError
from allin1_core.results import page as pages
from allin1_core.results.differences import differences
from allin1_core.results.page import page, peaks
from allin1_core.results.result import AnalysisResult, load_result
from allin1_core.results.summary import COLOURS, summary_html
from allin1_core.structure import LABELS, Segment


def made(path: Path, seconds: float = 4.0, interval: float = 0.5) -> AnalysisResult:
    """A result with beats from 0.25 s on, the second one a downbeat, two sections and activations."""
    beats = np.arange(0.25, seconds, interval).round(2).tolist()
    positions = [(index + 3) % 4 + 1 for index in range(len(beats))]
    random, frames = np.random.default_rng(0), round(100 * seconds)
    return AnalysisResult(
        path=path,
        bpm=120,
        beats=beats,
        downbeats=[time for time, position in zip(beats, positions, strict=True) if position == 1],
        beat_positions=positions,
        segments=[Segment(0.0, seconds / 4, "intro"), Segment(seconds / 4, seconds, "verse")],
        activations={
            **{name: random.random(frames, np.float32) for name in ("beat", "downbeat", "segment")},
            "label": random.dirichlet(np.ones(10), frames).T.astype(np.float32),
        },
    )


def noise(seconds: float, channels: int = 2, rate: int = 44100) -> Audio:
    """Pink enough for a codec: a random walk that returns, float32, below full scale."""
    random = np.random.default_rng(1).normal(size=(round(seconds * rate), channels))
    smooth = np.cumsum(random, axis=0)
    smooth -= np.repeat(smooth[::100], 100, axis=0)[: len(smooth)]
    return Audio((smooth / (2 * np.abs(smooth).max())).astype(np.float32), rate)


class Scripts(HTMLParser):
    """The text of the script elements of a page by id, as a browser tells them apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts: dict[str | None, str] = {}
        self._id: str | None = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self._id = dict(attributes).get("id") if tag == "script" else ""

    def handle_data(self, text: str) -> None:
        if self._id != "":
            self.texts[self._id] = self.texts.get(self._id, "") + text

    def handle_endtag(self, tag: str) -> None:
        self._id = ""


def content(text: str) -> tuple[dict[str, Any], list[bytes]]:
    """The data and the pieces of sound in a page."""
    scripts = Scripts(text).texts
    return json.loads(scripts["data"]), [
        base64.b64decode(piece) for piece in scripts.get("audio", "").split()
    ]


def array(text: str, dtype: str) -> np.ndarray:
    return np.frombuffer(base64.b64decode(text), dtype)


def test_the_page_holds_what_the_result_holds(tmp_path: Path) -> None:
    result = made(tmp_path / "song")
    data, _ = content(page(result, audio=noise(4.0)))
    fields = json.loads(result.to_json())
    [shown] = data["results"]
    assert (shown["beats"], shown["positions"]) == (fields["beats"], fields["beat_positions"])
    assert [dict(zip(("start", "end", "label"), row, strict=True)) for row in shown["segments"]] == fields[
        "segments"
    ]
    assert (data["duration"], data["name"], data["note"]) == (4.0, "song", None)
    assert data["about"] == "120 BPM, 8 beats, 2 downbeats, 2 sections, 0:04"
    assert result.activations is not None
    for name in ("beat", "downbeat", "segment"):
        values = array(data["activations"][name], "<u2") / 65535
        np.testing.assert_allclose(values, result.activations[name], rtol=0, atol=0.5 / 65535 + 1e-7)
    functions = array(data["functions"], "u1").reshape(10, 40) / 255
    means = result.activations["label"].reshape(10, 40, 10).mean(axis=2)
    np.testing.assert_allclose(functions, means, rtol=0, atol=0.5 / 255 + 1e-6)
    assert data["labels"] == list(LABELS)
    assert data["colours"].keys() == set(LABELS)


def test_peaks_are_the_extremes_of_each_two_hundredth_of_a_second() -> None:
    audio = noise(1.003)
    found = peaks(audio)
    assert (found.dtype, found.shape) == (np.int8, (201, 2))
    for index in (0, 1, 77, 200):
        span = audio.samples[index * 44100 // 200 : (index + 1) * 44100 // 200]
        assert found[index].tolist() == [round(127 * float(span.min())), round(127 * float(span.max()))]


@pytest.mark.parametrize(("rate", "channels"), [(48000, 1), (44100, 2), (32000, 3)])
def test_the_pieces_of_sound_follow_each_other_to_the_sample(
    tmp_path: Path, rate: int, channels: int
) -> None:
    audio, result = noise(21.5, channels, rate), made(tmp_path / "song", 21.5)
    data, pieces = content(page(result, audio=audio))
    assert data["audio"] == {"streams": ["mix"], "rate": 48000, "gain": 1.0, "seconds": 10, "lead": 0.08}
    samples = []
    for index, piece in enumerate(pieces):
        decoded, decoded_rate = soundfile.read(io.BytesIO(piece), always_2d=True)
        assert decoded_rate == 48000
        samples.append(decoded[3840 if index else 0 :])
    joined = np.concatenate(samples)
    assert joined.shape == (round(21.5 * 48000), min(channels, 2) if channels < 3 else 1)
    expected = audio.samples if channels < 3 else audio.samples.mean(axis=1, keepdims=True)
    expected = pages.resample(expected, rate, 48000)
    # At the seams as elsewhere: no shift fits better than none.
    for start in (2400, 480_000 - 2400, 960_000 - 2400, 1_000_000):
        one = joined[start : start + 4800, 0]
        fit = [np.corrcoef(one, expected[start + lag : start + lag + 4800, 0])[0, 1] for lag in range(-3, 4)]
        assert np.argmax(fit) == 3
        assert fit[3] > 0.97
    assert page(result, audio=audio) == page(result, audio=audio)


def test_stems_are_drawn_and_encoded_one_by_one(tmp_path: Path) -> None:
    samples = (20_000 * noise(4.0, 4).samples.T).astype(np.int16) * 2
    data, pieces = content(page(made(tmp_path / "song"), audio=Stems(samples), stems=True))
    assert data["audio"]["streams"] == ["bass", "drums", "other", "vocals"]
    assert [wave["name"] for wave in data["waves"]] == ["mix", "bass", "drums", "other", "vocals"]
    total = samples.astype(np.float64).sum(axis=0) / 32768
    assert data["audio"]["gain"] == pytest.approx(1 / max(1, np.abs(total).max()))
    mix = array(data["waves"][0]["peaks"], "i1")
    assert np.abs(mix).max() == 127
    vocals = array(data["waves"][4]["peaks"], "i1").reshape(-1, 2)
    assert vocals[3].tolist() == [
        round(127 * float(extreme) / 32768)
        for extreme in (samples[3, 661:882].min(), samples[3, 661:882].max())
    ]
    assert [soundfile.read(io.BytesIO(piece))[0].shape for piece in pieces] == [(192_000,)] * 4


def test_ten_minutes_take_less_than_5_mb_beside_the_sound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_encoded", lambda sound: [])
    samples = np.random.default_rng(0).integers(-8000, 8000, (4, 600 * 2000), dtype=np.int16)
    text = page(made(tmp_path / "song", 600.0), audio=Stems(samples, 2000), stems=True)
    assert 2_000_000 < len(text.encode()) < 5_000_000
    assert len(page(made(tmp_path / "song", 600.0)).encode()) < 1_000_000


@pytest.mark.parametrize(
    "name", ["</script><b>&.wav", '"><img src=x>.wav', "@DATA@@AUDIO@.wav", "a\udcff\n\x00.wav"]
)
def test_hostile_names_stay_text(name: str) -> None:
    result = made(Path("/nowhere") / name)
    shown = re.sub(r"[\udcff\n\x00]", lambda found: ascii(found[0])[1:-1], result.path.name)
    text = page(result)
    data = content(text)[0]
    assert (data["name"], f"/{shown}: this page has neither" in data["note"]) == (shown, True)
    assert f"<title>{html.escape(shown)}</title>" in text
    assert (text.count("<script"), text.count("<img"), text.count("<b>")) == (3, 0, 0)
    small = summary_html(result)
    assert f"<b>{html.escape(shown)}</b>" in small
    assert small.count("<b>") == 1


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path) -> None:
    text = page(made(tmp_path / "song"), audio=noise(4.0), against=made(tmp_path / "song"))
    assert not re.search(r"https?:|[\"'(=]//|\bsrc=|@import|url\(", text)


def test_without_audio_or_arrays_nothing_is_made_up(tmp_path: Path) -> None:
    result = made(tmp_path / "song.wav")
    result.activations = None
    data, pieces = content(page(result))
    assert (data["waves"], data["audio"], data["activations"], data["functions"], pieces) == (
        [],
        None,
        None,
        None,
        [],
    )
    assert data["note"].startswith(
        f"There is no audio at {result.path}: this page has neither sound nor waveform."
    )
    empty = AnalysisResult(Path("a"), None, [], [], [], [Segment(0.0, 0.01, "start")])
    assert content(page(empty))[0]["about"] == "no tempo, 0 beats, 0 downbeats, 1 section, 0:00"


def test_what_does_not_fit_is_refused(tmp_path: Path, write_mix: Callable[..., Path]) -> None:
    path = write_mix("song.wav", 4.0)
    result = made(path)
    page(result)
    result.provenance = {"audio_sha256": {"song.wav": "0" * 64}}
    with pytest.raises(
        ResultError, match=r"song\.wav: found SHA-256 \w{12}\.\.\.; expected 000000000000\.\.\., of the audio"
    ):
        page(result)
    page(result, audio=path)  # asked for by name
    with pytest.raises(AudioError, match=r"found|2\.00 s long; expected the 4\.00 s of the result"):
        page(result, audio=write_mix("short.wav", 2.0))
    with pytest.raises(AudioError, match=r"absent\.wav: cannot be opened"):
        page(result, audio=tmp_path / "absent.wav")
    with pytest.raises(
        StemsError, match=r"song\.wav: found a mix; expected a folder of stems or a stem file"
    ):
        page(result, audio=path, stems=True)
    with pytest.raises(StemsError, match="audio: found Audio; expected Stems"):
        page(result, audio=noise(4.0), stems=True)
    with pytest.raises(
        ResultError, match=r"song\.wav: 6\.00 s long, .*song\.wav: 4\.00 s; expected two results of one"
    ):
        page(result, audio=path, against=made(path, 6.0))
    result = made(path)
    result.beats[2] = float("nan")
    with pytest.raises(ResultError, match=r"beats\[2\]: found nan"):
        page(result)
    result = made(path)
    assert result.activations is not None
    result.activations["segment"][7] = np.nan
    with pytest.raises(ResultError, match=r"activations\['segment'\]: found values from nan"):
        page(result)


def with_beats(result: AnalysisResult, beats: list[float], positions: list[int]) -> AnalysisResult:
    changed = copy.deepcopy(result)
    changed.beats, changed.beat_positions = beats, positions
    changed.downbeats = [time for time, position in zip(beats, positions, strict=True) if position == 1]
    return changed


def test_differences_between_two_results(tmp_path: Path) -> None:
    result = made(tmp_path / "song")
    one = with_beats(result, [0.5, 1.0, 1.5, 2.0, 2.5, 3.0], [1, 2, 3, 4, 1, 2])
    other = with_beats(result, [0.501, 1.002, 1.57, 2.071, 2.5, 3.0, 3.5], [1, 2, 3, 4, 1, 3, 4])
    other.segments = [
        *(Segment(0.0, 1.25, "intro"), Segment(1.25, 2.0, "verse")),
        *(Segment(2.0, 3.0, "chorus"), Segment(3.0, 4.0, "verse")),
    ]
    found = differences(one, other)
    assert found["beats"] == [
        *((0, 0, "same"), (1, 1, "moved"), (2, 2, "moved"), (3, None, "only here"), (None, 3, "only there")),
        *((4, 4, "same"), (5, 5, "position"), (None, 6, "only there")),
    ]
    assert found["counts"] == {"same": 2, "moved": 2, "position": 1, "only here": 1, "only there": 2}
    assert found["sections"] == [(1.0, 1.25, "verse", "intro"), (2.0, 3.0, "verse", "chorus")]
    assert found["times"] == [1.0, 1.5, 2.0, 2.071, 3.0, 3.5]
    assert differences(one, one) == {
        "beats": [(index, index, "same") for index in range(6)],
        "counts": {"same": 6, "moved": 0, "position": 0, "only here": 0, "only there": 0},
        "sections": [],
        "times": [],
    }
    other.segments, other.activations = [Segment(0.0, 3.5, "verse")], None
    assert differences(one, other)["sections"] == [(0.0, 1.0, "intro", "verse"), (3.5, 4.0, "verse", None)]


def test_the_small_form_in_a_notebook(tmp_path: Path) -> None:
    text = made(tmp_path / "song.wav")._repr_html_()
    spans = re.findall(
        r'<span title="([^"]*)" style="[^"]*flex:([\d.]+) 1 0;background:(#\w+)">(\w+)</span>', text
    )
    assert spans == [
        ("intro, 0.00 to 1.00 s", "1.00", COLOURS["intro"], "intro"),
        ("verse, 1.00 to 4.00 s", "3.00", COLOURS["verse"], "verse"),
    ]
    assert "120 BPM, 8 beats, 2 downbeats, 2 sections, 0:04" in text
    assert len(text) < 2000
    assert "<script" not in text


def test_the_command(tmp_path: Path, song: Path, command: Callable[..., tuple[int, str, str]]) -> None:
    path = made(song, 5.0).save(tmp_path / "out" / "song.json", array_dir=tmp_path / "arrays")

    def view(*arguments: object) -> tuple[dict[str, Any], str]:
        """The data in the page that the command names, and what it says behind the size."""
        status, said, error = command("view", *arguments)
        written, size, note = re.fullmatch(r"(.*): ([\d.]+) MB(.*)\n", said).groups()  # type: ignore[union-attr]
        assert (status, error, size) == (0, "", f"{Path(written).stat().st_size / 1e6:.1f}")
        return {"file": written, **content(Path(written).read_text())[0]}, note

    # Of the result, embeddings are not read; of the other, no arrays are.
    (path.parent / "song.embed.npy").write_bytes(b"damaged")
    data, note = view(path)
    assert (data["file"], data["audio"]["streams"], note) == (str(path.with_suffix(".html")), ["mix"], "")
    assert data["activations"] is None
    out = tmp_path / "new" / "a.html"
    (path.parent / "song.activ.npz").write_bytes(b"damaged")
    data, _ = view(path, "--stems", "--array-dir", tmp_path / "arrays", "--against", path, "-o", out)
    assert (data["file"], data["audio"]["streams"]) == (str(out), ["bass", "drums", "other", "vocals"])
    assert data["activations"].keys() == {"beat", "downbeat", "segment"}
    assert data["differences"]["counts"]["same"] == 10
    result = load_result(path, array_dir=tmp_path / "arrays")
    result.path = tmp_path / "gone.wav"
    silent = result.save(tmp_path / "silent.json")
    data, note = view(silent)
    assert (data["audio"], note) == (None, f"; no sound: nothing at {tmp_path}/gone.wav")
    assert view(silent, "--audio", song)[0]["audio"]["streams"] == ["mix"]
    for arguments in (["view", silent, "--audio", tmp_path / "absent"], ["view", tmp_path / "absent"]):
        status, _, error = command(*arguments)
        assert (status, "absent: cannot be opened" in error) == (1, True)
