"""Kept stems and spectrograms: used only for what they were made from, whoever else writes to their folders."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core import AnalysisResult, analyze, byproducts
from allin1_core.audio.types import STEM_NAMES, Stems
from allin1_core.byproducts import Byproducts
from allin1_core.errors import AudioError, OutputError
from allin1_core.separation import stems_from_separated
from allin1_core.separation.track import Track
from allin1_core.timings.schema import read_timings

TRACK = Track(Path("/music/song.wav"), "song")
KEY_OF_A, KEY_OF_B = {"song": "a"}, {"song": "b"}
FRAMES = 7


def spectrogram(value: float, num_frames: int = FRAMES) -> np.ndarray:
    return np.full((4, num_frames, 81), value, np.float32)


def separated(value: int, num_samples: int = 3000, dtype: type = np.int16) -> dict[str, np.ndarray]:
    return {stem: np.full((num_samples, 2), value + index, dtype) for index, stem in enumerate(STEM_NAMES)}


@pytest.fixture
def kept(tmp_path: Path) -> Byproducts:
    return Byproducts(tmp_path / "demix", tmp_path / "spec")


def save_stems(kept: Byproducts, stems: dict[str, np.ndarray], key: dict[str, Any]) -> Stems:
    as_read = stems_from_separated(stems, 44100)
    kept.save_stems(TRACK, "htdemucs", stems, 44100, as_read, key, {"of": key["song"]})
    return as_read


def write_spectrogram(kept: Byproducts, array: np.ndarray, key: dict[str, Any] = KEY_OF_A) -> Path:
    kept.save_spectrogram(TRACK, array, key)
    return kept.spectrogram_path(TRACK)


def test_what_was_kept_comes_back(kept: Byproducts) -> None:
    assert not kept.has_spectrogram(TRACK, KEY_OF_A)
    assert kept.load_spectrogram(TRACK, KEY_OF_A, FRAMES) is None
    assert kept.load_stems(TRACK, "htdemucs", KEY_OF_A) is None
    write_spectrogram(kept, spectrogram(0.5))
    assert kept.has_spectrogram(TRACK, KEY_OF_A)
    np.testing.assert_array_equal(kept.load_spectrogram(TRACK, KEY_OF_A, FRAMES), spectrogram(0.5))
    assert kept.load_spectrogram(TRACK, KEY_OF_B, FRAMES) is None
    for dtype in (np.int16, np.float32):
        stems = save_stems(kept, separated(3, dtype=dtype), KEY_OF_A)
        assert kept.has_stems(TRACK, "htdemucs", KEY_OF_A)
        assert not kept.has_stems(TRACK, "htdemucs", KEY_OF_B)
        found = kept.load_stems(TRACK, "htdemucs", KEY_OF_A)
        assert found is not None
        np.testing.assert_array_equal(found[0].samples, stems.samples)
        assert found[0].samples.dtype == dtype
        assert found[1] == {"of": "a"}
    given = np.full(found[0].samples.shape, 77, np.float32)
    found = kept.load_stems(TRACK, "htdemucs", KEY_OF_A, lambda *_: given)
    assert found is not None
    assert found[0].samples is given


def interleave(monkeypatch: pytest.MonkeyPatch, save: Callable[[], Any]) -> None:
    """Run `save` between the next array and its record."""
    write_record = byproducts._save_record

    def save_first(*arguments: Any) -> None:
        monkeypatch.setattr(byproducts, "_save_record", write_record)
        save()
        write_record(*arguments)

    monkeypatch.setattr(byproducts, "_save_record", save_first)


@pytest.mark.parametrize("num_samples", [3000, 3001, 200_000])
def test_a_record_never_vouches_for_stems_that_another_process_wrote(
    kept: Byproducts, monkeypatch: pytest.MonkeyPatch, num_samples: int
) -> None:
    interleave(monkeypatch, lambda: save_stems(kept, separated(9, num_samples), KEY_OF_B))
    save_stems(kept, separated(1), KEY_OF_A)
    assert kept.has_stems(TRACK, "htdemucs", KEY_OF_A)
    assert kept.load_stems(TRACK, "htdemucs", KEY_OF_A) is None
    # One stem of another song among three of this one.
    save_stems(kept, separated(1), KEY_OF_A)
    samples = separated(9, num_samples)["drums"]
    soundfile.write(kept.stems_folder(TRACK, "htdemucs") / "drums.wav", samples, 44100)
    assert kept.load_stems(TRACK, "htdemucs", KEY_OF_A) is None


def test_songs_of_one_name_that_replace_each_others_spectrogram_keep_their_own_results(
    write_stems: Callable[..., Path],
    stems: np.ndarray,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second replaces the first one's spectrogram before its record is written."""
    songs = [write_stems("a/song"), write_stems("b/song", samples=np.roll(stems, 1, axis=0))]
    options |= {"include_activations": True}
    kept = {"keep_byproducts": True, "spec_dir": tmp_path / "spec", "demix_dir": tmp_path / "demix"}
    expected = [analyze(song, **options) for song in songs]
    assert expected[0].to_json() != expected[1].to_json()
    found: list[AnalysisResult] = []
    interleave(monkeypatch, lambda: found.append(analyze(songs[1], **kept, **options)))
    found.insert(0, analyze(songs[0], **kept, **options))
    again = analyze(songs[0], **kept, timings_path=tmp_path / "t.jsonl", **options)
    lines = [line for line in read_timings(tmp_path / "t.jsonl") if line.stage.startswith("spec")]
    assert [(line.stage, line.cached) for line in lines] == [("spec_load", False), ("spectrogram", False)]
    for one, other in zip([*found, again], [*expected, expected[0]], strict=True):
        assert one.to_json() == other.to_json()
        np.testing.assert_array_equal(one.activations["beat"], other.activations["beat"])


