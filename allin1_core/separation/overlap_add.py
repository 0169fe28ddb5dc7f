"""Separation by overlap-add: a mix in overlapping segments through Demucs' networks, in batches on their device.

The algorithm is Demucs' own (``apply_model`` of demucs and demucs-infer with ``shifts=1``), and so are the results. A
mix of N samples between two stretches of silence of half a second each, R samples, is read from sample s on, which is
drawn from 0 to R; so the network sees N + R - s samples, and the first R - s of what it gives are dropped. These are
cut into segments of the length that the network was trained on, one every (1 - overlap) of that. What lies around a
segment shorter than the network's input is heard as well, half of what is missing on each side. Outputs are summed with
weights that rise to the middle of a segment and fall again, and divided by the sum of the weights.

Segments do not depend on one another: together they fill a GPU, which one of them leaves idle half of the time.

The networks give spectra whose lowest bin, the mean of a frame, is not real. The inverse real transforms of a CPU
ignore its imaginary part b; what cuFFT's do is undefined. Some of them, chosen by size and number, alternately add and
subtract b, a tone at half the sample rate 30 dB below a stem. So b is made 0 first, and results are those of a CPU
everywhere.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import logging
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from allin1_core.backends.devices import products_in_tf32
from allin1_core.backends.table import module_exists
from allin1_core.errors import UnfitBackendError
from allin1_core.separation.half_attention import with_half_attention
from allin1_core.separation.onednn import with_onednn
from allin1_core.separation.tensors import as_float32

_LOG = logging.getLogger(__name__)
# More gain nothing on an H100, and indices of the largest array stay within 31 bits.
MOST_SEGMENTS = 48
# Of a GPU's free memory, which other processes want too.
_SHARE_OF_MEMORY = 0.8


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of the shifted mix: what of it is kept, and what the network hears of it.

    Attributes
    ----------
    start, length : int
        What is kept, in samples of the shifted mix.
    input_length : int
        What the network hears, around the same centre.
    """

    start: int
    length: int
    input_length: int

    @property
    def trimmed(self) -> int:
        """Samples of the network's output before what is kept."""
        return (self.input_length - self.length) // 2


def segments_of(network: Any, num_samples: int, overlap: float) -> list[Segment]:
    """The segments of a shifted mix.

    Parameters
    ----------
    network : Demucs, HDemucs or HTDemucs
    num_samples : int
        Of the shifted mix, at least 1.
    overlap : float
        From 0 up to, not including, 1: what part of a segment the next one repeats.
    """
    longest = segment_length(network)
    valid_length = getattr(network, "valid_length", lambda length: length)
    lengths = ((start, min(longest, num_samples - start)) for start in _starts(longest, num_samples, overlap))
    return [Segment(start, length, int(valid_length(length))) for start, length in lengths]


def segment_length(network: Any) -> int:
    """Samples of a whole segment."""
    return int(network.samplerate * network.segment)


def _starts(longest: int, num_samples: int, overlap: float) -> range:
    return range(0, num_samples, max(1, int((1 - overlap) * longest)))


