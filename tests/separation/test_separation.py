"""Stems from folders and from the real separation code."""

from __future__ import annotations

import itertools
import json
import random
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core.audio.conversion import as_float32, remix_to_mono, resample
from allin1_core.audio.reading import read_audio, read_mono
from allin1_core.audio.types import STEM_NAMES, Audio
from allin1_core.backends.devices import to_host
from allin1_core.errors import AudioError, BackendError, OptionError, StemsError, WeightsError
from allin1_core.separation import (
    find_stem_files,
    read_stems,
    read_stems_folder,
    separate,
    stems_from_separated,
)
from allin1_core.separation.folder import ALL_STEMS
from allin1_core.separation.protocol import fold_into_four, mix_for
from allin1_core.session import Session
from allin1_core.settings import Settings


def test_stems_of_a_folder_come_in_the_order_of_their_names(
    write_stems: Callable[..., Path], stems: np.ndarray
) -> None:
    read = read_stems_folder(write_stems("song", ".flac"))
    assert read.sample_rate == 44100
    assert read.samples.dtype == np.int16
    np.testing.assert_array_equal(read.samples, stems)


def test_stems_come_in_the_array_that_is_given_for_them(
    write_stems: Callable[..., Path], stems: np.ndarray
) -> None:
    given: list[np.ndarray] = []

    def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        given.append(np.full(shape, 77, dtype))
        return given[-1]

    files = {stem: (path, 0) for stem, path in find_stem_files(write_stems("song", ".flac")).items()}
    read = read_stems(files, "song", allocate)
    assert len(given) == 1
    assert read.samples is given[0]
    np.testing.assert_array_equal(read.samples, stems)


@pytest.mark.parametrize(
    ("lengths", "subtypes", "rates", "most_arrays"),
    [
        ([9000] * 4, ["PCM_16"] * 4, [44100] * 4, 1),
        ([9000] * 4, ["FLOAT"] * 4, [44100] * 4, 1),
        ([9000] * 6, ["PCM_16"] * 6, [44100] * 6, 1),  # guitar and piano are added to other
        ([9000, 8999, 9000, 9000], ["PCM_16"] * 4, [44100] * 4, 2),
        ([9000, 8000, 7000, 9001], ["PCM_16"] * 4, [44100] * 4, 2),
        ([9000] * 4, ["PCM_16", "FLOAT", "PCM_16", "PCM_24"], [44100] * 4, 2),
        ([9000] * 4, ["PCM_16"] * 4, [44100, 48000, 44100, 22050], 2),
        ([9000] * 4, ["PCM_16"] * 4, [48000] * 4, 1),
    ],
)
def test_stems_are_the_same_whether_or_not_they_can_be_read_into_their_place(
    lengths: list[int], subtypes: list[str], rates: list[int], most_arrays: int, tmp_path: Path
) -> None:
    """Which stem decides on the array is a matter of chance where they differ."""
    random_numbers, given = np.random.default_rng(5), []
    for stem, length, subtype, rate in zip(ALL_STEMS, lengths, subtypes, rates, strict=False):
        noise = random_numbers.integers(-9000, 9000, length, np.int16)
        soundfile.write(tmp_path / f"{stem}.wav", noise, rate, subtype)

    def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        given.append(np.full(shape, 77, dtype))
        return given[-1]

    files = find_stem_files(tmp_path)
    single = {}
    for stem, path in files.items():
        audio = read_mono(path, 1 << 30)
        samples = resample(audio.samples[:, 0], audio.sample_rate, 44100)
        single[stem] = samples if len(set(subtypes)) == 1 else as_float32(samples)
    longest = max(map(len, single.values()))
    padded = {stem: np.pad(samples, (0, longest - len(samples))) for stem, samples in single.items()}
    expected = np.stack(list(fold_into_four(padded, "song").values()))
    read = read_stems({stem: (path, 0) for stem, path in files.items()}, "song", allocate)
    assert read.samples.dtype == expected.dtype
    np.testing.assert_array_equal(read.samples, expected)
    assert read.samples is given[-1]
    assert len(given) <= most_arrays


