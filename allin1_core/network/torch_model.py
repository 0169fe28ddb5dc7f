"""The network in plain PyTorch, for CPU, CUDA and MPS; the reference that the other backends are compared with."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from allin1_core.backends.devices import products_in_tf32, synchronize
from allin1_core.errors import BackendError
from allin1_core.network import architecture, attention
from allin1_core.network.weights import Checkpoint

# Rows (folds x tracks x instruments x frames) of one piece of time: on a CPU its widest tensor fits the cache, on
# a GPU it is about 2 GB.
_ROWS_ON_CPU = 4096
_ROWS_ON_GPU = 1 << 20
# Folds that run together: on a CPU more would only leave the cache.
_FOLDS_ON_CPU = 1


class TorchNetwork:
    """The network of one or more folds on a torch device; implements `protocol.Network`."""

    def __init__(
        self, checkpoints: Sequence[Checkpoint], *, device: str, precision: str, num_threads: int
    ) -> None:
        self._device = torch.device(device)
        self._precision = precision
        self._num_threads = num_threads
        on_cpu = self._device.type == "cpu"
        self._operations = TorchOperations(self._device, _ROWS_ON_CPU if on_cpu else _ROWS_ON_GPU)
        together = _FOLDS_ON_CPU if on_cpu else len(checkpoints)
        self._groups = [
            architecture.Folds(checkpoints[first : first + together], self._operations)
            for first in range(0, len(checkpoints), together)
        ]

    def as_native(self, spectrogram: Any) -> Tensor:
        return as_tensor(spectrogram, self._device, "torch")

    def logits(self, spectrogram: Tensor, return_embeddings: bool) -> tuple[Tensor, Tensor | None]:
        with torch.no_grad(), self._settings():
            return architecture.ensemble(self._groups, spectrogram, return_embeddings)

    def probabilities(self, logits: Tensor) -> Tensor:
        with torch.no_grad():
            return architecture.probabilities(self._operations, logits)

    def synchronize(self, arrays: Sequence[Tensor]) -> None:
        synchronize(str(self._device))

    @contextlib.contextmanager
    def _settings(self) -> Iterator[None]:
        """Set the precision of products and the number of threads, which torch keeps per process, and restore."""
        if self._device.type == "cpu":
            threads = torch.get_num_threads()
            torch.set_num_threads(self._num_threads)
            try:
                yield
            finally:
                torch.set_num_threads(threads)
            return
        with products_in_tf32(self._precision == "fast"):
            yield


def as_tensor(spectrogram: Any, device: torch.device, backend: str) -> Tensor:
    """A spectrogram as a tensor on a device, for the backend of that name.

    Raises
    ------
    BackendError
        If it is of another library than torch and numpy.
    """
    if isinstance(spectrogram, np.ndarray):
        # A copy where it is read-only, of which torch would warn.
        spectrogram = torch.from_numpy(np.require(spectrogram, requirements=("C", "W")))
    if not isinstance(spectrogram, Tensor):
        raise BackendError(
            f"spectrogram: {type(spectrogram).__module__}.{type(spectrogram).__name__}; the {backend} backend takes "
            "torch tensors and numpy arrays; convert it with numpy.asarray"
        )
    return spectrogram.to(device)


@dataclasses.dataclass(frozen=True)
class TorchOperations:
    """PyTorch's array operations on a device; implements `operations.Operations`."""

    device: torch.device
    rows: int = _ROWS_ON_CPU

    image_axes = (2, 1)

    concatenate = staticmethod(torch.cat)
    gelu = staticmethod(functional.gelu)
    sigmoid = staticmethod(torch.sigmoid)
    softmax = staticmethod(torch.softmax)

    def array(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def take(self, x: Tensor, index: Tensor, axis: int) -> Tensor:
        return x.index_select(axis, index.flatten()).unflatten(axis, index.shape)

    def pad(self, x: Tensor, widths: Mapping[int, tuple[int, int]]) -> Tensor:
        from_the_last_axis = (widths.get(axis, (0, 0)) for axis in reversed(range(x.ndim)))
        return functional.pad(x, [width for both in from_the_last_axis for width in both])

    def joined(
        self,
        piece: Callable[[int, int], Tensor],
        ranges: Sequence[tuple[int, int]],
        axis: int,
        margin: int = 0,
    ) -> Tensor:
        output: Tensor | None = None
        for start, stop in ranges:
            part = piece(start, stop)
            if output is None:
                shape = list(part.shape)
                shape[axis] = ranges[-1][1] + 2 * margin
                output = part.new_zeros(shape) if margin else part.new_empty(shape)
            output.narrow(axis, start + margin, stop - start).copy_(part)
        assert output is not None
        return output

    def settled(self, x: Tensor) -> Tensor:
        return x

    def linear(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.baddbmm(bias.unsqueeze(1), rows, weight.transpose(1, 2))

    def convolve(self, images: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return functional.elu(functional.max_pool2d(functional.conv2d(images, weight, bias), (1, 3)))

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        return torch.addcmul(bias, functional.layer_norm(x, x.shape[-1:], eps=epsilon), weight)


def neighbourhood_attention(queries: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
    """`attention.neighbourhood_attention` on torch tensors."""
    return attention.neighbourhood_attention(TorchOperations(queries.device), queries, *arguments, **keywords)
