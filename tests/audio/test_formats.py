"""Every kind of audio file gives the samples that FFmpeg gives: the field's own files, and others made here."""

from __future__ import annotations

import io
import itertools
import struct
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
from audio_files import STEREO, cut_without_decoding, decoded, encoded, music, read, written

from allin1_core.audio.reading import read_audio
from allin1_core.audio.types import Audio
from allin1_core.errors import AudioError

AT_48 = music(1.0, 2, 48000)
MONO = music(2.0, 1, 44100)

# Samples, rate, channels, and the mean magnitude of each quarter, as `ffmpeg -map 0:a:0 -f f32le` (5.1) gives them. Of
# the second part of `chained.opus` FFmpeg 5.1 kept the pre-skip of 312 samples, which newer ones rightly drop.
FIELD = {
    "a.mp2": (132_480, 44100, 2, [0.054737, 0.056051, 0.055499, 0.055992]),
    "adts.aac": (134_144, 44100, 2, [0.055649, 0.057717, 0.057386, 0.055454]),
    "chained.ogg": (264_728, 44100, 2, [0.058732, 0.058728, 0.058688, 0.058777]),
    "chained.opus": (288_000, 48000, 2, [0.058301, 0.057792, 0.058301, 0.057792]),
    "flac_cut_ss.flac": (38_502, 22050, 1, [0.0543, 0.054793, 0.055197, 0.054898]),
    "gap.m4a": (133_120, 44100, 2, [0.056889, 0.056353, 0.05709, 0.054995]),
    "lame_notag.mp3": (133_632, 44100, 2, [0.054158, 0.056528, 0.055884, 0.056142]),
    "off.webm": (144_000, 48000, 2, [0.058047, 0.058338, 0.057766, 0.058276]),
    "oggflac.oga": (19_845, 44100, 2, [0.05718, 0.057504, 0.061569, 0.057932]),
    "vbr_noinfo.mp3": (133_632, 44100, 2, [0.055668, 0.05792, 0.057553, 0.057742]),
    "wav_data_size_0.wav": (19_845, 44100, 2, [0.05718, 0.057504, 0.061569, 0.057932]),
}


@pytest.mark.parametrize("name", FIELD)
def test_files_that_tools_wrote(shared: Path, name: str) -> None:
    num_samples, sample_rate, channels, quarters = FIELD[name]
    audio = read_audio(shared / "field" / "inputs" / name)
    assert audio.samples.shape == (num_samples, channels)
    assert audio.sample_rate == sample_rate
    assert [np.abs(part).mean() for part in np.array_split(as_float(audio), 4)] == pytest.approx(
        quarters, rel=1e-4
    )


def as_float(audio: Audio) -> np.ndarray:
    return audio.samples / np.float32(32768) if audio.samples.dtype == np.int16 else audio.samples


def assert_read_as_ffmpeg(folder: Path, content: bytes, sample_rate: int = 44100) -> Audio:
    """The audio of a file, which is what a plain loop over PyAV's frames gives."""
    audio, expected = read(folder, content), decoded(content)
    assert audio.sample_rate == sample_rate
    assert audio.samples.dtype == (np.int16 if expected.dtype == np.int16 else np.float32)
    if expected.dtype == np.int32:
        expected = expected.astype(np.float32) / np.float32(2**31)
    np.testing.assert_array_equal(audio.samples, expected)
    return audio


LOSSLESS = [
    ("flac", "flac", "s16"),
    ("flac", "ogg", "s16"),
    ("flac", "matroska", "s16"),
    ("flac", "mp4", "s16"),
    ("alac", "ipod", "s16p"),
    ("wavpack", "wv", "s16p"),
    ("wavpack", "matroska", "s16p"),
    ("tta", "tta", "s16"),
    ("pcm_s16le", "mov", "s16"),
    ("pcm_s16le", "avi", "s16"),
    ("pcm_s16be", "nut", "s16"),
]


@pytest.mark.parametrize(("codec", "container", "sample_format"), LOSSLESS)
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_files_hold_what_was_written(
    tmp_path: Path, codec: str, container: str, sample_format: str, channels: int
) -> None:
    samples = music(0.5, channels, 44100)
    content = encoded(samples, codec, container, sample_rate=44100, sample_format=sample_format)
    audio = read(tmp_path, content)
    assert audio.samples.dtype == np.int16
    assert audio.sample_rate == 44100
    np.testing.assert_array_equal(audio.samples, samples)


