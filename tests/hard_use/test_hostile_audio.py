"""Audio with absurd headers, cut off, with flipped bits, or that is no file: an error each, and nothing else."""

from __future__ import annotations

import os
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import soundfile

from allin1_core.audio.reading import read_audio
from allin1_core.errors import AudioError
from hard_use import hostile_audio
from hard_use.hostile_files import write
from hard_use.reader_process import read_hostile_files
from hard_use.reporting import check_readings, check_trials
from parity.reports.records import ParityRecorder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures and limits memory as Linux does")

READER = "allin1_core.audio.reading:read_audio"
MEMORY = 128 << 20


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A good file of each kind."""
    files = ((f"good.{suffix}", content) for suffix, content in hostile_audio.wholesome().items())
    return write(tmp_path_factory.mktemp("good"), files)


def test_the_files_that_are_damaged_below_are_good(good: list[Path]) -> None:
    for path in good:
        audio = read_audio(path)
        assert audio.sample_rate == 48000, path
        assert 0.2 < audio.seconds < 0.35, path
        assert np.abs(audio.samples.astype(float)).max() > 0, path


def test_absurd_headers_are_refused_without_taking_what_they_claim(
    tmp_path: Path, good: list[Path], record_parity: ParityRecorder
) -> None:
    paths = write(tmp_path, hostile_audio.absurd_headers())
    readings = read_hostile_files(READER, paths, warmup=good, memory=MEMORY)
    what, bound = "audio headers with absurd sizes, rates, channels", "an error names the file, under 128 MB"
    # What is left is a possible rate, channels and width: a-law by its tag, lengths that a pipe leaves.
    check_readings(record_parity, what, bound, readings, memory=MEMORY, may_be_read=_plausible)


def _plausible(path: Path) -> bool:
    audio = read_audio(path)
    return (
        1 <= audio.samples.shape[1] <= 1024
        and 1000 <= audio.sample_rate <= 1_000_000
        and len(audio.samples) > 0
    )


def test_files_cut_off_at_every_kilobyte_are_refused(
    tmp_path: Path, good: list[Path], record_parity: ParityRecorder
) -> None:
    paths = write(tmp_path, hostile_audio.truncated())
    readings = read_hostile_files(READER, paths, warmup=good, memory=MEMORY)
    what = "audio cut off at every kilobyte"
    check_readings(record_parity, what, "an error names the file", readings, memory=MEMORY)


@pytest.mark.parametrize("number", [100, pytest.param(5000, marks=pytest.mark.full)])
def test_flipped_bits_do_no_harm(
    tmp_path: Path, good: list[Path], number: int, record_parity: ParityRecorder
) -> None:
    paths = write(tmp_path, hostile_audio.flipped(number))
    readings = read_hostile_files(READER, paths, warmup=good, memory=MEMORY, timeout=800)
    what, bound = "audio with flipped bits", "an error names the file, or audio"
    check_readings(record_parity, what, bound, readings, memory=MEMORY, may_be_read=lambda path: True)


def test_what_is_no_file_is_refused(tmp_path: Path, good: list[Path], record_parity: ParityRecorder) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    for name, target in {
        "loop.wav": "loop.wav",
        "dangling.wav": "nowhere.wav",
        "zero.wav": "/dev/zero",
        "null.wav": "/dev/null",
        "random.wav": "/dev/urandom",
        "terminal.wav": "/dev/tty",
        "standard_input.wav": "/dev/stdin",
        "memory.wav": "/proc/self/mem",
        "process.wav": "/proc/self/cmdline",
        "to_folder.wav": "/",
    }.items():
        (tmp_path / name).symlink_to(target)
    names = [entry.name for entry in tmp_path.iterdir()]
    names += [
        "missing.wav",
        "n" * 300 + ".wav",
        "deep/" * 1000 + "a.wav",
        "missing\nnewline.wav",
        "\udcff.wav",
    ]
    paths = [tmp_path / name for name in names]
    readings = read_hostile_files(READER, paths, warmup=good, memory=MEMORY)
    readings += read_hostile_files(
        "allin1_core.separation.track:file_digest", paths[:-5], warmup=good, memory=MEMORY
    )
    check_readings(
        record_parity,
        "pipes, devices, folders, loops as audio",
        "an error names the path",
        readings,
        memory=MEMORY,
        # What a process is called can be read, and has a digest.
        may_be_read=lambda path: path.name == "process.wav",
    )


ODD_NAMES = (
    "new\nline",
    "tab\tand\x1b[31mred",
    "Motörhead",
    unicodedata.normalize("NFD", "Motörhead"),
    "椎名林檎",
    "🎸" * 50,
    "\u202egnp.exe",
    "zero\u200bwidth",
    "not utf-8 \udcff\udcfe",
    "-rf",
    "--help",
    "*",
    "[a]?",
    "concat:a|b",
    "http:",
    "%s%n",
    "a" * 240,
    "trailing space ",
    "'\"`$(touch planted)",
)


@pytest.mark.parametrize("suffix", ["flac", "m4a"])
def test_odd_names_are_read_as_any_other(
    tmp_path: Path,
    suffix: str,
    good: list[Path],
    record_parity: ParityRecorder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(
        tmp_path
    )  # relative names: "concat:" must not be taken for a protocol, nor "-rf" for an option
    (content,) = (path.read_bytes() for path in good if path.suffix == f".{suffix}")
    expected = read_audio(next(path for path in good if path.suffix == f".{suffix}")).samples
    for name in ODD_NAMES:
        path = Path(f"{name}.{suffix}")
        path.write_bytes(content)
        np.testing.assert_array_equal(read_audio(path).samples, expected, err_msg=ascii(name))
        path.write_bytes(b"bad")
        with pytest.raises(AudioError) as caught:
            read_audio(path)
        assert str(caught.value).isprintable()
    deep = Path()
    for _ in range(40):
        deep = deep / ("d" * 90)
    deep.mkdir(parents=True)
    (deep / f"a.{suffix}").write_bytes(content)
    np.testing.assert_array_equal(read_audio(deep / f"a.{suffix}").samples, expected)
    check_trials(
        record_parity,
        "hostile files",
        f"odd names and a path of {len(str(deep))} letters, {suffix}",
        "read as any other",
        tried=len(ODD_NAMES) + 1,
    )


def test_a_file_that_decodes_to_far_more_than_it_holds_is_refused(
    tmp_path: Path, good: list[Path], record_parity: ParityRecorder
) -> None:
    """Silence packs to almost nothing: 30 MB of FLAC could be a week of it."""
    path = tmp_path / "silence.flac"
    with soundfile.SoundFile(path, "w", 44100, 8, subtype="PCM_16") as file:
        for _ in range(16):
            file.write(np.zeros((1 << 20, 8), np.int16))
    assert path.stat().st_size < 200_000
    # Where memory ends before the limit does:
    readings = read_hostile_files(READER, [path], warmup=good, memory=MEMORY)
    wrong = [row.message for row in readings if "more than the memory" not in row.message]
    what, bound = "silence that decodes to a thousand times its file", "an error, under 256 MB"
    check_readings(record_parity, what, bound, readings, memory=2 * MEMORY, wrong=wrong)
    # Where it does not, 268 MB of samples take a quarter more, measured in resident memory:
    [reading] = read_hostile_files(READER, [path], warmup=good, memory=2 << 30)
    assert reading.ended == "read", reading
    assert (256 << 20) < reading.peak_bytes < 1.25 * (256 << 20) + (32 << 20), reading
