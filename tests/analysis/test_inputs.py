"""What is analysed besides paths: samples, stems and file objects; and what is refused with which words."""

from __future__ import annotations

import hashlib
import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core import AnalysisResult, Analyzer, Audio, Stems, analyze, load_result, sonify, visualize
from allin1_core.audio.reading import read_audio
from allin1_core.errors import AudioError, BatchError, OutputError, ResultError, StemsError
from allin1_core.results.page import page
from allin1_core.separation.mix import read_mix
from allin1_core.structure import Segment
from allin1_core.timings.schema import read_timings


@pytest.fixture
def separating(options: dict[str, Any], separation_repository: Path) -> dict[str, Any]:
    return {**options, "demix_model": "small", "demix_repository": separation_repository}


def test_stems_as_an_array_give_what_their_folder_gives(
    write_stems: Callable[..., Path], stems: np.ndarray, options: dict[str, Any]
) -> None:
    analyzer = Analyzer(**options)
    from_folder, from_array = analyzer(write_stems("song")), analyzer(Stems(stems))
    assert from_array.beats == from_folder.beats
    assert len(from_array.beats) > 2
    assert from_array.segments == from_folder.segments
    digest = hashlib.sha256(b"int16 (4, 220500) 44100" + stems.tobytes()).hexdigest()
    assert from_array.provenance["audio_sha256"] == {"samples": digest}
    assert from_array.provenance["stages"]["demix"]["backend"] == "stems"
    # No file is called so: the path is relative.
    assert from_array.path == Path(f"track-{digest[:8]}")
    assert analyze(Stems(stems), **options).to_json() == from_array.to_json()


@pytest.mark.parametrize("function", [sonify, visualize, page])
@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros((4, 0), np.float32), r"samples: shape .*; expected at least one sample"),
        (np.full((4, 100), np.nan, np.float32), r"samples: 400 samples are NaN or infinite"),
    ],
)
def test_nothing_is_drawn_or_heard_of_samples_that_cannot_be_analysed(
    function: Callable[..., Any], samples: np.ndarray, message: str
) -> None:
    result = AnalysisResult(Path("song"), None, [], [], [], [Segment(0.0, 1.0, "verse")])
    for audio in (Stems(samples), Audio(samples.T, 44100)):
        with pytest.raises(AudioError, match=message):
            function(result, audio=audio)
    with pytest.raises(AudioError, match=message):
        page(result, audio=Stems(samples), stems=True)
    if function is not page:
        for given in ({"name": "a"}, {"audio": Stems(samples)}):
            with pytest.raises(ResultError, match=f"{next(iter(given))}: given with several results"):
                function([result], **given)


def test_stems_at_another_rate_are_resampled_as_those_of_files_are(
    write_stems: Callable[..., Path], stems: np.ndarray, options: dict[str, Any]
) -> None:
    analyzer = Analyzer(**options)
    expected = analyzer(
        write_stems("song", samples=stems[:, :100000], sample_rate=32000), include_activations=True
    )
    found = analyzer(Stems(stems[:, :100000], 32000), include_activations=True)
    assert expected.activations is not None
    assert found.activations is not None
    np.testing.assert_array_equal(found.activations["beat"], expected.activations["beat"])


def test_a_mix_as_samples_or_file_object_gives_what_its_file_gives(
    write_mix: Callable[..., Path], separating: dict[str, Any], tmp_path: Path
) -> None:
    path = write_mix("song.wav", 0.5)
    samples, sample_rate = soundfile.read(path, dtype="int16")
    analyzer = Analyzer(**separating)
    expected = analyzer(path)
    with path.open("rb") as file:
        inputs = [Audio(samples, sample_rate), file, io.BytesIO(path.read_bytes())]
        results = [analyzer(one) for one in inputs]
        assert not file.closed
    for result in results:
        assert (result.beats, result.segments) == (expected.beats, expected.segments)
        assert result.provenance["stages"] == expected.provenance["stages"]
    content = hashlib.sha256(path.read_bytes()).hexdigest()
    assert results[1].provenance["audio_sha256"] == results[2].provenance["audio_sha256"] == {"file": content}
    assert results[1].path == results[2].path == Path(f"track-{content[:8]}")


def test_file_objects_are_read_from_where_they_stand(write_mix: Callable[..., Path], tmp_path: Path) -> None:
    content = write_mix("song.flac").read_bytes()
    file = io.BytesIO(b"a header of one's own" + content)
    file.seek(21)
    expected = read_mix(tmp_path / "song.flac").samples
    np.testing.assert_array_equal(read_mix(Path("nothing"), audio=file).samples, expected)
    assert file.tell() == 21 + len(content)

    class Pipe(io.RawIOBase):
        """Neither seekable nor generous."""

        def __init__(self) -> None:
            self.left = content

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            given = self.left[: min(1000, len(buffer))]
            self.left = self.left[len(given) :]
            buffer[: len(given)] = given
            return len(given)

    np.testing.assert_array_equal(
        read_mix(Path("nothing"), audio=io.BufferedReader(Pipe())).samples, expected
    )


