"""What goes to a separator's device and comes from it: as it is, and with the results that conversion here has."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core.audio.conversion import remix_to_mono
from allin1_core.audio.types import STEM_NAMES, Audio
from allin1_core.errors import StemsError
from allin1_core.separation import load_separator, separate, stems_from_separated
from allin1_core.separation.protocol import mix_for


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("order", ["C", "F", "reversed"])
def test_int16_goes_to_the_device_as_it_is(
    separation_repository: Path, channels: int, order: Any, stems: np.ndarray
) -> None:
    """With the results, bit for bit, of float32."""
    separator = load_separator("small", device="cpu", repository=separation_repository)
    samples = np.asarray(stems[:channels, :9000].T, order="C" if order == "reversed" else order)
    if order == "reversed":
        samples = samples[::-1]
    given = mix_for(separator, Audio(samples, 44100))
    assert given.dtype == np.int16
    np.testing.assert_array_equal(given, samples[:, [0, min(1, channels - 1)]].T)
    as_float = Audio(samples.astype(np.float32) / 32768, 44100)
    expected = separate(separator, as_float, as_int16=False)
    for stem, found in separate(separator, Audio(samples, 44100), as_int16=False).items():
        np.testing.assert_array_equal(found, expected[stem])


@pytest.mark.parametrize(
    ("sample_rate", "takes_int16", "channels"), [(22050, True, 2), (44100, False, 2), (44100, True, 1)]
)
def test_int16_becomes_float32_where_something_is_computed_of_it(
    sample_rate: int, takes_int16: bool, channels: int
) -> None:
    separator: Any = types.SimpleNamespace(sample_rate=44100, num_channels=channels, takes_int16=takes_int16)
    samples = np.array([[3, 4]] * 50, np.int16)
    found = mix_for(separator, Audio(samples, sample_rate))
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    if sample_rate == 44100:
        assert found[:, 0].tolist() == [[3 / 32768, 4 / 32768], [3.5 / 32768]][channels == 1]


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("names", [STEM_NAMES, STEM_NAMES[::-1], (*STEM_NAMES, "piano")])
def test_tensors_become_the_stems_that_arrays_become(dtype: Any, names: tuple[str, ...]) -> None:
    import torch

    generator = np.random.default_rng(0)
    arrays = {name: generator.integers(-9000, 9000, (70, 2)).astype(dtype) for name in names}
    tensors = {name: torch.from_numpy(samples.T.copy()).T for name, samples in arrays.items()}
    for sample_rate in (44100, 22050):
        expected, found = (stems_from_separated(given, sample_rate) for given in (arrays, tensors))
        assert found.samples.dtype == dtype
        np.testing.assert_array_equal(found.samples, expected.samples)
    bass = remix_to_mono(arrays["bass"])
    np.testing.assert_array_equal(stems_from_separated(tensors, 44100).samples[0], bass)


def test_tensors_come_to_the_array_that_is_made_for_them() -> None:
    import torch

    made = np.empty((4, 70), np.int16)
    asked: list[Any] = []

    def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        asked.append((shape, dtype))
        return made

    tensors = {name: torch.full((70, 1), number, dtype=torch.int16) for number, name in enumerate(STEM_NAMES)}
    assert stems_from_separated(tensors, 44100, allocate).samples is made
    assert asked == [((4, 70), np.int16)]
    assert made[:, 5].tolist() == [0, 1, 2, 3]


def test_a_separator_that_gives_nothing_is_refused() -> None:
    class Separator:
        sample_rate, num_channels = 44100, 2

        def __call__(self, mix: np.ndarray, **_: Any) -> dict[str, np.ndarray]:
            return {}

    separated = separate(Separator(), Audio(np.zeros((9, 2), np.int16), 44100))  # type: ignore[arg-type]
    with pytest.raises(StemsError, match="separation: no stem bass, drums, other, vocals; found none"):
        stems_from_separated(separated, 44100)
