"""Oracle for the separation: ``apply_model`` of demucs-infer, as its ``Separator`` calls it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ORACLE = "demucs-infer"


def separate(
    model: Any, mix: Any, *, seed: int, overlap: float, device: str, tf32: bool | None = False
) -> Any:
    """Separate a mix, one segment after another.

    What the networks give as the lowest bin of a spectrum is not real, and cuFFT's inverse real transform, unlike those
    of a CPU, does not always ignore the imaginary part: there it is left out.

    Parameters
    ----------
    model
        As demucs-infer loads it.
    mix : float32 tensor (2, num_samples)
    seed : int
        Of the time shifts, of which each network of a bag draws one.
    overlap : float
    device : str
    tf32 : bool, optional
        Whether products on CUDA may use it; None leaves torch's defaults, which do in convolutions.

    Returns
    -------
    float32 tensor (num_sources, 2, num_samples)
        On the device.
    """
    import torch
    from demucs_infer import apply

    loudness = mix.mean(0)
    mean = loudness.mean()
    # Of a single sample torch gives NaN.
    scale = (loudness.std() if mix.shape[1] > 1 else 0 * mean) + 1e-8
    real_means = contextlib.nullcontext() if device == "cpu" else _real_means()
    with torch.inference_mode(), _tf32(tf32), _draws_of(apply, random.Random(seed)), real_means:
        output = apply.apply_model(
            model, ((mix - mean) / scale)[None].to(device), device=device, overlap=overlap
        )
    return output[0] * scale.to(device) + mean.to(device)


def separate_file(model: Any, path: Path, folder: Path) -> Path:
    """Separate an audio file into WAV files of 16 bits, as All-In-One does, and return their folder."""
    import soundfile
    import torch
    from demucs_infer.audio import save_audio

    samples, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    stems = separate(model, torch.from_numpy(samples.T.copy()), seed=0, overlap=0.25, device="cpu")
    folder.mkdir(exist_ok=True)
    for name, stem in zip(model.sources, stems, strict=True):
        save_audio(stem, folder / f"{name}.wav", sample_rate)
    return folder


@contextlib.contextmanager
def _draws_of(apply: Any, generator: random.Random) -> Iterator[None]:
    """Let the shifts come from a generator of their own: networks draw numbers, too, as often as they run."""
    apply.random = generator
    try:
        yield
    finally:
        apply.random = random


@contextlib.contextmanager
def _real_means() -> Iterator[None]:
    from demucs_infer import hdemucs, htdemucs, spec

    def inverse(z: Any, *arguments: Any, **keywords: Any) -> Any:
        z = z.clone()
        z[..., 0, :] = z[..., 0, :].real + 0j
        return spec.ispectro(z, *arguments, **keywords)

    hdemucs.ispectro = htdemucs.ispectro = inverse
    try:
        yield
    finally:
        hdemucs.ispectro = htdemucs.ispectro = spec.ispectro


@contextlib.contextmanager
def _tf32(allowed: bool | None) -> Iterator[None]:
    import torch

    matmul, convolution = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolution.allow_tf32
    if allowed is not None:
        matmul.allow_tf32 = convolution.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, convolution.allow_tf32 = before