def triangle(length: int, device: torch.device) -> Tensor:
    """Weights of a segment's samples: rising to 1 in the middle, float32 (length,)."""
    rising, falling = torch.arange(1, length // 2 + 1), torch.arange(length - length // 2, 0, -1)
    weights = torch.cat([rising, falling]).to(torch.float32)
    return (weights / weights.max()).to(device)


class OverlapAdd:
    """A separation model on its device.

    Parameters
    ----------
    model : BagOfModels, Demucs, HDemucs or HTDemucs
        As demucs-infer loads it: one network, or several whose weighted mean is taken.
    device : str
        ``cpu``, ``cuda`` or ``cuda:N``.
    precision : str
        ``exact``: float32 throughout; with Triton, factors of attention are sums of two in TF32, which leaves 2^-22 of
        a product. ``fast``: on CUDA the factors of products are rounded to the 10 bits of TF32, and those of attention
        to the 10 bits of float16.
    """

    def __init__(self, model: Any, *, device: str, precision: str) -> None:
        self.device = torch.device(device)
        self.networks: Sequence[Any] = [_with_real_means(one) for one in getattr(model, "models", [model])]
        weights = getattr(model, "weights", None) or [[1.0] * len(model.sources)] * len(self.networks)
        self._weights = torch.tensor(weights, device=self.device)
        self._tf32 = precision == "fast" and self.device.type == "cuda"
        self._bytes_of_segment: dict[int, int] = {}
        for network in self.networks:
            network.to(self.device).eval()
        if self.device.type == "cpu":
            self.networks = [with_onednn(network) for network in self.networks]
            return
        if self._tf32:
            self.networks = [with_half_attention(network) for network in self.networks]
        if module_exists("triton"):
            self._take_triton()

    def _take_triton(self) -> None:
        """Have Triton's kernels compute what they can; say so where they cannot be compiled here."""
        from allin1_core.separation.triton_network import check_kernels, with_triton

        try:
            check_kernels(self.device)
        except UnfitBackendError as error:
            _LOG.warning("separation: torch's layers are taken, and slower: %s", error)
        else:
            self.networks = [with_triton(network, attend=not self._tf32) for network in self.networks]

    @property
    def products(self) -> str:
        """The type that factors are rounded to before they are multiplied."""
        return "TF32, in attention float16" if self._tf32 else "float32"

    def __call__(
        self,
        mix: Tensor,
        *,
        seed: int,
        overlap: float,
        most_segments: int | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> Tensor:
        """Separate a mix.

        Parameters
        ----------
        mix : int16 or float32 (num_channels, num_samples)
            On any device, at least one sample.
        seed : int
            Of the shifts, one for each network.
        overlap : float
            See `segments_of`.
        most_segments : int, optional
            Of one batch; by default what fits the device, which differs in rounding alone.
        progress : callable, optional
            Called with the part that is done, from 0 to 1.

        Returns
        -------
        float32 (num_sources, num_channels, num_samples)
            On the model's device, or on the host if it is too long for that.
        """
        shifts = random.Random(int(seed))
        with torch.inference_mode(), self._arithmetic():
            mix = as_float32(mix.to(self.device))
            loudness = mix.mean(0)
            mean = loudness.mean()
            # Of a single sample the deviation is undefined; that of a constant is 0.
            scale = (loudness.std() if len(loudness) > 1 else torch.zeros_like(mean)) + 1e-8
            mix = (mix - mean) / scale
            total: Tensor | None = None
            for index, (network, weights) in enumerate(zip(self.networks, self._weights, strict=True)):
                most = most_segments or self._most_segments(network, mix)
                report = _part(progress, index, len(self.networks))
                shift = shifts.randint(0, network.samplerate // 2)
                output = self._shifted(network, mix, shift, overlap, most, report)
                if len(self.networks) > 1:
                    output *= weights.to(output.device)[:, None, None]
                total = output if total is None else total.add_(output)
            assert total is not None
            if len(self.networks) > 1:
                total /= self._weights.sum(0).to(total.device)[:, None, None]
            return total.mul_(scale.to(total.device)).add_(mean.to(total.device))

    def _shifted(
        self,
        network: Any,
        mix: Tensor,
        shift: int,
        overlap: float,
        most: int,
        progress: Callable[[float], None],
    ) -> Tensor:
        num_channels, num_samples = mix.shape
        most_shift = network.samplerate // 2
        length = num_samples + most_shift - shift
        segments = segments_of(network, length, overlap)
        # Silence around, so that what any segment's network hears is a slice.
        margin = max(segment.input_length for segment in segments)
        padded = mix.new_zeros(num_channels, margin + most_shift + num_samples + most_shift + margin)
        padded[:, margin + most_shift :][:, :num_samples] = mix
        before = margin + shift
        weights = triangle(segment_length(network), mix.device)
        where = self._accumulator(len(network.sources) * num_channels * length)
        output = torch.zeros(len(network.sources), num_channels, length, device=where)
        sum_of_weights = torch.zeros(length, device=where)
        done = 0
        for batch in batches(segments, most):
            starts = [before + segment.start - segment.trimmed for segment in batch]
            inputs = torch.stack([padded[:, start : start + batch[0].input_length] for start in starts])
            for segment, separated in zip(batch, _outputs(network, inputs), strict=True):
                kept = separated[..., segment.trimmed :][..., : segment.length]
                weight = weights[: segment.length]
                place = slice(segment.start, segment.start + segment.length)
                output[..., place] += (weight * kept).to(where)
                sum_of_weights[place] += weight.to(where)
            done += len(batch)
            progress(done / len(segments))
        output /= sum_of_weights
        return output[..., most_shift - shift :]

    @contextlib.contextmanager
    def _arithmetic(self) -> Iterator[None]:
        """On a GPU: products of the model's precision, on its device."""
        if self.device.type != "cuda":
            yield
            return
        with products_in_tf32(self._tf32), torch.cuda.device(self.device):
            yield

    def _free_memory(self) -> int:
        free: int = torch.cuda.mem_get_info(self.device)[0]
        cached = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        return int(_SHARE_OF_MEMORY * (free + cached))

    def _accumulator(self, values: int) -> torch.device:
        """Where a float32 sum of that many values is kept: beside the network if half of the free memory holds it."""
        if self.device.type == "cuda" and 4 * values > self._free_memory() // 2:
            return torch.device("cpu")
        return self.device

    def _most_segments(self, network: Any, mix: Tensor) -> int:
        """Segments that fit the device at a time: on a GPU by what one of them takes, which is measured once."""
        if self.device.type != "cuda":
            return 1
        if id(network) not in self._bytes_of_segment:
            silence = mix.new_zeros(
                1, len(mix), segments_of(network, segment_length(network), 0.0)[0].input_length
            )
            before = torch.cuda.memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            network(silence)
            peak = torch.cuda.max_memory_allocated(self.device)
            self._bytes_of_segment[id(network)] = max(1, peak - before)
        # Half is for the sum.
        return max(1, min(MOST_SEGMENTS, self._free_memory() // 2 // self._bytes_of_segment[id(network)]))


def _outputs(network: Any, inputs: Tensor) -> Tensor:
    """What a network makes of a batch: in halves if the memory that was free has been taken by others."""
    try:
        outputs: Tensor = network(inputs)
        return outputs
    except torch.cuda.OutOfMemoryError:
        if len(inputs) == 1:
            raise
    # Here, as the handled error holds all that the network had made.
    return torch.cat([_outputs(network, half) for half in inputs.chunk(2)])


def _with_real_means(network: Any) -> Any:
    """A network with the same weights whose spectra have a real lowest bin before they are transformed back."""
    inverse_transform = getattr(network, "_ispec", None)
    if inverse_transform is None:  # in the time domain alone
        return network

    def of_real_means(spectrum: Tensor, *arguments: Any, **keywords: Any) -> Tensor:
        spectrum[..., 0, :].imag.zero_()
        return inverse_transform(spectrum, *arguments, **keywords)

    network = copy.copy(network)
    network._ispec = of_real_means
    return network


def batches(segments: Sequence[Segment], most: int) -> Iterator[Sequence[Segment]]:
    """Consecutive segments of one input length, at most so many at a time, in parts as even as can be."""
    first = 0
    while first < len(segments):
        last = first
        while last < len(segments) and segments[last].input_length == segments[first].input_length:
            last += 1
        parts = -(-(last - first) // most)
        for part in range(parts):
            yield segments[
                first + part * (last - first) // parts : first + (part + 1) * (last - first) // parts
            ]
        first = last


def _part(progress: Callable[[float], None] | None, index: int, count: int) -> Callable[[float], None]:
    def report(done: float) -> None:
        if progress is not None:
            progress((index + done) / count)

    return report
