"""Kept stems and spectrograms: used only for what they were made from, whoever else writes to their folders."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core import analyze, byproducts, load_result
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


def interleave(monkeypatch: pytest.MonkeyPatch, save: Callable[[], Any]) -> None:
    """Run `save` between the next array and its record."""
    write_record = byproducts._save_record

    def save_first(*arguments: Any) -> None:
        monkeypatch.setattr(byproducts, "_save_record", write_record)
        save()
        write_record(*arguments)

    monkeypatch.setattr(byproducts, "_save_record", save_first)


def test_a_record_never_vouches_for_a_spectrogram_that_another_process_wrote(
    kept: Byproducts, monkeypatch: pytest.MonkeyPatch
) -> None:
    interleave(monkeypatch, lambda: kept.save_spectrogram(TRACK, spectrogram(0.25), KEY_OF_B))
    kept.save_spectrogram(TRACK, spectrogram(0.5), KEY_OF_A)
    np.testing.assert_array_equal(np.load(kept.spectrogram_path(TRACK)), spectrogram(0.25))
    assert kept.has_spectrogram(TRACK, KEY_OF_A)
    assert kept.load_spectrogram(TRACK, KEY_OF_A, FRAMES) is None
    assert kept.load_spectrogram(TRACK, KEY_OF_B, FRAMES) is None


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


def test_two_processes_with_songs_of_one_name_in_folders_of_their_own(
    write_stems: Callable[..., Path], stems: np.ndarray, small_model: str, tmp_path: Path
) -> None:
    """One waits between its spectrogram and the record until the other has replaced the spectrogram."""
    songs = {"a": write_stems("a/song"), "b": write_stems("b/song", samples=np.roll(stems, 1, axis=0))}
    (tmp_path / "waits.py").write_text(
        "import sys, time\n"
        "from pathlib import Path\n"
        "from allin1_core import byproducts, cli\n"
        "write_record = byproducts._save_record\n"
        "def wait(*arguments):\n"
        f"    Path({str(tmp_path / 'waiting')!r}).touch()\n"
        f"    while not Path({str(tmp_path / 'go')!r}).exists(): time.sleep(0.01)\n"
        "    write_record(*arguments)\n"
        "byproducts._save_record = wait\n"
        "sys.exit(cli.main(sys.argv[1:]))\n"
    )

    def start(program: list[str], name: str) -> subprocess.Popen[bytes]:
        arguments = ["analyze", str(songs[name]), "-m", small_model, "-d", "cpu", "-q", "-k"]
        arguments += ["-o", str(tmp_path / f"out_{name}"), "--overwrite", "json", "--timings"]
        arguments += [str(tmp_path / f"{name}.jsonl"), "--activ"]
        arguments += ["--spec-dir", str(tmp_path / "spec"), "--demix-dir", str(tmp_path / "demix")]
        return subprocess.Popen([sys.executable, *program, *arguments])

    first = start([str(tmp_path / "waits.py")], "a")
    while not (tmp_path / "waiting").exists():
        assert first.poll() is None
        time.sleep(0.01)
    assert start(["-m", "allin1_core.cli"], "b").wait() == 0
    (tmp_path / "go").touch()
    assert first.wait() == 0
    assert start(["-m", "allin1_core.cli"], "a").wait() == 0
    last = read_timings(tmp_path / "a.jsonl")[-1].run_id
    lines = [line for line in read_timings(tmp_path / "a.jsonl") if line.run_id == last]
    assert [(line.stage, line.cached) for line in lines if line.stage.startswith("spec")] == [
        ("spec_load", False),
        ("spectrogram", False),
    ]
    for name, song in songs.items():
        expected = analyze(song, model=small_model, device="cpu", include_activations=True)
        found = load_result(tmp_path / f"out_{name}" / "song.json")
        assert found.to_json() == expected.to_json()
        assert found.activations is not None
        np.testing.assert_array_equal(found.activations["beat"], expected.activations["beat"])


@pytest.mark.parametrize("last", range(6))
def test_stems_that_were_being_written_when_the_process_was_killed(kept: Byproducts, last: int) -> None:
    """Killed when so many of the five files are in place: whole, or made again; and nothing is left over."""
    save_stems(kept, separated(1), KEY_OF_B)
    child = os.fork()
    if child == 0:
        replace, done = os.replace, []

        def replace_or_die(*paths: Path) -> None:
            if len(done) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(replace(*paths))

        os.replace = replace_or_die
        save_stems(kept, separated(5), KEY_OF_A)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) == (last < 5)
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
    path = write_spectrogram(kept, spectrogram(0.5))
    harm(path)
    assert kept.load_spectrogram(TRACK, KEY_OF_A, FRAMES) is None
    write_spectrogram(kept, spectrogram(0.5))
    assert kept.load_spectrogram(TRACK, KEY_OF_A, FRAMES) is not None


@pytest.mark.parametrize("harm", [damage, replace_with_pipe, Path.unlink])
def test_stems_that_were_damaged_since_are_made_again(kept: Byproducts, harm: Callable[[Path], None]) -> None:
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


@pytest.mark.parametrize("harm", [replace_with_pipe, replace_with_much])
def test_a_record_that_is_no_small_file_is_not_read(kept: Byproducts, harm: Callable[[Path], None]) -> None:
    record = write_spectrogram(kept, spectrogram(0.5)).with_name("song.made_from.json")
    harm(record)
    assert not kept.has_spectrogram(TRACK, KEY_OF_A)
    write_spectrogram(kept, spectrogram(0.5))
    assert kept.has_spectrogram(TRACK, KEY_OF_A)


def test_a_folder_where_a_record_goes_is_one_error(kept: Byproducts) -> None:
    record = write_spectrogram(kept, spectrogram(0.5)).with_name("song.made_from.json")
    record.unlink()
    record.mkdir()
    assert not kept.has_spectrogram(TRACK, KEY_OF_A)
    with pytest.raises(OutputError, match=r"song\.made_from\.json: cannot be written"):
        write_spectrogram(kept, spectrogram(0.5))
