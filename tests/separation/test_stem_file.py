"""Files that hold a track's stems as audio streams, and files that only look so."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from allin1_core import Analyzer, analyze
from allin1_core.audio.reading import read_audio
from allin1_core.audio.types import STEM_NAMES
from allin1_core.cli import main
from allin1_core.errors import OutputError, StemsError
from allin1_core.network import weights
from allin1_core.separation import find_stems, read_stems
from allin1_core.separation.mix import read_mix
from allin1_core.separation.protocol import fold_into_four
from allin1_core.separation.stem_file import find_stem_streams

# In the order that Native Instruments' own files have.
NATIVE = ("Drums", "Bass", "Synths", "Vox")


def write_streams(
    path: Path, streams: np.ndarray, titles: Sequence[str] = (), *, tag: str = "title", codec: str = "alac"
) -> Path:
    """Write int16 (num_streams, num_samples) as mono audio streams with those titles, losslessly."""
    with av.open(str(path), "w") as container:
        opened = [container.add_stream(codec, rate=44100, layout="mono") for _ in streams]
        for stream, title in zip(opened, titles, strict=False):
            stream.metadata[tag] = title
        for stream in opened:
            stream.format = {"alac": "s16p", "flac": "s16"}[codec]
        for stream, samples in zip(opened, streams, strict=True):
            frame = av.AudioFrame.from_ndarray(samples[np.newaxis], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 44100, 0, Fraction(1, 44100)
            resampler = av.AudioResampler(
                format=stream.codec_context.format.name, frame_size=stream.codec_context.frame_size
            )
            for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
                container.mux(stream.encode(piece))
    return path


def add_atom(path: Path, content: bytes) -> Path:
    """Put the atom ``stem`` at the end of ``moov/udta``, which FFmpeg writes at the end of the file."""
    written, atom = bytearray(path.read_bytes()), struct.pack(">I4s", 8 + len(content), b"stem") + content
    for parent in (b"moov", b"udta"):
        place = written.rindex(parent) - 4
        [size] = struct.unpack_from(">I", written, place)
        assert place + size == len(written), "the atom's parents are not the last"
        struct.pack_into(">I", written, place, size + len(atom))
    path.write_bytes(written + atom)
    return path


def manifest(names: Sequence[str]) -> bytes:
    stems = [{"name": name, "color": "#009E73"} for name in names]
    return json.dumps({"mastering_dsp": {}, "version": 1, "stems": stems}).encode()


@pytest.fixture
def streams(stems: np.ndarray) -> np.ndarray:
    """Two seconds of a mix, drums, bass, other and vocals, int16 (5, 88200)."""
    bass, drums, other, vocals = short = stems[:, :88200]
    mix = (short.astype(np.int32).sum(axis=0) // 4).astype(np.int16)
    return np.stack([mix, drums, bass, other, vocals])


def in_order(streams: np.ndarray) -> np.ndarray:
    """The stems among `streams`, in the order of `STEM_NAMES`."""
    _, drums, bass, other, vocals = streams
    return np.stack([bass, drums, other, vocals])


def read(path: Path) -> np.ndarray:
    files = find_stems(path)
    assert files is not None
    return read_stems(files, str(path)).samples


def test_stems_of_a_native_instruments_file(tmp_path: Path, streams: np.ndarray) -> None:
    path = add_atom(write_streams(tmp_path / "song.stem.mp4", streams), manifest(NATIVE))
    assert find_stem_streams(path) == {"drums": 1, "bass": 2, "other": 3, "vocals": 4}
    np.testing.assert_array_equal(read(path), in_order(streams))
    # What its mix is for: to be heard.
    np.testing.assert_array_equal(read_audio(path).samples[:, 0], streams[0])
    np.testing.assert_array_equal(read_mix(path).samples[:, 0] * 32768, streams[0])


def test_names_decide_not_the_order(tmp_path: Path, streams: np.ndarray) -> None:
    order = [0, 4, 3, 1, 2]
    path = add_atom(
        write_streams(tmp_path / "a.mp4", streams[order]), manifest(["vocals", "Melody", "DRUMS", "Bass 2"])
    )
    np.testing.assert_array_equal(read(path), in_order(streams))


def test_the_content_decides_not_the_name(tmp_path: Path, streams: np.ndarray) -> None:
    path = add_atom(write_streams(tmp_path / "a.mp4", streams), manifest(NATIVE)).rename(
        tmp_path / "song.mp3"
    )
    np.testing.assert_array_equal(read(path), in_order(streams))
    mix = write_streams(tmp_path / "song.stem.mp4", streams[:1])
    assert find_stems(mix) is None
    np.testing.assert_array_equal(read_audio(mix).samples[:, 0], streams[0])


@pytest.mark.parametrize(
    ("name", "codec", "tag"),
    [("a.mp4", "alac", "title"), ("a.mp4", "alac", "handler_name"), ("a.mka", "flac", "title")],
)
@pytest.mark.parametrize("first", [0, 1], ids=["with a mix", "without a mix"])
def test_streams_named_by_their_titles(
    tmp_path: Path, streams: np.ndarray, name: str, codec: str, tag: str, first: int
) -> None:
    titles = ["mix", "drums", "bass", "other", "vocals"][first:]
    path = write_streams(tmp_path / name, streams[first:], titles, tag=tag, codec=codec)
    np.testing.assert_array_equal(read(path), in_order(streams))
    mix = read_mix(path).samples[:, 0]
    total = streams[1:].sum(axis=0, dtype=np.float32) / 32768
    expected = total / max(1, np.abs(total).max()) if first else streams[0] / np.float32(32768)
    np.testing.assert_allclose(mix, expected, rtol=0, atol=1e-6)


def test_guitar_and_piano_are_added_to_other(tmp_path: Path, streams: np.ndarray) -> None:
    six = np.concatenate([streams, streams[[1, 4]] // 4])
    titles = ["", "drums", "bass", "other", "vocals", "guitar", "piano"]
    expected = in_order(streams).astype(int)
    expected[2] += six[5].astype(int) + six[6]
    path = write_streams(tmp_path / "a.mp4", six, titles)
    np.testing.assert_array_equal(read(path), np.clip(expected, -32768, 32767))


@pytest.mark.parametrize(
    "names",
    [
        ("Drums", "Bass", "Lead", "Vox"),
        (
            "Drums",
            "Bass",
            "Synths",
            "Other",
        ),  # what Native Instruments' creator calls them if nobody says otherwise
        ("Drums", "Percussion", "Bass", "Vocals"),
        ("Drums", "Bass", "Melody & Vocals", "Other"),
        ("Stem 1", "Stem 2", "Stem 3", "Stem 4"),
    ],
)
def test_names_that_do_not_tell_the_stems_are_refused(
    tmp_path: Path, streams: np.ndarray, names: tuple[str, ...]
) -> None:
    path = add_atom(write_streams(tmp_path / "a.stem.mp4", streams), manifest(names))
    found = ", ".join(map(repr, names))
    with pytest.raises(StemsError) as caught:
        find_stems(path)
    assert str(caught.value).startswith(
        f"{path}: the stems in this file are called {found}; expected one each that is called "
        "bass, drums, other, vocals. Rename them"
    )


@pytest.mark.parametrize(
    "titles",
    [
        ["mix", "drums", "bass", "guitar", "vocals"],
        ["mix", "drums", "bass", "other", "effects"],
        ["drums", "bass", "other", "vocals", "drums 2"],
    ],
)
def test_titles_that_tell_some_stems_are_refused(
    tmp_path: Path, streams: np.ndarray, titles: list[str]
) -> None:
    path = write_streams(tmp_path / "a.mp4", streams, titles)
    with pytest.raises(
        StemsError, match=r"a\.mp4: the stems in this file are called .*'drums'.*; expected one"
    ):
        find_stems(path)


def test_an_atom_that_names_other_streams_than_there_are(tmp_path: Path, streams: np.ndarray) -> None:
    path = add_atom(write_streams(tmp_path / "a.mp4", streams[:4]), manifest(NATIVE))
    with pytest.raises(StemsError, match=r"a\.mp4: 4 audio streams, where its stem atom names 4 stems"):
        find_stems(path)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"stems": [{}]}', b'{"stems": [{"name": 3}]}', b"\xff"]
)
def test_an_atom_that_names_nothing(tmp_path: Path, streams: np.ndarray, content: bytes) -> None:
    path = add_atom(write_streams(tmp_path / "a.mp4", streams), content)
    message = rf"a\.mp4: the stem atom \(moov/udta/stem\) holds {len(content)} bytes that name no stems"
    with pytest.raises(StemsError, match=message):
        find_stems(path)


@pytest.mark.parametrize(
    "titles",
    [[], ["English", "Commentary"], ["Music", "Vocals"], ["Mix", "Drums only"], ["SoundHandler"] * 2],
)
def test_of_other_files_with_several_streams_the_first_is_the_mix(
    tmp_path: Path, streams: np.ndarray, titles: list[str]
) -> None:
    path = write_streams(tmp_path / "film.mp4", streams[:2], titles)
    assert find_stems(path) is None
    np.testing.assert_array_equal(read_audio(path).samples[:, 0], streams[0])


def test_atoms_without_an_end(tmp_path: Path, streams: np.ndarray) -> None:
    """Sizes that say nothing true: 0, smaller than their own head, beyond the file, and in 64 bits."""
    whole = write_streams(tmp_path / "a.mp4", streams[:2]).read_bytes()
    moov = whole.rindex(b"moov") - 4
    for size in (0, 1, 7, 8, 0xFFFFFFFF):
        content = bytearray(whole)
        struct.pack_into(">I", content, moov + 8, size)
        (tmp_path / "a.mp4").write_bytes(content)
        assert find_stems(tmp_path / "a.mp4") is None


def test_a_stem_file_is_analysed_as_its_stems_in_a_folder_are(
    tmp_path: Path, streams: np.ndarray, write_stems: Callable[..., Path], small_model: str
) -> None:
    path = add_atom(write_streams(tmp_path / "song.stem.mp4", streams), manifest(NATIVE))
    options: dict[str, Any] = {"model": small_model, "device": "cpu", "spec_backend": "numpy"}
    analyzer = Analyzer(**options)
    from_folder = analyzer(write_stems("song", samples=in_order(streams)))
    result = analyzer(path)
    assert result.beats == from_folder.beats
    assert result.segments == from_folder.segments
    assert list(result.provenance["audio_sha256"]) == ["song.stem.mp4"]
    assert result.provenance["stages"]["demix"] == {
        "backend": "stems",
        "reason": "the file holds its stems",
        "audio_streams": {"drums": 1, "bass": 2, "other": 3, "vocals": 4},
    }
    assert analyzer(io.BytesIO(path.read_bytes())).segments == result.segments
    # A folder that is named goes before what the file holds.
    write_stems("stems/song.stem", samples=in_order(streams)[::-1])
    named = analyzer(path, stems_dir=tmp_path / "stems")
    assert sorted(named.provenance["audio_sha256"]) == [f"{stem}.wav" for stem in STEM_NAMES]
    # A result that is there is that of this file, or an error.
    assert analyze(path, out_dir=tmp_path / "out", **options).beats == result.beats
    stamp = (tmp_path / "out" / "song.stem.json").stat().st_mtime_ns
    analyze(path, out_dir=tmp_path / "out", **options)
    assert (tmp_path / "out" / "song.stem.json").stat().st_mtime_ns == stamp
    add_atom(write_streams(path, streams[::-1]), manifest(NATIVE))
    with pytest.raises(OutputError, match=r"from other audio \(song\.stem\.mp4 by SHA-256\)"):
        analyze(path, out_dir=tmp_path / "out", **options)


@pytest.mark.parametrize("as_object", [False, True])
def test_nothing_is_loaded_for_a_stem_file_whose_names_do_not_tell_its_stems(
    tmp_path: Path, streams: np.ndarray, monkeypatch: pytest.MonkeyPatch, as_object: bool
) -> None:
    path = add_atom(write_streams(tmp_path / "song.stem.mp4", streams), manifest(["a", "b", "c", "d"]))
    loaded: list[object] = []
    monkeypatch.setattr(weights, "load_checkpoints", lambda *arguments, **_: loaded.append(arguments))
    with pytest.raises(StemsError, match="the stems in this file are called 'a', 'b', 'c', 'd'"):
        analyze(io.BytesIO(path.read_bytes()) if as_object else path, device="cpu")
    assert loaded == []


def test_the_spectrogram_command_takes_the_stems(tmp_path: Path, streams: np.ndarray) -> None:
    path = add_atom(write_streams(tmp_path / "song.stem.mp4", streams), manifest(NATIVE))
    assert main(["spectrogram", str(path), "-o", str(tmp_path / "a.npy"), "--quiet"]) == 0
    assert np.load(tmp_path / "a.npy").shape == (4, 200, 81)


def test_the_file_that_the_shared_stems_were_taken_from(shared: Path) -> None:
    """A file of Native Instruments' own writer, as stempeg carries it: its atom before the sound, a cover beside it."""
    stempeg = find_spec("stempeg")  # without ffmpeg's command it cannot be imported
    if stempeg is None or stempeg.origin is None:
        pytest.skip("stempeg is not installed (extra 'bench')")
    [path] = Path(stempeg.origin).parent.glob("data/*Falcon 69.stem.mp4")
    samples = read(path)
    for row, stem in zip(samples, STEM_NAMES, strict=True):
        expected = read_audio(shared / "audio" / "falcon69" / f"{stem}.flac").samples[:, 0]
        # They were rounded to 16 bits.
        np.testing.assert_allclose(row * 32768, expected, rtol=0, atol=0.51)


def test_guitar_and_piano_of_floats_are_added_as_they_are() -> None:
    stems = dict.fromkeys(
        ("bass", "drums", "other", "vocals", "guitar", "piano"), np.full(2, 0.5, np.float32)
    )
    other = fold_into_four(stems, "song")["other"]
    assert (other.dtype, other.tolist()) == (np.float32, [1.5, 1.5])
