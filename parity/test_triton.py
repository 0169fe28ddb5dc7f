"""The Triton kernels of the network against naive float64 references, without CUDA in Triton's interpreter.

`test_network` and `test_network_random` hold the backend to its bounds where there is CUDA. The cases here are small
enough for the interpreter, which takes a second for a block of a fold: few blocks, long windows in the kernel alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from allin1_core.errors import UnfitBackendError
from allin1_core.network import Checkpoint, Configuration
from parity.agreement import compare, require_each
from parity.inputs.networks import random_checkpoint, random_spectrogram
from parity.oracles import naive_network
from parity.oracles.naive_attention import window
from parity.test_network import OUTPUTS, differences
from parity.triton_interpreter import DEVICE, language_patched_once

torch = pytest.importorskip("torch")

from allin1_core.network import triton_attention, triton_model  # noqa: E402
from allin1_core.network.triton_model import TritonNetwork  # noqa: E402

# Probabilities, and embeddings of order 3. `fast` rounds each factor to 11 bits. `exact` rounds as float32 does (in the
# interpreter 6e-7 and 3e-6 off), but a card's powers and roots are a few ULP off, and its sums are cut, not rounded.
BOUNDS = {"exact": (2e-5, 1e-4), "fast": (5e-3, 2e-2)}
DILATIONS = Configuration().dilations
FEW_BLOCKS = Configuration(num_blocks=1)
# Lanes behind the last frame compute with what the memory holds.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.fixture(autouse=True, scope="module")
def _language_patched_once() -> Iterator[None]:
    with language_patched_once():
        yield


@functools.cache
def expected(seed: int, frames: int, num_blocks: int, spectrogram: int = 0) -> dict[str, np.ndarray]:
    checkpoint = random_checkpoint(seed, Configuration(num_blocks=num_blocks))
    return naive_network.run(checkpoint.parameters, random_spectrogram(frames, spectrogram))


def run(checkpoints: list[Checkpoint], batch: np.ndarray, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """Logits (B, 13, T) and embeddings (B, 4, T, 24, F)."""
    network = TritonNetwork(checkpoints, device=DEVICE, precision=precision, num_threads=1)
    torch.use_deterministic_algorithms(True)  # fills memory that nobody wrote with NaN
    try:
        logits, embeddings = network.logits(network.as_native(batch), True)
    finally:
        torch.use_deterministic_algorithms(False)
    assert embeddings is not None
    return logits.cpu().numpy(), embeddings.cpu().numpy()


def probabilities(logits: np.ndarray) -> dict[str, np.ndarray]:
    """Of logits (13, T), by name."""
    weights = np.exp(logits[3:])
    scalars = dict(zip(OUTPUTS, 1 / (1 + np.exp(-logits[:3])), strict=False))
    return {**scalars, "label": weights / weights.sum(axis=0)}


def require(found: dict[str, np.ndarray], reference: dict[str, np.ndarray], precision: str) -> None:
    """Hold probabilities and embeddings to the bounds of a precision."""
    allowed, of_embeddings = BOUNDS[precision]
    agreements = differences(found, reference, allowed)
    agreements["embeddings"] = compare(found["embeddings"], reference["embeddings"], allowed=of_embeddings)
    require_each(agreements, precision)


@pytest.mark.parametrize(
    ("frames", "num_blocks", "precision"),
    # One frame; whole tiles; more than a program; a last block whose longer windows are longer than the track.
    [(1, 1, "exact"), (32, 1, "fast"), (70, 1, "exact"), (39, 3, "exact")],
)
def test_network(frames: int, num_blocks: int, precision: str) -> None:
    checkpoint = random_checkpoint(1, Configuration(num_blocks=num_blocks))
    logits, embeddings = run([checkpoint], random_spectrogram(frames)[None], precision)
    found = {**probabilities(logits[0]), "embeddings": embeddings[0, ..., 0]}
    require(found, expected(1, frames, num_blocks), precision)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_what_is_no_number_or_leaves_the_range_does_not_vanish(value: float) -> None:
    """No maximum on the way drops it: the decoder then refuses what comes out."""
    spectrogram = random_spectrogram(3)
    spectrogram[2, 1, 40] = value
    logits, _ = run([random_checkpoint(1, FEW_BLOCKS)], spectrogram[None], "exact")
    assert np.isnan(logits).all()


# Bytes between the kernels of four pairs of a fold and a track of at most 32 frames.
_FOUR_PAIRS = 4 * 4 * 32 * 216 * 4


def test_folds_and_tracks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three folds on two tracks, two and then one fold at a time: logits are the mean, embeddings each fold's own."""
    frames = 6
    monkeypatch.setattr(triton_model, "_TOGETHER", _FOUR_PAIRS)
    seeds = (1, 2, 3)
    batch = np.stack([random_spectrogram(frames, track) for track in range(2)])
    logits, embeddings = run([random_checkpoint(seed, FEW_BLOCKS) for seed in seeds], batch, "exact")
    for track in range(2):
        folds = [expected(seed, frames, 1, track) for seed in seeds]
        scalars = [np.mean([logit(fold[name]) for fold in folds], axis=0) for name in OUTPUTS[:3]]
        # Logarithms of probabilities are logits but for a constant of the frame.
        labels = np.mean([np.log(fold["label"].astype(np.float64)) for fold in folds], axis=0)
        mean = probabilities(np.concatenate([scalars, labels]))
        reference = {name: mean[name].astype(np.float32) for name in OUTPUTS}
        for index, fold in enumerate(folds):
            found = {**probabilities(logits[track]), "embeddings": embeddings[track, ..., index]}
            require(found, {**reference, "embeddings": fold["embeddings"]}, "exact")


