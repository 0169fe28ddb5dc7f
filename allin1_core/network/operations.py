"""The array operations that the network asks of a library; `torch_model` and `mlx_model` provide them.

What the libraries' arrays have in common needs no entry here: Python's operators and slices, and the methods
`reshape`, `flatten`, `swapaxes`, `moveaxis` and `sum`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

Array = Any


class Operations(Protocol):
    """What a library provides; equal objects must be interchangeable and hashable, as what they make is cached."""

    def __hash__(self) -> int: ...

    @property
    def rows(self) -> int:
        """Rows (folds x tracks x instruments x frames) of one piece of time."""

    @property
    def image_axes(self) -> tuple[int, int]:
        """Axes of time and of channels in the images that `convolve` takes and gives: (2, 1) or (1, 3)."""

    def array(self, values: np.ndarray, /) -> Array:
        """The library's own array, on the device of the network."""

    def take(self, x: Array, index: Array, axis: int, /) -> Array:
        """Entries of an axis; an int32 index of two axes puts two in its place."""

    def concatenate(self, arrays: list[Array], axis: int, /) -> Array: ...

    def pad(self, x: Array, widths: Mapping[int, tuple[int, int]], /) -> Array:
        """Zeros before and after the entries of each axis that `widths` names."""

    def joined(
        self,
        piece: Callable[[int, int], Array],
        ranges: Sequence[tuple[int, int]],
        axis: int,
        margin: int = 0,
    ) -> Array:
        """``piece(start, stop)`` of consecutive ranges joined along an axis, with a margin of zeros at either end.

        One piece is computed after the other, so that only one of them needs memory for what it computes within.
        """

    def settled(self, x: Array, /) -> Array:
        """The same array; where a lazy library must not put off its computation any longer, computed."""

    def linear(self, rows: Array, weight: Array, bias: Array, /) -> Array:
        """(F, n, inputs), (F, outputs, inputs), (F, outputs) to (F, n, outputs)."""

    def convolve(self, images: Array, weight: Array, bias: Array, /) -> Array:
        """Convolution over time and bands without padding, maximum over three bands, ELU.

        The weight is (outputs, ...) with the other axes as those of an image.
        """

    def layer_norm(self, x: Array, weight: Array, bias: Array, epsilon: float, /) -> Array:
        """Of the last axis; `weight` and `bias` broadcast to `x`."""

    def gelu(self, x: Array, /) -> Array:
        """The exact one, by the error function."""

    def sigmoid(self, x: Array, /) -> Array: ...

    def softmax(self, x: Array, axis: int, /) -> Array: ...