@pytest.mark.parametrize(("codec", "container"), [("flac", "flac"), ("alac", "ipod"), ("wavpack", "wv")])
def test_lossless_files_of_24_bits_are_float32(tmp_path: Path, codec: str, container: str) -> None:
    planar = "s32" if codec == "flac" else "s32p"
    content = encoded(STEREO, codec, container, sample_rate=44100, sample_format=planar)
    audio = read(tmp_path, content)
    assert audio.samples.dtype == np.float32
    np.testing.assert_array_equal(audio.samples * 32768, STEREO)


# Samples that come: those that went in, and what the encoder put before and behind them and no header tells.
LOSSY = [
    ("libmp3lame", "mp3", {}, 44_100),
    ("libmp3lame", "mp3", {"write_xing": "0"}, 46_080),
    ("libmp3lame", "wav", {}, 46_080),
    ("libmp3lame", "avi", {}, 46_080),
    ("libmp3lame", "matroska", {}, 44_100),
    ("mp2", "mp2", {}, 44_928),
    ("mp2", "vob", {}, 44_928),
    ("mp2", "mpegts", {}, 44_928),
    ("aac", "adts", {}, 46_080),
    ("aac", "latm", {}, 46_080),
    ("aac", "mpegts", {}, 46_080),
    ("aac", "flv", {}, 46_080),
    ("aac", "mp4", {}, 45_056),
    ("aac", "mov", {}, 45_056),
    ("aac", "3gp", {}, 45_056),
    ("aac", "mp4", {"movflags": "frag_keyframe+empty_moov"}, 46_080),
    ("ac3", "ac3", {}, 44_544),
    ("eac3", "eac3", {}, 44_544),
    ("adpcm_ima_wav", "wav", {}, 44_748),
    ("adpcm_ms", "wav", {}, 44_528),
    ("adpcm_ima_qt", "aiff", {}, 44_160),
    ("wmav2", "asf", {}, 43_008),
]


@pytest.mark.parametrize(("codec", "container", "options", "num_samples"), LOSSY)
def test_lossy_files(
    tmp_path: Path, codec: str, container: str, options: dict[str, str], num_samples: int
) -> None:
    content = encoded(STEREO, codec, container, sample_rate=44100, bit_rate=128_000, options=options)
    audio = assert_read_as_ffmpeg(tmp_path, content)
    assert audio.samples.shape == (num_samples, 2)
    # The sound is there: somewhere within an encoder's delay it is what was written.
    written, found = STEREO[10_000:30_000, 0] / 32768, as_float(audio)[:, 0]
    delay = int(scipy.signal.correlate(found[10_000:32_999], written, mode="valid").argmax())
    correlation = np.corrcoef(written, found[10_000 + delay : 30_000 + delay])[0, 1]
    assert correlation > 0.9, correlation


def without_xing(bit_rate: int, samples: np.ndarray = STEREO) -> bytes:
    return encoded(
        samples,
        "libmp3lame",
        "mp3",
        sample_rate=44100,
        bit_rate=bit_rate,
        options={"write_xing": "0", "id3v2_version": "0"},
    )


@pytest.mark.parametrize("rates", [(64_000, 320_000), (320_000, 64_000), (128_000, 128_000, 48_000)])
def test_mp3_of_changing_bit_rates_that_states_no_length(tmp_path: Path, rates: tuple[int, ...]) -> None:
    content = b"".join(without_xing(rate) for rate in rates)
    assert len(assert_read_as_ffmpeg(tmp_path, content).samples) == 46_080 * len(rates)


def test_concatenated_mp3_with_headers_and_tags_between(tmp_path: Path) -> None:
    part = encoded(STEREO, "libmp3lame", "mp3", sample_rate=44100, metadata={"title": "a"})
    assert part.startswith(b"ID3")
    id3v1 = b"TAG" + bytes(125)
    for between in (b"", id3v1, b"APETAGEX" + bytes(24), bytes(2000)):
        samples = read(tmp_path, part + between + part).samples
        # The delay of the first is cut off; the second's header frame is decoded, as silence.
        assert 2 * 44_100 < len(samples) < 2 * 44_100 + 4 * 1152
        for beginning in (0, len(samples) - 44_100):
            loudness = np.abs(samples[beginning : beginning + 44_000]).mean()
            assert loudness == pytest.approx(np.abs(STEREO).mean() / 32768, rel=0.1)


@pytest.mark.parametrize(
    "before", [bytes(5000), b"\1" * 700, without_xing(320_000)[-1500:], without_xing(128_000)[300:700]]
)
def test_mp3_with_something_in_front(tmp_path: Path, before: bytes) -> None:
    whole = without_xing(128_000)
    expected, found = decoded(whole), read(tmp_path, before + whole).samples
    assert len(expected) <= len(found) <= len(expected) + 3 * 1152
    np.testing.assert_allclose(found[-40_000:], expected[-40_000:], atol=1e-6)