def test_as_many_folds_run_together_as_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    together = []

    def recorded(self: TritonNetwork, tiled: Any, frames: int, folds: slice, *others: Any) -> None:
        together.append((folds.start, folds.stop))

    monkeypatch.setattr(TritonNetwork, "_compile", lambda self: None)  # a card runs a short track to do it
    monkeypatch.setattr(TritonNetwork, "_run", recorded)
    monkeypatch.setattr(triton_model, "_TOGETHER", _FOUR_PAIRS)
    run(
        [random_checkpoint(seed, FEW_BLOCKS) for seed in (1, 2, 3)],
        np.ones((2, 4, 6, 81), np.float32),
        "exact",
    )
    assert together == [(0, 2), (2, 3)]


def logit(probability: np.ndarray) -> np.ndarray:
    """In float64."""
    return np.log(probability.astype(np.float64)) - np.log1p(-probability.astype(np.float64))


def test_a_card_without_tensor_cores_for_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (7, 5))
    with pytest.raises(UnfitBackendError, match=r"compute capability is 7\.5; expected 8\.0 or more"):
        TritonNetwork([random_checkpoint(1, FEW_BLOCKS)], device="cuda", precision="exact", num_threads=1)


_FULL = torch.cuda.OutOfMemoryError("CUDA out of memory.")


@pytest.mark.parametrize(
    ("cause", "raised", "message"),
    [
        (RuntimeError("no compiler"), UnfitBackendError, r"\(RuntimeError: no compiler\); Triton needs"),
        (AssertionError("no libcuda"), UnfitBackendError, r"\(AssertionError: no libcuda\); Triton needs"),
        # Else `auto` would go on to plain torch, which takes more memory.
        (_FULL, torch.cuda.OutOfMemoryError, r"^CUDA out of memory\.$"),
    ],
)
def test_kernels_that_cannot_be_compiled_are_refused_with_the_cause(
    cause: Exception, raised: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise cause

    network = TritonNetwork(
        [random_checkpoint(1, FEW_BLOCKS)], device=DEVICE, precision="exact", num_threads=1
    )
    monkeypatch.setattr(network, "logits", fail)
    with pytest.raises(raised, match=message):
        network._compile()


def attention_of(planes: np.ndarray, bias: np.ndarray, num_frames: int, dilation: int) -> np.ndarray:
    """Both attentions by the kernel, one program for each head: (T, 2, 2, 12) of planes (tiles, 144, 32)."""
    on_device = torch.from_numpy(planes).to(DEVICE)
    attended = torch.full((len(planes), 48, 32), torch.nan, device=DEVICE)
    block = max(128, 1 << (num_frames - 1).bit_length()) if DEVICE == "cpu" else 128
    triton_attention.attend_time[-(-num_frames // block), 4, 1](
        on_device, attended, torch.from_numpy(bias).to(DEVICE), num_frames=num_frames, num_tiles=len(planes),
        num_sequences=4, length=max(num_frames, 10 * dilation), dilation=dilation, BLOCK=block,
    )  # fmt: skip
    return by_frame(attended.cpu().numpy())[:num_frames].reshape(num_frames, 2, 2, 12)


def by_frame(planes: np.ndarray) -> np.ndarray:
    """(tiles, channels, 32) as (frames, channels)."""
    return planes.transpose(0, 2, 1).reshape(-1, planes.shape[1])


def naive_attentions(planes: np.ndarray, bias: np.ndarray, num_frames: int, dilation: int) -> np.ndarray:
    """The same by definition; what stands after the last frame is what stands in its place everywhere behind it."""
    channels = by_frame(planes).reshape(-1, 2, 3, 2, 12).astype(np.float64)
    output = np.empty((num_frames, 2, 2, 12))
    for attention, step in enumerate((dilation, 2 * dilation)):
        table = np.array([window(at, max(num_frames, 10 * dilation), 5, step) for at in range(num_frames)])
        keys, values = (
            channels[np.minimum(table[..., 0], num_frames), attention, what] for what in (1, 2)
        )  # (T, 5, 2, 12)
        scores = np.einsum("thc,tkhc->htk", channels[:num_frames, attention, 0], keys)
        scores += bias[attention].astype(np.float64)[:, table[..., 1] + 4]
        shares = np.exp2(scores - scores.max(axis=-1, keepdims=True))
        shares /= shares.sum(axis=-1, keepdims=True)
        output[:, attention] = np.einsum("htk,tkhc->thc", shares, values)
    return output.astype(np.float32)


def attention_case(num_frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Planes (tiles, 144, 32) with one place at least behind the last frame, and biases (2, 2, 9)."""
    random = np.random.default_rng(num_frames)
    planes = random.standard_normal((num_frames // 32 + 1, 144, 32), dtype=np.float32)
    return planes, random.standard_normal((2, 2, 9), dtype=np.float32)


@pytest.mark.parametrize("dilation", DILATIONS)
@pytest.mark.parametrize("beyond", [-3, 3])
def test_attention_along_time(dilation: int, beyond: int) -> None:
    """Of every dilation, on tracks a little shorter and a little longer than the longer window."""
    num_frames = max(1, 10 * dilation + beyond * (dilation // 3 + 1))
    planes, bias = attention_case(num_frames)
    found = attention_of(planes, bias, num_frames, dilation)
    reference = naive_attentions(planes, bias, num_frames, dilation)
    compare(found, reference, allowed=5e-6).require(dilation)  # scores of order 10 have steps of 1e-6