@pytest.mark.parametrize("last", range(6))
def test_stems_that_were_being_written_when_the_process_was_killed(
    kept: Byproducts, last: int, is_killed: Callable[[Callable[[], object], int], bool]
) -> None:
    """Killed when so many of the five files are in place: whole, or made again; and nothing is left over."""
    save_stems(kept, separated(1), KEY_OF_B)
    assert is_killed(lambda: save_stems(kept, separated(5), KEY_OF_A), last) == (last < 5)
    assert (kept.load_stems(TRACK, "htdemucs", KEY_OF_B) is not None) == (last == 0)
    assert (kept.load_stems(TRACK, "htdemucs", KEY_OF_A) is not None) == (last == 5)
    save_stems(kept, separated(5), KEY_OF_A)
    assert kept.load_stems(TRACK, "htdemucs", KEY_OF_A) is not None
    assert len(list(kept.stems_folder(TRACK, "htdemucs").iterdir())) == 5


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (spectrogram(0.5, FRAMES + 1), r"float32 \(4, 8, 81\); expected float32 \(4, 7, 81\)"),
        (spectrogram(0.5)[:3], r"float32 \(3, 7, 81\)"),
        (spectrogram(0.5)[..., :80], r"float32 \(4, 7, 80\)"),
        (spectrogram(0.5)[0], r"float32 \(7, 81\)"),
        (spectrogram(0.5).astype(np.float64), r"float64 \(4, 7, 81\)"),
        (spectrogram(np.nan), "holds NaN or infinity"),
        (spectrogram(np.inf), "holds NaN or infinity"),
    ],
)
def test_what_a_record_vouches_for_is_looked_at(kept: Byproducts, array: np.ndarray, message: str) -> None:
    write_spectrogram(kept, array)
    with pytest.raises(AudioError, match=rf"song\.npy: {message}"):
        kept.load_spectrogram(TRACK, KEY_OF_A, FRAMES)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x80
    path.write_bytes(content)


def replace_with_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def replace_with_much(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("harm", [damage, replace_with_pipe, replace_with_much, Path.unlink])
def test_what_was_damaged_since_is_made_again(kept: Byproducts, harm: Callable[[Path], None]) -> None:
    harm(write_spectrogram(kept, spectrogram(0.5)))
    assert kept.load_spectrogram(TRACK, KEY_OF_A, FRAMES) is None
    write_spectrogram(kept, spectrogram(0.5))
    assert kept.load_spectrogram(TRACK, KEY_OF_A, FRAMES) is not None
    if harm is not replace_with_much:
        save_stems(kept, separated(1), KEY_OF_A)
        harm(kept.stems_folder(TRACK, "htdemucs") / "drums.wav")
        assert kept.load_stems(TRACK, "htdemucs", KEY_OF_A) is None
        save_stems(kept, separated(1), KEY_OF_A)
        assert kept.load_stems(TRACK, "htdemucs", KEY_OF_A) is not None


RECORDS = {
    "empty": b"",
    "deep": b"[" * 100_000,
    "no object": b"[]",
    "null": b"null",
    "bytes": b"\xff\xfe\x00",
    "of a version before": json.dumps({"made_from": KEY_OF_A, "provenance": {}}).encode(),
    "null provenance": json.dumps({"made_from": KEY_OF_A, "provenance": None, "sha256": "0"}).encode(),
    "text provenance": json.dumps({"made_from": KEY_OF_A, "provenance": "x", "sha256": "0"}).encode(),
    "numbers": json.dumps({"made_from": KEY_OF_A, "provenance": {}, "sha256": 0}).encode(),
}


@pytest.mark.parametrize("content", RECORDS.values(), ids=RECORDS)
def test_a_record_that_is_none_vouches_for_nothing(kept: Byproducts, content: bytes) -> None:
    path = write_spectrogram(kept, spectrogram(0.5))
    save_stems(kept, separated(1), KEY_OF_A)
    path.with_name("song.made_from.json").write_bytes(content)
    (kept.stems_folder(TRACK, "htdemucs") / "made_from.json").write_bytes(content)
    assert kept.load_spectrogram(TRACK, KEY_OF_A, FRAMES) is None
    assert kept.load_stems(TRACK, "htdemucs", KEY_OF_A) is None


def test_a_folder_where_a_record_goes_is_one_error(kept: Byproducts) -> None:
    record = write_spectrogram(kept, spectrogram(0.5)).with_name("song.made_from.json")
    record.unlink()
    record.mkdir()
    assert not kept.has_spectrogram(TRACK, KEY_OF_A)
    with pytest.raises(OutputError, match=r"song\.made_from\.json: cannot be written"):
        write_spectrogram(kept, spectrogram(0.5))