def test_everything_that_is_written_for_samples(
    stems: np.ndarray, separating: dict[str, Any], tmp_path: Path
) -> None:
    audio = Audio(stems[:2, :22050].T.copy(), 44100)
    name = f"track-{hashlib.sha256(b'int16 (22050, 2) 44100' + audio.samples.tobytes()).hexdigest()[:8]}"
    folders = {
        folder: tmp_path / folder for folder in ("out_dir", "visualize", "sonify", "demix_dir", "spec_dir")
    }
    arguments: dict[str, Any] = {**separating, **folders, "keep_byproducts": True}
    arguments |= {"exports": ["beats", "audacity"], "timings_path": tmp_path / "t.jsonl"}
    result = analyze(audio, **arguments)
    written = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert written >= {
        f"out_dir/{name}.json",
        f"out_dir/{name}.beats",
        f"out_dir/{name}.labels.txt",
        f"visualize/{name}.pdf",
        f"sonify/{name}.sonif.wav",
        f"demix_dir/small/{name}/bass.wav",
        f"spec_dir/{name}.npy",
        "t.jsonl",
    }
    assert {line.track for line in read_timings(tmp_path / "t.jsonl")} == {None, name}
    sound, _ = soundfile.read(tmp_path / "sonify" / f"{name}.sonif.wav", dtype="float32")
    mixed, _ = sonify(result, audio=audio)
    np.testing.assert_allclose(sound, mixed, atol=2**-15)
    loaded = load_result(tmp_path / "out_dir" / f"{name}.json")
    assert loaded.to_json() == result.to_json()
    visualize(loaded, audio=audio)
    with pytest.raises(AudioError, match=f"{name}: cannot be opened"):
        visualize(loaded)
    # The same samples: what is there is read. Others have another name. Made with other settings it is an error.
    before = (tmp_path / "out_dir" / f"{name}.json").stat().st_mtime_ns
    assert analyze(audio, **arguments).to_json() == result.to_json()
    assert (tmp_path / "out_dir" / f"{name}.json").stat().st_mtime_ns == before
    analyze(Audio(audio.samples[::-1], 44100), **arguments)
    assert len(list((tmp_path / "out_dir").glob("*.json"))) == 2
    with pytest.raises(OutputError, match="was made with demix_seed 0, not 1"):
        analyze(audio, **arguments, demix_seed=1)


def test_kept_byproducts_of_samples_are_used_again(
    stems: np.ndarray, separating: dict[str, Any], tmp_path: Path
) -> None:
    audio = Audio(stems[:1, :22050].T, 44100)
    kept: dict[str, Any] = {**separating, "keep_byproducts": True, "timings_path": tmp_path / "t.jsonl"}
    kept |= {"demix_dir": tmp_path / "demix", "spec_dir": tmp_path / "spec"}
    first, second = analyze(audio, **kept), analyze(audio, **kept)
    assert first.to_json() == second.to_json()
    cached = [
        line.cached for line in read_timings(tmp_path / "t.jsonl") if line.stage in ("demix", "spec_load")
    ]
    assert cached == [False, True, True]


def test_inputs_of_all_kinds_in_one_list_keep_their_order(
    write_stems: Callable[..., Path], stems: np.ndarray, options: dict[str, Any]
) -> None:
    first, second = write_stems("in/b"), write_stems("in/a", samples=stems[:, ::-1])
    arrays = Stems(stems[:, :100000])
    results = analyze([first, arrays, f"{first.parent}/*", Stems(stems[:, :100000].copy())], **options)
    assert [result.path for result in results] == [first, results[1].path, second]
    assert results[1].path.name.startswith("track-")
    assert results[1].segments[-1].end == 2.27
    [of_list] = analyze([arrays], **options)
    assert of_list.to_json() == results[1].to_json()


