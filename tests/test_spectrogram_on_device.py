"""What torch and MLX compute on a GPU, run on the CPU: arithmetic is the library's own, from samples to bands."""

from __future__ import annotations

import numpy as np
import pytest

from allin1_core.spectrogram import log_spectrogram
from allin1_core.spectrogram.bounds import declared_bound
from bench.tracks import default_track


@pytest.fixture(scope="module", params=["int16", "float32"])
def stems(request: pytest.FixtureRequest) -> np.ndarray:
    samples = default_track().lasting(10).stems
    return samples if request.param == "int16" else (samples / 32768.0).astype(np.float32)


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("sample_rate", [44100, 22050])
def test_torch(stems: np.ndarray, precision: str, sample_rate: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch_backend = pytest.importorskip("allin1_core.spectrogram.torch_backend")
    expected = log_spectrogram(stems, sample_rate, backend="numpy")
    monkeypatch.setattr(torch_backend, "_magnitudes_in_kernels", torch_backend._magnitudes)
    monkeypatch.setattr(torch_backend, "PASS_FRAMES", 1000)
    found = log_spectrogram(stems, sample_rate, backend="torch", device="cpu", precision=precision)
    assert np.abs(found - expected).max() <= declared_bound("torch", precision).music


@pytest.mark.parametrize("sample_rate", [44100, 22050])
def test_mlx(stems: np.ndarray, sample_rate: int) -> None:
    mlx_backend = pytest.importorskip("allin1_core.spectrogram.mlx_backend")
    expected = log_spectrogram(stems, sample_rate, backend="numpy")
    found = np.array(mlx_backend._on_device(stems, sample_rate, expected.shape[1]))
    assert np.abs(found - expected).max() <= declared_bound("mlx", "fast").music