def test_mp3_at_24_khz_is_as_libsndfile_has_it(tmp_path: Path) -> None:
    """FFmpeg 5.1 differed from lame, libmad and libsndfile by up to 0.12."""
    content = encoded(music(1.0, 2, 24000), "libmp3lame", "mp3", sample_rate=24000, bit_rate=64_000)
    expected, _ = soundfile.read(io.BytesIO(content), dtype="float32")
    np.testing.assert_allclose(read(tmp_path, content).samples, expected, atol=2e-6)


def without_length(flac: bytes) -> bytes:
    """FLAC as it is written to a pipe: the number of samples, the low 36 bits of bytes 18 to 25, is 0."""
    content = bytearray(flac)
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    return bytes(content)


@pytest.mark.parametrize("sample_format", ["s16", "s32"])
@pytest.mark.parametrize("start", [4096, 30_000, 60_000])
def test_flac_cut_out_without_decoding(tmp_path: Path, start: int, sample_format: str) -> None:
    """Its first frame is not number 0, and its header is of the whole."""
    whole = encoded(MONO, "flac", "flac", sample_rate=44100, sample_format=sample_format)
    part, first = cut_without_decoding(whole, start, "flac")
    assert first >= start
    audio = read(tmp_path, part)
    np.testing.assert_array_equal(np.rint(as_float(audio) * 32768), MONO[first:])
    # And with an end that lies before the whole's.
    last = part.rindex(b"\xff\xf8")
    audio = read(tmp_path, part[:last])
    assert len(audio.samples) < len(MONO) - first
    np.testing.assert_array_equal(np.rint(as_float(audio) * 32768), MONO[first:][: len(audio.samples)])


def test_flac_that_was_written_to_a_pipe(tmp_path: Path) -> None:
    whole = encoded(MONO, "flac", "flac", sample_rate=44100, sample_format="s16")
    content = without_length(whole)
    assert content != whole
    np.testing.assert_array_equal(read(tmp_path, content).samples, MONO)
    with pytest.raises(AudioError, match="truncated or damaged"):
        read(tmp_path, content[: len(content) - 500])


def test_flac_with_tags_of_other_formats(tmp_path: Path) -> None:
    whole = encoded(MONO, "flac", "flac", sample_rate=44100, sample_format="s16")
    for before, behind in itertools.product(
        (b"", b"ID3\4\0\0\0\0\0\x0a" + bytes(10)), (b"TAG" + bytes(125), b"")
    ):
        np.testing.assert_array_equal(read(tmp_path, before + whole + behind).samples, MONO)


@pytest.mark.parametrize(("subtype", "sample_rate"), [("VORBIS", 44100), ("OPUS", 48000)])
@pytest.mark.parametrize("parts", [2, 3])
def test_all_parts_of_chained_ogg(tmp_path: Path, subtype: str, sample_rate: int, parts: int) -> None:
    one = written("OGG", subtype, music(1.0, 2, sample_rate), sample_rate)
    alone, chain = read(tmp_path, one).samples, read(tmp_path, one * parts).samples
    assert len(alone) == sample_rate
    assert (
        0 <= len(chain) - parts * len(alone) <= 128 * (parts - 1)
    )  # Vorbis begins with a block before its first
    tail = len(alone) - 2000
    np.testing.assert_allclose(chain[-tail:], alone[-tail:], atol=1e-6)
    np.testing.assert_allclose(chain[:tail], alone[:tail], atol=1e-6)


def test_all_parts_of_chained_ogg_flac(tmp_path: Path) -> None:
    one = encoded(STEREO, "flac", "ogg", sample_rate=44100, sample_format="s16")
    samples = read(tmp_path, one + one).samples
    np.testing.assert_array_equal(samples, np.concatenate([STEREO, STEREO]))


@pytest.mark.parametrize(
    ("codec", "container", "rate"),
    [("libopus", "webm", 48000), ("flac", "matroska", 48000), ("aac", "mp4", 48000), ("alac", "mov", 48000)],
)
@pytest.mark.parametrize(("start", "gap"), [(96_000, 0), (0, 96_000), (48_000, 24_000)])
def test_time_stamps_that_begin_late_or_jump_are_not_filled(
    tmp_path: Path, codec: str, container: str, rate: int, start: int, gap: int
) -> None:
    sample_format = {"flac": "s16", "alac": "s16p"}.get(codec, "")
    content = encoded(AT_48, codec, container, sample_format=sample_format, start=start, gap=gap)
    audio = assert_read_as_ffmpeg(tmp_path, content, rate)
    assert 0 <= len(audio.samples) - len(AT_48) <= 3 * 1024
    if sample_format:
        np.testing.assert_array_equal(audio.samples, AT_48)


