"""The network on CUDA in Triton kernels (`triton_layout`, `triton_layers` and `triton_attention` say how they work)."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allin1_core.backends.devices import synchronize
from allin1_core.backends.triton_kernels import check_capability, unfit_where_not_compiled
from allin1_core.network import architecture, neighbourhood, triton_attention, triton_layers
from allin1_core.network.configuration import check_published_dimensions
from allin1_core.network.torch_model import TorchOperations, as_tensor
from allin1_core.network.triton_packing import Arrays, pack, split
from allin1_core.network.weights import Checkpoint

_LOG = logging.getLogger(__name__)
_NAME = "network backend 'triton'"
_TILE = 32
# Bytes that folds and tracks that run together may take between the kernels; more run one after another.
_TOGETHER = 1 << 30
# Channels of it: hidden states, queries, keys and values of both attentions, and what they attend to.
_CHANNELS_TOGETHER = 24 + 144 + 48
# Warps of a program, its frames in matrix products (of those tried on an H100 the quickest), and in attention, where
# a lane is a frame.
_WARPS, _FRAMES, _LANES = 4, 64, 128


class TritonNetwork:
    """The network of one or more folds; implements `protocol.Network`.

    Raises
    ------
    UnfitBackendError
        If the checkpoints are not of the published dimensions, a factor of a product might leave float16's range, or
        the kernels cannot be compiled for the card.
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        *,
        device: str,
        precision: str,
        num_threads: int,
    ) -> None:
        del num_threads
        self._configuration = checkpoints[0].configuration
        check_published_dimensions(self._configuration, "triton")
        self._device = torch.device(device)
        check_capability(self._device, _NAME, "use backend='torch'")
        self._exact = precision == "exact"
        folds = [pack(checkpoint.parameters, self._configuration) for checkpoint in checkpoints]
        self._num_folds = len(folds)
        self._parameters = {kernel: self._stacked([fold[kernel] for fold in folds]) for kernel in folds[0]}
        if self._device.type == "cuda":
            self._compile()

    def _compile(self) -> None:
        """Have the kernels ready before the first track comes, so that none of its time has that in it."""
        _LOG.info(
            "triton: loading the kernels, which are compiled once for each kind of card, in half a minute"
        )
        with unfit_where_not_compiled(_NAME, "provide them, or use backend='torch'"):
            self.logits(torch.zeros((1, 4, 1, 81), device=self._device), False)
            self.synchronize([])

    def _stacked(self, folds: Sequence[Arrays]) -> dict[str, Tensor]:
        """Arrays of all folds (F, ...) on the device, weights split."""
        stacked = {}
        for name in folds[0]:
            arrays = [split(fold[name]) if name == "weights" else fold[name] for fold in folds]
            stacked[name] = torch.from_numpy(np.stack(arrays)).to(self._device)
        return stacked

    def as_native(self, spectrogram: Any) -> Tensor:
        return as_tensor(spectrogram, self._device, "triton")

    def logits(self, spectrogram: Tensor, return_embeddings: bool) -> tuple[Tensor, Tensor | None]:
        # Triton launches where torch's current device is.
        on_device = (
            torch.cuda.device(self._device) if self._device.type == "cuda" else contextlib.nullcontext()
        )
        with torch.no_grad(), on_device:
            return self._logits(spectrogram, return_embeddings)

    def _logits(self, spectrogram: Tensor, return_embeddings: bool) -> tuple[Tensor, Tensor | None]:
        batch, instruments, frames, _ = spectrogram.shape
        logits = spectrogram.new_empty((batch, 3 + self._configuration.num_labels, frames))
        embeddings = None
        if return_embeddings:
            channels = self._configuration.num_channels
            embeddings = spectrogram.new_empty((batch, instruments, frames, channels, self._num_folds))
        tiles = frames // _TILE + 1
        of_a_track = instruments * tiles * _TILE * _CHANNELS_TOGETHER * 4
        together = max(1, _TOGETHER // of_a_track)
        for track in range(0, batch, together):
            tracks = slice(track, min(track + together, batch))
            tiled = _tiled(spectrogram[tracks], tiles)
            num_folds = max(1, together // (tracks.stop - track))
            for fold in range(0, self._num_folds, num_folds):
                self._run(
                    tiled,
                    frames,
                    slice(fold, min(fold + num_folds, self._num_folds)),
                    logits[tracks],
                    None if embeddings is None else embeddings[tracks],
                )
        return logits, embeddings

    def _run(
        self, tiled: Tensor, frames: int, folds: slice, logits: Tensor, embeddings: Tensor | None
    ) -> None:
        """Some folds on some tracks; their share of the mean logits is added, the first folds' written."""
        configuration = self._configuration
        num_folds, per_fold, tiles = folds.stop - folds.start, tiled.shape[0], tiled.shape[1]
        sequences = num_folds * per_fold
        # Numbers of programs: for all frames, for one frame more, and for attention.
        programs, further, attending = -(-frames // _FRAMES), frames // _FRAMES + 1, -(-frames // _LANES)
        dtype = torch.float32 if self._exact else torch.float16

        def empty(channels: int, dtype: torch.dtype) -> Tensor:
            return torch.empty((sequences, tiles, channels, _TILE), dtype=dtype, device=tiled.device)

        hidden, planes, attended = empty(24, torch.float32), empty(144, dtype), empty(48, dtype)
        lengths = {"num_frames": frames, "num_tiles": tiles}
        of_fold = {**lengths, "num_sequences": per_fold}
        options = {"num_warps": _WARPS, "enable_fp_fusion": True}
        products = {"EXACT": self._exact, "BLOCK": _FRAMES, **options}
        lanes = {"BLOCK": _LANES, **options}
        epsilon = configuration.layer_norm_epsilon

        def of(kernel: str, prefix: str = "") -> dict[str, Tensor]:
            return {f"{prefix}{name}": array[folds] for name, array in self._parameters[kernel].items()}

        def following(kernel: str | None) -> dict[str, Any]:
            """The projections that a kernel goes on with: of 24 channels each."""
            if kernel is None:
                return {"next_weights": hidden, "next_biases": hidden, "CHUNKS": 0}
            chunks = 6 if kernel.startswith("project_time") else 3
            return {**of(kernel, "next_"), "CHUNKS": chunks}

        bands = empty(5 * 24, torch.float32)
        triton_layers.stem_frequency[programs, 5, sequences](
            tiled, bands, **of("stem_frequency"), **of_fold, **products
        )
        triton_layers.stem_time[further, sequences](
            bands, hidden, planes, **of("stem_time"), **following("project_time0"), **of_fold, epsilon=epsilon,
            **products, num_stages=1,
        )  # fmt: skip
        del bands
        last = configuration.num_blocks - 1
        for index, dilation in enumerate(configuration.dilations):
            triton_attention.attend_time[attending, 4, sequences](
                planes, attended, **of(f"attend_time{index}"), **of_fold,
                length=neighbourhood.padded_length(frames, configuration.kernel_size, 2 * dilation), dilation=dilation,
                **lanes,
            )  # fmt: skip
            triton_layers.feed_forward_time[further, sequences](
                hidden, attended, planes, **of(f"feed_forward_time{index}"),
                **following(f"project_instruments{index}"), **of_fold, epsilon=epsilon, **products,
            )  # fmt: skip
            triton_attention.attend_instruments[attending, 4, sequences // 4](
                planes, attended, **of(f"attend_instruments{index}"), **of_fold,
                length=neighbourhood.padded_length(frames, configuration.instrument_kernel_size, 1), QUERIES=2, **lanes,
            )  # fmt: skip
            triton_layers.feed_forward_instruments[further, sequences](
                hidden, attended, planes, **of(f"feed_forward_instruments{index}"),
                **following(None if index == last else f"project_time{index + 1}"), **of_fold, epsilon=epsilon,
                **products,
            )  # fmt: skip
        triton_layers.heads[programs, per_fold // 4](
            hidden, logits, hidden if embeddings is None else embeddings, **of("heads"), **lengths,
            num_folds=num_folds, all_folds=self._num_folds, first_fold=folds.start,
            with_embeddings=int(embeddings is not None), epsilon=epsilon, **products,
        )  # fmt: skip

    def probabilities(self, logits: Tensor) -> Tensor:
        with torch.no_grad():
            return architecture.probabilities(TorchOperations(self._device), logits)

    def synchronize(self, arrays: Sequence[Tensor]) -> None:
        synchronize(str(self._device))


def _tiled(spectrogram: Tensor, tiles: int) -> Tensor:
    """From (tracks, instruments, frames, bands) to (sequences, tiles, bands, 32), zeros after the last frame."""
    batch, instruments, frames, bands = spectrogram.shape
    tiled = spectrogram.new_zeros((batch * instruments, tiles, bands, _TILE))
    whole = frames // _TILE * _TILE
    sequences = spectrogram.flatten(0, 1)
    tiled[:, : whole // _TILE] = sequences[:, :whole].unflatten(1, (-1, _TILE)).transpose(2, 3)
    tiled[:, -1, :, : frames - whole] = sequences[:, whole:].transpose(1, 2)
    return tiled