def test_arrays_of_a_result_made_from_samples_are_read_again(
    stems: np.ndarray, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a folder is called as the track is."""
    monkeypatch.chdir(tmp_path)
    arguments: dict[str, Any] = {**options, "out_dir": "out", "include_activations": True}
    first = analyze(Stems(stems), **arguments)
    first.path.mkdir()
    stamp = (tmp_path / "out" / f"{first.path}.json").stat().st_mtime_ns
    again = analyze(Stems(stems), stems_dir=tmp_path, **arguments)
    assert (tmp_path / "out" / f"{first.path}.json").stat().st_mtime_ns == stamp
    assert first.activations is not None
    assert again.activations is not None
    np.testing.assert_array_equal(again.activations["label"], first.activations["label"])
    # Of a list they are in their files alone.
    assert [result.activations for result in analyze([Stems(stems)], **arguments)] == [None]


def test_an_analyzer_and_its_inputs_can_be_pickled(stems: np.ndarray, options: dict[str, Any]) -> None:
    """As workers get them that are not forked."""
    analyzer, given = Analyzer(**options), Stems(stems)
    copied = pickle.loads(pickle.dumps((analyzer, given)))
    assert copied[0](copied[1]).to_json() == analyzer(given).to_json()


def test_a_file_object_that_is_no_audio_does_not_stop_the_others(
    stems: np.ndarray, options: dict[str, Any]
) -> None:
    noise = io.BytesIO(b"no audio " * 100)
    noise.name = "upload.wav"
    with pytest.raises(BatchError, match=r"1 of 2 tracks failed.*\n.*upload\.wav: ") as caught:
        analyze([noise, Stems(stems)], **options)
    [failure] = caught.value.failures
    assert failure[0] == Path(f"track-{hashlib.sha256(b'no audio ' * 100).hexdigest()[:8]}")
    assert isinstance(failure[1], AudioError)


_ACCEPTED = "expected a path, a binary file object, or Audio or Stems of allin1_core"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, f"input: found NoneType; {_ACCEPTED}"),
        (3, f"input: found int; {_ACCEPTED}"),
        ([None], f"input: found NoneType; {_ACCEPTED}"),
        (
            np.zeros((100, 2), np.float32),
            f"input: found numpy.ndarray of shape (100, 2); {_ACCEPTED}. Give samples with their rate: "
            "Audio(samples, sample_rate)",
        ),
        ((np.zeros(100), 44100), f"input: found numpy.ndarray of shape (100,); {_ACCEPTED}. Give samples"),
        (b"RIFF", f"input: found bytes; {_ACCEPTED}. Give the bytes of a file as io.BytesIO(content)"),
        (io.StringIO("text"), "file object: read() gave str, not bytes; expected a binary file object"),
        (
            io.BytesIO(),
            "file object: holds no bytes from where it stands; expected audio. If it was just written",
        ),
    ],
)
def test_what_is_no_input_is_refused(options: dict[str, Any], given: Any, message: str) -> None:
    with pytest.raises(AudioError, match=re.escape(message)):
        analyze(given, **options)
    if not isinstance(given, list | tuple):
        with pytest.raises(AudioError, match=re.escape(message)):
            Analyzer(**options)(given)


def test_a_file_object_without_end_is_refused(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("allin1_core.separation.inputs._MOST_CONTENT", 3)
    with pytest.raises(AudioError, match="file object: more than 3 bytes; expected at most that"):
        analyze(io.BytesIO(b"RIFF"), **options)


def test_a_closed_file_object(tmp_path: Path, options: dict[str, Any]) -> None:
    (tmp_path / "a.wav").touch()
    with (tmp_path / "a.wav").open("rb") as file:
        pass
    with pytest.raises(AudioError, match=r"a\.wav: cannot be read \(read of closed file\)"):
        analyze(file, **options)


def _float(place: tuple[int, int], value: float) -> np.ndarray:
    samples = np.zeros((4, 100), np.float32)
    samples[place] = value
    return samples


@pytest.mark.parametrize(
    ("audio", "message"),
    [
        (
            Audio(_float((2, 1), np.nan), 44100),
            "Audio.samples: 1 samples are NaN or infinite, the first at sample 2",
        ),
        (
            Stems(_float((3, 7), -np.inf)),
            "Stems.samples: 1 samples are NaN or infinite, the first at sample 7",
        ),
        (
            Audio(_float((0, 0), -32768), 44100),
            "Audio.samples: float32 with a peak of 32768; expected full scale at 1",
        ),
        (
            Stems(_float((0, 0), 1e9)),
            "Stems.samples: float32 with a peak of 1e+09; expected full scale at 1",
        ),
        (
            Audio(np.zeros((0, 2), np.int16), 44100),
            "Audio.samples: shape (0, 2); expected at least one sample",
        ),
        (Stems(np.zeros((4, 0), np.int16)), "Stems.samples: shape (4, 0); expected at least one sample"),
    ],
)
def test_samples_that_cannot_be_audio_are_refused(
    audio: Audio | Stems, message: str, options: dict[str, Any]
) -> None:
    with pytest.raises(AudioError, match=re.escape(message)):
        Analyzer(**options)(audio)


def test_tracks_without_a_name_have_no_stems_in_a_folder_of_many(
    write_mix: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    """Nor is one that is called as the track is."""
    content = write_mix("song.wav").read_bytes()
    (tmp_path / f"track-{hashlib.sha256(content).hexdigest()[:8]}").mkdir()
    for given in (read_audio(tmp_path / "song.wav"), io.BytesIO(content)):
        with pytest.raises(
            StemsError, match=r"stems_dir: .*; expected none, because the track came without the name"
        ):
            Analyzer(**options)(given, stems_dir=tmp_path)