@pytest.mark.parametrize("first", [b"free", b"skip", b"wide", b"mdat"])
def test_quicktime_without_ftyp(tmp_path: Path, first: bytes) -> None:
    content = bytearray(encoded(STEREO, "pcm_s16le", "mov", sample_rate=44100))
    assert content[4:8] == b"ftyp"
    content[4:8] = first
    if first == b"mdat":  # as QuickTime begins: one box from here to the end of the sound
        place = content.index(b"mdat", 8) - 4
        content[:4] = struct.pack(">I", place + struct.unpack_from(">I", content, place)[0])
    np.testing.assert_array_equal(read(tmp_path, bytes(content)).samples, STEREO)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
@pytest.mark.parametrize(("riff_size", "data_size"), [(0, 0), (None, 0), (0xFFFFFFFF, 0xFFFFFFFF)])
@pytest.mark.parametrize("silent", [False, True])
def test_wav_of_a_recorder_that_never_wrote_its_sizes(
    tmp_path: Path, subtype: str, riff_size: int | None, data_size: int, silent: bool
) -> None:
    """Recorders leave 0; ffmpeg and sox, writing to a pipe, the largest number."""
    samples = STEREO.copy()
    samples[: 40_000 if silent else 0] = 0  # zeros look like chunks without end
    content = bytearray(written("WAV", subtype, samples))
    struct.pack_into("<I", content, content.index(b"data") + 4, data_size)
    if riff_size is not None:
        struct.pack_into("<I", content, 4, riff_size)
    np.testing.assert_array_equal(np.rint(as_float(read(tmp_path, bytes(content))) * 32768), samples)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "ALAW", "FLOAT"])
def test_caf_of_unknown_length(tmp_path: Path, subtype: str) -> None:
    content = bytearray(written("CAF", subtype, STEREO))
    expected = read(tmp_path, bytes(content)).samples
    struct.pack_into(">q", content, content.index(b"data") + 4, -1)
    np.testing.assert_array_equal(read(tmp_path, bytes(content)).samples, expected)


@pytest.mark.parametrize("codec", ["aac", "libopus", "wavpack"])
def test_eight_channels(tmp_path: Path, codec: str) -> None:
    """PyAV reads past the pointers of such a planar frame."""
    samples = music(0.5, 8, 48000)
    content = encoded(samples, codec, "matroska", sample_format="s16p" if codec == "wavpack" else "")
    audio = read(tmp_path, content)
    assert audio.samples.shape[1] == 8
    if codec == "wavpack":
        np.testing.assert_array_equal(audio.samples, samples)
    else:
        assert 0 <= len(audio.samples) - len(samples) <= 2048
        heard = [0, 1, 2, 4, 5, 6, 7]  # AAC keeps of channel 3, the subwoofer's, the depths alone
        expected = np.abs(samples).mean(axis=0)[heard] / 32768
        assert np.abs(audio.samples).mean(axis=0)[heard] == pytest.approx(expected, rel=0.2)


def test_channels_in_an_order_of_their_own(tmp_path: Path) -> None:
    """QuickTime may describe each channel; PyAV frees that description twice."""
    content = bytearray(encoded(STEREO, "pcm_s16le", "mov", sample_rate=44100))
    place = content.index(b"chan") - 4
    (length,) = struct.unpack_from(">I", content, place)
    right_left = b"".join(struct.pack(">IIfff", label, 0, 0, 0, 0) for label in (2, 1))
    box = struct.pack(">I4sIIII", 24 + len(right_left), b"chan", 0, 0, 0, 2) + right_left
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"sowt"):
        at = content.rindex(name, 0, place) - 4
        struct.pack_into(">I", content, at, struct.unpack_from(">I", content, at)[0] + len(box) - length)
    content[place : place + length] = box
    np.testing.assert_array_equal(read(tmp_path, bytes(content)).samples, STEREO)


def test_tags_that_are_not_unicode(tmp_path: Path) -> None:
    content = encoded(STEREO, "libmp3lame", "avi", sample_rate=44100, metadata={"title": "Motorhead"})
    changed = content.replace(b"Motorhead", b"Mot\xf6rhead")
    assert changed != content
    np.testing.assert_array_equal(read(tmp_path, changed).samples, decoded(content))