def _touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize(
    "names",
    [
        ("bass.wav", "drums.wav", "other.wav", "vocals.wav"),
        ("Song - Bass.flac", "Song - Drums.flac", "Song - Other.flac", "Song - Vocals.flac"),
        ("01_bass_(mix).mp3", "02_drums_(mix).mp3", "03_other_(mix).mp3", "04_vocals_(mix).mp3"),
        ("bass.wv", "drums.webm", "other.MOV", "vocals.mp2"),
        (
            "Drums of War bass.wav",
            "Drums of War drums.wav",
            "Drums of War other.wav",
            "Drums of War vocals.wav",
        ),
    ],
)
def test_stem_files_are_told_by_a_word_of_their_name(tmp_path: Path, names: tuple[str, ...]) -> None:
    _touch(tmp_path, *names, "notes.txt", "mixture.wav", "bassoon.wav")
    assert find_stem_files(tmp_path) == dict(
        zip(STEM_NAMES, (tmp_path / name for name in names), strict=True)
    )


def test_a_file_named_by_the_stem_alone_goes_first(tmp_path: Path) -> None:
    _touch(tmp_path, "bass.wav", "drums.wav", "other.wav", "vocals.wav", "song without vocals.wav")
    assert find_stem_files(tmp_path)["vocals"] == tmp_path / "vocals.wav"


def test_missing_stem(tmp_path: Path) -> None:
    _touch(tmp_path, "bass.wav", "drums.wav", "other.wav")
    with pytest.raises(
        StemsError, match=r"no file for the stem vocals; found bass.wav, drums.wav, other.wav"
    ):
        find_stem_files(tmp_path)


def test_stem_that_two_files_claim(tmp_path: Path) -> None:
    _touch(tmp_path, "bass.wav", "drums.wav", "other.wav", "vocals.wav", "vocals.flac")
    with pytest.raises(StemsError, match=r"vocals.flac, vocals.wav all name the stem 'vocals'"):
        find_stem_files(tmp_path)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StemsError, match=r"nothing: cannot be read \(No such file"):
        find_stem_files(tmp_path / "nothing")


def test_guitar_and_piano_are_added_to_other(write_stems: Callable[..., Path], stems: np.ndarray) -> None:
    folder = write_stems("song")
    soundfile.write(folder / "guitar.wav", stems[0], 44100)
    soundfile.write(folder / "piano.wav", stems[1], 44100)
    read = read_stems_folder(folder)
    total = np.clip(stems[2].astype(int) + stems[0] + stems[1], -32768, 32767)
    np.testing.assert_array_equal(read.samples[2], total)
    np.testing.assert_array_equal(read.samples[[0, 1, 3]], stems[[0, 1, 3]])


def test_folding_clips_integers_instead_of_wrapping() -> None:
    loud = {name: np.full(3, 30000, np.int16) for name in (*STEM_NAMES, "guitar", "piano")}
    np.testing.assert_array_equal(fold_into_four(loud, "x")["other"], 32767)


def test_short_stems_are_filled_with_silence(write_stems: Callable[..., Path], stems: np.ndarray) -> None:
    folder = write_stems("song")
    soundfile.write(folder / "bass.wav", stems[0, :-1000], 44100)
    read = read_stems_folder(folder)
    np.testing.assert_array_equal(read.samples[0, :-1000], stems[0, :-1000])
    assert not read.samples[0, -1000:].any()
    np.testing.assert_array_equal(read.samples[1:], stems[1:])


def test_stems_of_different_recordings_are_refused(
    write_stems: Callable[..., Path], stems: np.ndarray
) -> None:
    folder = write_stems("song")
    soundfile.write(folder / "bass.wav", stems[0, : 2 * 44100], 44100)
    with pytest.raises(StemsError, match=r"bass.wav: bass is 2.00 s long, where the longest stem has 5.00 s"):
        read_stems_folder(folder)


