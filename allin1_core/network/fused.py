"""The network on a CPU in compiled kernels (`fused.h` says how they work); needs neither torch nor MLX."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from allin1_core.errors import BackendError
from allin1_core.network import _fused, neighbourhood
from allin1_core.network.configuration import Configuration, check_published_dimensions
from allin1_core.network.model import NUM_SCALARS
from allin1_core.network.packing import PackedParameters, pack
from allin1_core.network.weights import Checkpoint
from allin1_core.simd.instruction_sets import checked
from allin1_core.threads import ThreadPool

# A logarithm of a float32 is below 39. The kernels overflow beyond 1e18.
_LARGEST = 1e9


class FusedNetwork:
    """The network of one or more folds; implements `protocol.Network`.

    Results do not depend on the number of threads.
    """

    def __init__(
        self,
        checkpoints: Sequence[Checkpoint],
        *,
        device: str,
        precision: str,
        num_threads: int,
        instruction_set: str | None = None,
    ) -> None:
        # There is one device, and float32 throughout is as fast as it gets.
        del device, precision
        self._configuration = checkpoints[0].configuration
        check_published_dimensions(self._configuration, "fused")
        self._instruction_set = checked(instruction_set)
        self._folds = [pack(checkpoint.parameters, self._configuration) for checkpoint in checkpoints]
        self._num_threads = num_threads

    def as_native(self, spectrogram: Any) -> np.ndarray:
        if not isinstance(spectrogram, np.ndarray):
            device = str(getattr(spectrogram, "device", ""))
            if not hasattr(spectrogram, "__dlpack__") or device != "cpu":
                raise BackendError(
                    f"spectrogram: {type(spectrogram).__module__}.{type(spectrogram).__name__} "
                    f"{f'on {device!r}' if device else ''}; the fused backend takes numpy arrays and torch tensors on "
                    "the CPU; convert it with numpy.asarray or .cpu()"
                )
            spectrogram = np.from_dlpack(spectrogram.detach())
        # The maximum in the kernels drops NaN, and a variance beyond float32 makes zeros: output shows neither.
        if not max(-spectrogram.min(), spectrogram.max()) <= _LARGEST:
            raise ValueError(
                f"spectrogram: some values are not finite, or beyond {_LARGEST:.0e}; expected logarithms, as "
                "log_spectrogram gives of finite samples"
            )
        return np.ascontiguousarray(spectrogram)

    def logits(
        self, spectrogram: np.ndarray, return_embeddings: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        batch, instruments, frames, _ = spectrogram.shape
        num_logits = NUM_SCALARS + self._configuration.num_labels
        logits = np.zeros((batch, num_logits, frames), dtype=np.float32)
        embeddings = None
        if return_embeddings:
            shape = (batch, instruments, frames, self._configuration.num_channels, len(self._folds))
            embeddings = np.empty(shape, dtype=np.float32)
        with ThreadPool(self._num_threads, "allin1-network") as pool:
            buffers = _Buffers(self._configuration, frames, pool.num_threads)
            for track in range(batch):
                for fold in range(len(self._folds)):
                    self._run_fold(
                        fold,
                        spectrogram[track],
                        buffers,
                        pool,
                        logits[track],
                        None if embeddings is None else embeddings[track],
                    )
        logits /= len(self._folds)
        return logits, embeddings

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        probabilities = np.empty_like(logits)
        labels = logits[:, NUM_SCALARS:]
        probabilities[:, :NUM_SCALARS] = _sigmoid(logits[:, :NUM_SCALARS])
        exponentials = np.exp(labels - labels.max(axis=1, keepdims=True))
        probabilities[:, NUM_SCALARS:] = exponentials / exponentials.sum(axis=1, keepdims=True)
        return probabilities

    def synchronize(self, arrays: Sequence[np.ndarray]) -> None:
        """Nothing is pending: the call itself computed them."""

    def _run_fold(
        self,
        fold: int,
        spectrogram: np.ndarray,
        buffers: _Buffers,
        pool: ThreadPool,
        logits: np.ndarray,
        embeddings: np.ndarray | None,
    ) -> None:
        parameters = self._folds[fold]

        def run(
            name: Literal["stem", "time_layers", "instrument_layers"],
            given: np.ndarray,
            following: np.ndarray | None,
            length: int = buffers.frames,
            dilation: int = 0,
            **more: Any,
        ) -> None:
            kernel = functools.partial(
                _fused.run_pass,
                self._instruction_set,
                name,
                buffers.frames,
                length,
                dilation,
                given,
                following,
                buffers.hidden,
                buffers.keys_values,
                buffers.instrument_keys_values,
                self._configuration.layer_norm_epsilon,
                np.zeros(1, dtype=np.int64),  # the counter that hands out the tiles to the threads
                **more,
            )
            pool.map(kernel, buffers.scratch)

        run("stem", parameters.stem, parameters.keys_values[0], spectrogram=spectrogram)
        last: dict[str, Any] = {"logits": logits, "embeddings": embeddings, "fold": fold}
        following = [*parameters.keys_values[1:], parameters.heads]
        for block, dilation in enumerate(self._configuration.dilations):
            given, is_last = parameters.blocks[block], block == self._configuration.num_blocks - 1
            run("time_layers", given, None, buffers.pad(parameters, block), dilation)
            run("instrument_layers", given, following[block], **(last if is_last else {}))


class _Buffers:
    """Hidden states of a track, keys and values of time and instrument attentions, and scratch memory of threads."""

    def __init__(self, configuration: Configuration, frames: int, num_threads: int) -> None:
        self._configuration = configuration
        self.frames = frames
        longest = max(self._length(block) for block in range(configuration.num_blocks))
        # A tile may run over the end; and rows must not start at equal addresses modulo the cache's 4 kB.
        stride = (longest + 2 * _fused.SIZES["tile"] + 15) // 16 * 16
        if stride % 1024 < 64:
            stride += 64
        rows = configuration.num_instruments * configuration.num_channels
        self.hidden = _aligned((rows, stride))
        self.keys_values = _aligned((configuration.num_instruments * _fused.SIZES["key_value_rows"], stride))
        self.instrument_keys_values = _aligned((2 * rows, stride))
        self.scratch = [_aligned((_fused.SIZES["scratch"],)) for _ in range(num_threads)]

    def _length(self, block: int) -> int:
        dilation = self._configuration.dilations[block]
        return neighbourhood.padded_length(self.frames, self._configuration.kernel_size, 2 * dilation)

    def pad(self, parameters: PackedParameters, block: int) -> int:
        """Keys and values of the zeros appended to a short track; returns its length with them."""
        length = self._length(block)
        if length > self.frames:
            rows = self.keys_values.reshape(
                self._configuration.num_instruments, -1, self.keys_values.shape[1]
            )
            rows[:, :, self.frames : length] = parameters.padding[block][:, None]
        return length


def _aligned(shape: tuple[int, ...]) -> np.ndarray:
    """float32 zeros that begin at a cache line, in huge pages where the system has them: numpy asks for those in
    `empty`, not in `zeros`."""
    size = math.prod(shape)
    raw = np.empty(size + 16, dtype=np.float32)
    raw.fill(0)
    offset = -raw.ctypes.data % 64 // 4
    return raw[offset : offset + size].reshape(shape)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    exponential = np.exp(-np.abs(x))
    return np.where(x >= 0, 1.0, exponential) / (1.0 + exponential)


def neighbourhood_attention(
    queries: np.ndarray,
    keys: np.ndarray,
    values: np.ndarray,
    bias: np.ndarray,
    kernel_size: int,
    dilation: int,
    *,
    instruction_set: str | None = None,
) -> np.ndarray:
    """Neighbourhood attention by the network's own kernel, compiled for shapes that are known only at run time.

    Parameters
    ----------
    queries, keys, values, bias, kernel_size, dilation
        As of `attention.neighbourhood_attention`, in float32, and so is what is returned.
    instruction_set : str, optional
        Run the kernels of another instruction set than the best one here.

    Raises
    ------
    ValueError
        If an axis is shorter than the window, the window has more than 64 keys, or the instruction set has no
        kernels here.
    """
    is_flat = queries.ndim == 4
    instruction_set = checked(instruction_set)
    frames = queries.shape[-2]
    neighbourhood.windows(frames, kernel_size, dilation)  # refuses an axis shorter than the window
    if is_flat:
        row_windows = row_biases = np.zeros((1, 1), dtype=np.int32)
    else:
        row_windows, row_biases = neighbourhood.windows(queries.shape[2], kernel_size, dilation)
    num_keys = row_windows.shape[1] * kernel_size
    if num_keys > _fused.SIZES["max_keys"]:
        raise ValueError(
            f"kernel_size: {num_keys} keys in a window; expected at most {_fused.SIZES['max_keys']}"
        )

    def channel_major(x: np.ndarray) -> np.ndarray:
        rows = (x[:, :, None] if is_flat else x).swapaxes(-1, -2)
        slack = 2 * _fused.SIZES["tile"]  # a vector may run over the end
        return np.ascontiguousarray(np.pad(rows, [(0, 0)] * 4 + [(0, slack)]), dtype=np.float32)

    # The kernel's scores are logarithms to base 2.
    log2_e = np.log2(np.e)
    queries, keys, values = map(channel_major, (queries * log2_e, keys, values))
    tables = np.ascontiguousarray(bias * log2_e, dtype=np.float32).reshape(
        bias.shape[0], -1, 2 * kernel_size - 1
    )
    output = np.zeros_like(queries)
    for sequence, head in np.ndindex(queries.shape[:2]):
        _fused.run_attention(
            instruction_set,
            frames,
            kernel_size,
            dilation,
            queries[sequence, head],
            keys[sequence, head],
            values[sequence, head],
            tables[head],
            row_windows,
            row_biases,
            output[sequence, head],
        )
    output = np.ascontiguousarray(output[..., :frames].swapaxes(-1, -2))
    return output[:, :, 0] if is_flat else output
