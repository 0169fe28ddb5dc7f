"""The log spectrogram without its oracle: bad input, shapes, determinism, threads, native arrays, memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.errors import AudioError, BackendError
from allin1_core.spectrogram import (
    LogSpectrogram,
    log_spectrogram,
    num_bands,
    num_frames,
    select,
)
from allin1_core.spectrogram.decimation import twiddles
from allin1_core.spectrogram.filterbank import filterbank, window
from parity.implementations import names

INSTALLED = names("spectrogram")


def noise(*shape: int, dtype: str = "int16", seed: int = 0) -> np.ndarray:
    samples = np.random.default_rng(seed).integers(-20000, 20000, shape, dtype=np.int16)
    return samples if dtype == "int16" else (samples / 32768).astype(np.float32)


@pytest.mark.parametrize("precision", backends.PRECISIONS)
@pytest.mark.parametrize("backend", INSTALLED)
@pytest.mark.parametrize(
    ("shape", "expected"), [((4, 0), (4, 0, 81)), ((0,), (0, 81)), ((0, 500), (0, 2, 81))], ids=str
)
def test_nothing_to_hear(
    shape: tuple[int, ...], expected: tuple[int, ...], backend: str, precision: str
) -> None:
    for dtype in (np.int16, np.float32):
        output = log_spectrogram(np.zeros(shape, dtype), backend=backend, precision=precision)
        assert output.shape == expected
        assert output.dtype == np.float32


@pytest.mark.parametrize("backend", INSTALLED)
def test_memory_layout_does_not_matter(backend: str) -> None:
    stems = noise(4, 8000)
    expected = log_spectrogram(stems, backend=backend)
    read_only = stems.copy()
    read_only.setflags(write=False)
    interleaved = np.ascontiguousarray(stems.T).T
    swapped = stems.astype(">i2")
    for variant in (read_only, interleaved, swapped, np.asfortranarray(stems)):
        np.testing.assert_array_equal(log_spectrogram(variant, backend=backend), expected)


def test_torch_hands_back_its_tensor() -> None:
    torch = pytest.importorskip("torch")
    native = log_spectrogram(noise(2, 5000), backend="torch", return_native=True)
    assert isinstance(native, torch.Tensor)
    assert native.dtype == torch.float32
    np.testing.assert_array_equal(native.numpy(), log_spectrogram(noise(2, 5000), backend="torch"))
    assert tuple(log_spectrogram(noise(500), backend="torch", return_native=True).shape) == (2, 81)


def test_mlx_hands_back_its_array() -> None:
    mx = pytest.importorskip("mlx.core")
    native = log_spectrogram(noise(2, 5000), backend="mlx", return_native=True)
    assert isinstance(native, mx.array)
    assert native.dtype == mx.float32
    np.testing.assert_array_equal(np.array(native), log_spectrogram(noise(2, 5000), backend="mlx"))


@pytest.mark.parametrize("backend", ["fused", "numpy"])
def test_arrays_of_numpy_are_handed_back(backend: str) -> None:
    assert isinstance(log_spectrogram(noise(500), backend=backend, return_native=True), np.ndarray)


@pytest.mark.parametrize("dtype", [np.float64, np.int32, np.uint8, np.complex64, bool])
def test_other_types_are_refused(dtype: type) -> None:
    with pytest.raises(AudioError, match=r"stems: dtype .*expected int16, or float32"):
        log_spectrogram(np.zeros((4, 1000), dtype), backend="numpy")


@pytest.mark.parametrize("shape", [(), (1, 2, 1000)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(AudioError, match=r"stems: found shape .*expected \(num_stems, num_samples\)"):
        log_spectrogram(np.zeros(shape, np.int16), backend="numpy")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 1_500_000, 1_999_999])
def test_a_sample_that_is_not_finite_is_named(position: int, value: float) -> None:
    stems = np.zeros((2, 2_000_000), np.float32)
    stems[1, position] = value
    with pytest.raises(
        AudioError, match=rf"stems\[1\]: 1 samples are NaN or infinite, .* sample {position};"
    ):
        log_spectrogram(stems, backend="numpy")
    with pytest.raises(AudioError, match=rf"stems: 1 samples are NaN or infinite, .* sample {position};"):
        log_spectrogram(stems[1], backend="numpy")


@pytest.mark.parametrize("sample_rate", [0, -44100, 99, 44100.5, "44100", None, True, float("nan")])
def test_other_sample_rates_are_refused(sample_rate: object) -> None:
    with pytest.raises(AudioError, match=r"sample_rate: found"):
        log_spectrogram(noise(1000), sample_rate, backend="numpy")  # type: ignore[arg-type]


@pytest.mark.parametrize("sample_rate", [100_000_000, 10**9])
def test_a_sample_rate_without_bands_is_refused(sample_rate: int) -> None:
    with pytest.raises(AudioError, match=r"leaves no band .*resample to 44100 Hz"):
        log_spectrogram(noise(1000), sample_rate, backend="numpy")


def test_whole_sample_rates_of_any_type_are_taken() -> None:
    expected = log_spectrogram(noise(3000), 48000, backend="numpy")
    for sample_rate in (48000.0, np.int64(48000), np.float64(48000)):
        np.testing.assert_array_equal(log_spectrogram(noise(3000), sample_rate, backend="numpy"), expected)


def test_unknown_backend_and_precision_are_refused() -> None:
    with pytest.raises(BackendError, match="jax"):
        log_spectrogram(noise(500), backend="jax")
    with pytest.raises(BackendError, match="sloppy"):
        log_spectrogram(noise(500), backend="numpy", precision="sloppy")


def test_a_choice_says_what_runs_and_why() -> None:
    compute = select("numpy", precision="fast")
    assert isinstance(compute, LogSpectrogram)
    assert (compute.choice.stage, compute.choice.backend) == ("spectrogram", "numpy")
    assert (compute.choice.device, compute.choice.precision) == ("cpu", "fast")
    assert "numpy" in compute.choice.reason
    np.testing.assert_array_equal(
        compute(noise(5000)), log_spectrogram(noise(5000), backend="numpy", precision="fast")
    )


def test_a_function_by_name_is_a_backend() -> None:
    target = "allin1_core.spectrogram.numpy_backend:log_spectrogram"
    np.testing.assert_array_equal(
        log_spectrogram(noise(5000), backend=target), log_spectrogram(noise(5000), backend="numpy")
    )


def test_constants_are_computed_once_and_cannot_be_changed() -> None:
    for constant in (window("int16"), window("float32", "fast"), filterbank(44100), twiddles()):
        assert not constant.flags.writeable
    assert window("int16") is window("int16")
    assert filterbank(44100) is filterbank(44100)


def test_number_of_frames_and_bands() -> None:
    assert [num_frames(length) for length in (0, 1, 441, 442, 44100)] == [0, 1, 1, 2, 100]
    assert num_frames(11025, 11025) == 100
    assert num_bands(44100) == 81


def test_the_product_is_cut_only_beyond_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from allin1_core.spectrogram import numpy_backend

    products, dot = [], np.dot
    monkeypatch.setattr(np, "dot", lambda a, b, out: products.append(len(a)) or dot(a, b, out=out))
    stems = noise(2, 441 * 500)
    whole = log_spectrogram(stems, backend="numpy")
    assert products == [500, 500]
    monkeypatch.setattr(numpy_backend, "PRODUCT_FRAMES", 150)
    cut = log_spectrogram(stems, backend="numpy")
    assert products[2:] == [125] * 8
    assert np.abs(cut - whole).max() <= backends.get("spectrogram", "numpy").bounds["exact"].longer


def test_spectrogram_of_stems_and_of_a_file(
    song: Path, stems: np.ndarray, tmp_path: Path, command: Callable[..., tuple[int, str, str]]
) -> None:
    status, text, _ = command("spectrogram", song, "-o", tmp_path / "s.npy", "--backend", "numpy")
    assert status == 0
    assert "float32 (4, 500, 81), numpy on cpu" in text
    expected = log_spectrogram(stems, backend="numpy")
    np.testing.assert_array_equal(np.load(tmp_path / "s.npy"), expected)
    options = ["-o", tmp_path / "d.npy", "--json", "--backend", "numpy"]
    status, report, _ = command("spectrogram", song / "drums.wav", *options)
    assert status == 0
    assert json.loads(report)["shape"] == [500, 81]
    np.testing.assert_array_equal(np.load(tmp_path / "d.npy"), expected[1])