def test_mixed_rates_are_resampled_to_one(write_stems: Callable[..., Path], stems: np.ndarray) -> None:
    folder = write_stems("song")
    time = np.arange(5 * 48000) / 48000
    tone = np.rint(8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    soundfile.write(folder / "bass.wav", tone, 48000)
    read = read_stems_folder(folder)
    assert read.sample_rate == 44100
    assert read.samples.shape == stems.shape
    expected = 8000 * np.sin(2 * np.pi * 440 * np.arange(5 * 44100) / 44100)
    assert np.abs(read.samples[0, 500:-500] - expected[500:-500]).max() <= 2
    np.testing.assert_array_equal(read.samples[1:], stems[1:])


def test_one_float_stem_makes_all_float(write_stems: Callable[..., Path], stems: np.ndarray) -> None:
    folder = write_stems("song")
    soundfile.write(folder / "bass.wav", stems[0] / 32768, 44100, subtype="FLOAT")
    read = read_stems_folder(folder)
    assert read.samples.dtype == np.float32
    np.testing.assert_array_equal(read.samples, stems.astype(np.float32) / 32768)


def test_a_broken_stem_is_named(write_stems: Callable[..., Path]) -> None:
    folder = write_stems("song")
    (folder / "drums.wav").write_text("no audio")
    with pytest.raises(AudioError, match=r"drums\.wav: not audio"):
        read_stems_folder(folder)


def _separated(session: Session, mix: Audio) -> dict[str, np.ndarray]:
    return {stem: to_host(samples) for stem, samples in session.separate(mix)[0].items()}


def _session(repository: Path, **options: object) -> Session:
    return Session(Settings(demix_model="small", demix_repository=repository, device="cpu", **options))  # type: ignore[arg-type]


@pytest.fixture
def mix(stems: np.ndarray) -> Audio:
    loud = np.clip(stems.astype(int).sum(axis=0), -32768, 32767).astype(np.int16)[:22050]
    return Audio(np.stack([loud, loud // 3], axis=1), 44100)


def test_real_separation_gives_four_stems_and_says_what_made_them(
    separation_repository: Path, mix: Audio
) -> None:
    tensors, sample_rate, _, provenance = _session(separation_repository).separate(mix)
    separated = {stem: to_host(samples) for stem, samples in tensors.items()}
    assert sample_rate == 44100
    assert set(separated) == set(STEM_NAMES)
    for samples in separated.values():
        assert samples.shape == mix.samples.shape
        assert samples.dtype == np.int16
        assert np.abs(samples.astype(int)).max() > 0
    assert provenance["backend"] == "demucs-infer"
    assert provenance["model"] == "small"
    assert len(str(provenance["weights_sha256"])) == 64


def test_separation_repeats_with_its_seed_and_leaves_the_callers_generator_alone(
    separation_repository: Path, mix: Audio
) -> None:
    random.seed(5)
    expected_next = random.random()
    random.seed(5)
    first = _separated(_session(separation_repository, demix_seed=3), mix)
    assert random.random() == expected_next
    random.seed(99)
    again = _separated(_session(separation_repository, demix_seed=3), mix)
    other = _separated(_session(separation_repository, demix_seed=4), mix)
    for stem in STEM_NAMES:
        np.testing.assert_array_equal(first[stem], again[stem])
    assert any((first[stem] != other[stem]).any() for stem in STEM_NAMES)


def test_stems_in_memory_are_those_that_demucs_own_files_give(
    separation_repository: Path, mix: Audio, tmp_path: Path
) -> None:
    """Write with Demucs' own `save_audio`, read back, mix to mono: bit for bit what never left memory."""
    import torch
    from demucs_infer.audio import save_audio

    session = _session(separation_repository)
    separator = session.separator()
    separated = separator(mix_for(separator, mix), seed=session.settings.demix_seed, overlap=0.25)
    raw = {stem: to_host(samples) for stem, samples in separated.items()}
    # One stem that would clip, one that just does not, one at exactly full scale.
    raw["bass"] *= 3 / np.abs(raw["bass"]).max()
    raw["drums"] *= np.float32(0.985) / np.abs(raw["drums"]).max()
    raw["other"] *= 1 / np.abs(raw["other"]).max()
    for stem, samples in raw.items():
        save_audio(torch.from_numpy(samples.copy()), tmp_path / f"{stem}.wav", separator.sample_rate)

    from allin1_core.audio.conversion import quantise

    in_memory = stems_from_separated({stem: quantise(samples.T) for stem, samples in raw.items()}, 44100)
    on_disk = read_stems_folder(tmp_path)
    assert on_disk.samples.dtype == in_memory.samples.dtype == np.int16
    np.testing.assert_array_equal(in_memory.samples, on_disk.samples)
    for index, stem in enumerate(STEM_NAMES):
        mono = remix_to_mono(read_audio(tmp_path / f"{stem}.wav").samples)
        np.testing.assert_array_equal(in_memory.samples[index], mono)


def test_float_stems_are_kept_on_request(separation_repository: Path, mix: Audio) -> None:
    separated = _separated(_session(separation_repository, stems_as_int16=False), mix)
    assert all(samples.dtype == np.float32 for samples in separated.values())


def test_mono_is_repeated_and_other_rates_are_resampled(separation_repository: Path, mix: Audio) -> None:
    separator = _session(separation_repository).separator()
    mono = mix_for(separator, Audio(mix.samples[:, :1], 22050))
    assert mono.dtype == np.float32
    assert mono.shape == (2, 2 * len(mix.samples))
    np.testing.assert_array_equal(mono[0], mono[1])


@pytest.mark.parametrize(("channels", "expected"), [(1, [[2]]), (2, [[1], [2]]), (4, None)])
def test_a_mix_of_three_channels(channels: int, expected: list[list[float]] | None) -> None:
    """The mean for one, the first for two; more there are not."""
    separator: Any = types.SimpleNamespace(sample_rate=44100, num_channels=channels)
    mix = Audio(np.array([[1, 2, 3]], np.float32), 44100)
    if expected:
        assert mix_for(separator, mix).tolist() == expected
    else:
        with pytest.raises(StemsError, match="mix: 3 channels; the separation model takes 4"):
            mix_for(separator, mix)


def test_a_model_of_other_stems_is_refused() -> None:
    with pytest.raises(
        StemsError, match="separation: no stem bass, other; found drums, vocals; expected bass"
    ):
        stems_from_separated(dict.fromkeys(("drums", "vocals"), np.zeros((9, 1), np.int16)), 44100)


def test_unknown_separation_model(separation_repository: Path) -> None:
    session = Session(Settings(demix_model="nothing", demix_repository=separation_repository, device="cpu"))
    with pytest.raises(WeightsError, match=r"expected the separation model nothing\..*; found models small$"):
        session.separator()


def test_repository_that_is_not_there(tmp_path: Path, separation_repository: Path) -> None:
    session = Session(Settings(demix_repository=tmp_path / "nothing", device="cpu"))
    with pytest.raises(WeightsError, match=r"nothing: no such folder"):
        session.separator()


def test_damaged_separation_weights(tmp_path: Path, separation_repository: Path) -> None:
    whole = (separation_repository / "small.th").read_bytes()
    (tmp_path / "small.th").write_bytes(whole[: len(whole) // 2])
    session = Session(Settings(demix_model="small", demix_repository=tmp_path, device="cpu"))
    with pytest.raises(WeightsError, match="separation model 'small': cannot be loaded"):
        session.separator()


def test_stems_are_converted_on_their_device_as_arrays_are() -> None:
    """Bit for bit, clipping stems, silence and sums of odd numbers included."""
    import torch

    from allin1_core.audio import conversion
    from allin1_core.separation import tensors

    rng = np.random.default_rng(0)
    for scale, channels in itertools.product((0.0, 1e-4, 0.3, 3.0), (1, 2, 3)):
        samples = (rng.standard_normal((channels, 5001)) * scale).astype(np.float32)
        quantised, tensor = conversion.quantise(samples), tensors.quantise(torch.from_numpy(samples))
        assert tensor.dtype == torch.int16
        np.testing.assert_array_equal(tensor.numpy(), quantised)
        for array in (quantised, samples):
            mono = tensors.remix_to_mono(torch.from_numpy(array).T)
            np.testing.assert_array_equal(
                mono.numpy(), conversion.remix_to_mono(np.ascontiguousarray(array.T))
            )
    assert tensors.quantise(torch.zeros(2, 0)).numpy().dtype == np.int16
    assert conversion.quantise(np.zeros((2, 0), np.float32)).dtype == np.int16


def test_an_overlap_of_ones_own_changes_the_stems_and_is_recorded(
    separation_repository: Path, mix: Audio
) -> None:
    quarter, half = (_session(separation_repository, demix_overlap=overlap) for overlap in (0.25, 0.5))
    assert half.separate(mix)[3]["overlap"] == 0.5
    assert any(
        (one != other).any()
        for one, other in zip(_separated(quarter, mix).values(), _separated(half, mix).values(), strict=True)
    )
    separated = separate(quarter.separator(), mix, overlap=0.5)
    for stem, samples in _separated(half, mix).items():
        np.testing.assert_array_equal(separated[stem], samples)
    with pytest.raises(OptionError, match=r"demix_overlap: 1.5; expected from 0 to 0.9"):
        separate(quarter.separator(), mix, overlap=1.5)
    with pytest.raises(OptionError, match="demix_seed: None; expected a whole number"):
        separate(quarter.separator(), mix, seed=None)  # type: ignore[arg-type]


def test_weights_that_execute_nothing_are_preferred(
    separation_repository: Path, tmp_path: Path, mix: Audio
) -> None:
    import torch
    from safetensors.torch import save_file

    package = torch.load(separation_repository / "small.th", weights_only=False)
    metadata = {
        "klass": "demucs.htdemucs.HTDemucs",
        "args": json.dumps(package["args"]),
        "kwargs": json.dumps(package["kwargs"]),
    }
    save_file(package["state"], tmp_path / "small.safetensors", metadata)
    (tmp_path / "small.th").write_text("not opened")
    session, pickled = _session(tmp_path), _session(separation_repository)
    for stem, samples in _separated(pickled, mix).items():
        np.testing.assert_array_equal(_separated(session, mix)[stem], samples)
    assert session.separator().provenance == pickled.separator().provenance
    assert set(session.repository_sha256) == {"small.safetensors", "small.th"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_mix_of_no_numbers_is_refused(separation_repository: Path, value: float) -> None:
    samples = np.zeros((5000, 2), np.float32)
    samples[3000, 1] = value
    with pytest.raises(AudioError, match="mix: 1 samples are NaN or infinite, the first at sample 3000"):
        separate(_session(separation_repository).separator(), Audio(samples, 44100))


@pytest.mark.parametrize("seed", [0, 6909])  # the second draws the longest shift, which leaves no segment
def test_a_mix_without_samples_is_refused(separation_repository: Path, seed: int) -> None:
    separator = _session(separation_repository).separator()
    with pytest.raises(AudioError, match="mix: holds no samples; expected at least one"):
        separate(separator, Audio(np.zeros((0, 2), np.float32), 44100), seed=seed)


def test_a_mix_that_is_read_only_warns_of_nothing(separation_repository: Path, mix: Audio) -> None:
    separator = _session(separation_repository).separator()
    expected = separate(separator, mix)
    samples = np.asfortranarray(mix.samples, np.float32) / 32768
    samples.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = separate(separator, Audio(samples, mix.sample_rate))
    for stem, stems in found.items():
        np.testing.assert_array_equal(stems, expected[stem])


def test_stems_of_no_numbers_are_refused(separation_repository: Path, mix: Audio) -> None:
    session = _session(separation_repository)
    network = session.separator()._model.networks[0]  # type: ignore[attr-defined]
    next(network.decoder[-1].parameters()).data[0, 0] = np.nan
    with pytest.raises(BackendError, match="separation gave NaN or infinity in "):
        session.separate(mix)
