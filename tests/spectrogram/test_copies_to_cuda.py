"""Copies of samples to a CUDA device, on a CPU: streams and events are imitated, and nothing is copied before it must.

What is put on the copying stream is kept until the computing stream, or the host, waits for an event that was recorded
after it. A wait that is missing gives other values, and a copy that nobody waits for is left at the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from allin1_core.spectrogram import numpy_backend

torch = pytest.importorskip("torch")

from torch.overrides import TorchFunctionMode  # noqa: E402

from allin1_core.spectrogram import torch_backend  # noqa: E402


class Cuda:
    """An imitation of `torch.cuda` with one copying stream; `log` has what waits for what."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.pending: list[tuple[Event | None, Callable[[], object]]] = []
        self.pinned_buffers = 0
        self.current = self.computing = Stream(self, "computing")
        self.events = 0

    def reach(self, event: Event) -> None:
        """Do all that was put on the copying stream before an event."""
        if any(marker is event for marker, _ in self.pending):
            marker: Event | None = None
            while marker is not event:
                marker, work = self.pending.pop(0)
                work()

    @contextlib.contextmanager
    def stream(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        with Deferred(self.pending):
            yield
        self.current = before

    def event(self) -> Event:
        self.events += 1
        return Event(self, f"{('copied', 'computed')[(self.events - 1) % 2]} {(self.events - 1) // 2}")


class Stream:
    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def wait_stream(self, other: Stream) -> None:
        self.cuda.log.append(f"{self.name} waits for {other.name}")

    def wait_event(self, event: Event) -> None:
        self.cuda.log.append(f"{self.name} waits for {event.name}")
        if self.name == "computing":
            self.cuda.reach(event)


class Event:
    def __init__(self, cuda: Cuda, name: str) -> None:
        self.cuda, self.name = cuda, name

    def record(self, stream: Stream | None = None) -> None:
        stream = stream or self.cuda.current
        self.cuda.log.append(f"{self.name} on {stream.name}")
        if stream.name == "copying":
            self.cuda.pending.append((self, lambda: None))

    def synchronize(self) -> None:
        self.cuda.log.append(f"the host waits for {self.name}")
        self.cuda.reach(self)


class Deferred(TorchFunctionMode):
    """Keeps what writes to tensors for later."""

    def __init__(self, pending: list[tuple[Event | None, Callable[[], object]]]) -> None:
        super().__init__()
        self.pending = pending

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in (torch.Tensor.copy_, torch.Tensor.zero_):
            self.pending.append((None, lambda: function(*args, **kwargs)))
            return args[0]
        return function(*args, **kwargs)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    found, empty = Cuda(), torch.empty

    def filled(*size: Any, pin_memory: bool = False, **options: Any) -> Any:
        found.pinned_buffers += pin_memory
        values = empty(*size, **options)
        return values.fill_(77)  # as memory that had other samples

    monkeypatch.setattr(torch, "empty", filled)
    monkeypatch.setattr(torch.cuda, "Event", found.event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: found.computing)
    monkeypatch.setattr(torch.cuda, "stream", found.stream)
    monkeypatch.setattr(torch_backend, "_copying_stream", lambda device: Stream(found, "copying"))
    monkeypatch.setattr(torch_backend, "_copied", torch_backend._copied_to_cuda)
    return found


def pin(monkeypatch: pytest.MonkeyPatch, pinned: bool) -> None:
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: pinned)


def noise(num_samples: int, dtype: str, num_stems: int = 3) -> npt.NDArray:
    samples = np.random.default_rng(3).integers(-32768, 32768, (num_stems, num_samples), dtype=np.int16)
    return samples if dtype == "int16" else (samples / 32768).astype(np.float32)


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "staged"])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
@pytest.mark.parametrize(
    ("num_samples", "sample_rate", "frames"),
    [
        (1, 44100, 8),
        (441, 44100, 8),
        (442, 44100, 1),
        (44100, 44100, 7),
        (44101, 44100, 8),
        (99_999, 44100, 40),
        (99_999, 44100, 300),  # a whole stem a piece
        (99_999, 44100, 500),  # two stems a piece, then one
        (99_999, 44100, 10_000),  # all together
        (22_101, 11025, 7),  # hops of 110.25 samples
        (30_011, 48000, 8),
    ],
)
def test_pieces_hold_their_samples_whatever_the_length(
    num_samples: int,
    sample_rate: int,
    frames: int,
    dtype: str,
    pinned: bool,
    cuda: Cuda,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pin(monkeypatch, pinned)
    monkeypatch.setattr(torch_backend, "CPU_FRAMES", frames)
    stems = noise(num_samples, dtype)
    output = torch_backend.in_torch(stems, sample_rate, precision="exact")
    expected = numpy_backend.log_spectrogram(stems, sample_rate, precision="exact")
    np.testing.assert_allclose(output, expected, rtol=0, atol=5e-7)
    assert not cuda.pending
    num_pieces = len(torch_backend._pieces(3, len(expected[0]), frames, sample_rate))
    assert cuda.pinned_buffers == (0 if pinned else min(2, num_pieces))


def test_an_hours_number_of_pieces(cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """88, as 360,000 frames of four stems have, each in its place."""
    pin(monkeypatch, True)
    monkeypatch.setattr(torch_backend, "CPU_FRAMES", 5)
    stems = noise(110 * 441 - 3, "int16", num_stems=4)
    output = torch_backend.in_torch(stems, 44100, precision="exact")
    assert cuda.log.count("computing waits for copied 0") == 44
    expected = numpy_backend.log_spectrogram(stems, 44100, precision="exact")
    np.testing.assert_allclose(output, expected, rtol=0, atol=5e-7)


@pytest.mark.parametrize(
    ("total", "together", "sizes"),
    [
        (1, 4, [1]),
        (10_240, 4, [10_240]),
        (10_241, 3, [10_241]),
        (20_480, 2, [20_480]),
        (20_481, 1, [20_481]),
        (61_440, 1, [30_720, 30_720]),
        (61_441, 1, [30_721, 30_720]),
        (360_000, 1, [40_000] * 9),
    ],
)
def test_sizes_of_pieces(total: int, together: int, sizes: list[int]) -> None:
    pieces = torch_backend._pieces(4, total, torch_backend.GPU_FRAMES, 44100)
    assert len(pieces) == -(-4 // together) * len(sizes)
    for first in range(0, 4, together):
        found = [piece for piece in pieces if piece.stems == slice(first, min(first + together, 4))]
        assert [piece.last - piece.first for piece in found] == sizes
        assert [piece.first for piece in found] == list(np.cumsum([0, *sizes[:-1]]))
        assert all(piece.start == 441 * piece.first - 1024 for piece in found)
        assert all(piece.stop == 441 * (piece.last - 1) + 1024 for piece in found)


OF_PINNED = [
    "copying waits for computing",
    *("copying waits for computed 0", "copied 0 on copying", "computing waits for copied 0"),
    "computed 0 on computing",
    *("copying waits for computed 1", "copied 1 on copying", "computing waits for copied 1"),
    "computed 1 on computing",
    *("copying waits for computed 0", "copied 0 on copying", "computing waits for copied 0"),
    "computed 0 on computing",
    *("the host waits for copied 0", "the host waits for copied 1"),
]


def test_streams_wait_for_each_other_and_the_host_only_at_the_end(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "CPU_FRAMES", 1)
    pin(monkeypatch, True)
    torch_backend.in_torch(noise(441, "int16"), 44100, precision="exact")
    assert cuda.log == OF_PINNED


def test_a_staging_buffer_is_used_again_when_its_copy_has_ended(
    cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_backend, "CPU_FRAMES", 1)
    pin(monkeypatch, False)
    torch_backend.in_torch(noise(441, "int16"), 44100, precision="exact")
    expected = list(OF_PINNED)
    for index, name in ((9, "copied 0"), (5, "copied 1"), (1, "copied 0")):
        expected.insert(index, f"the host waits for {name}")
    assert cuda.log == expected


@pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "staged"])
def test_no_copy_goes_on_after_an_error(pinned: bool, cuda: Cuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its memory, on the device and on the host, may by then be another's."""
    monkeypatch.setattr(torch_backend, "CPU_FRAMES", 1)
    pin(monkeypatch, pinned)

    def fail(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch_backend, "_log_bands", fail)
    with pytest.raises(torch.OutOfMemoryError):
        torch_backend.in_torch(noise(44100, "int16"), 44100, precision="exact")
    assert cuda.log[-2:] == ["the host waits for copied 0", "the host waits for copied 1"]
    assert not cuda.pending


def test_all_tracks_are_copied_on_one_stream_of_their_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch has 32 by turns, which then would all be kept."""
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: f"a stream of {device}")
    torch_backend._copying_stream.cache_clear()
    streams = [torch_backend._copying_stream(torch.device(name)) for name in ("cuda:0", "cuda:1", "cuda:0")]
    torch_backend._copying_stream.cache_clear()
    assert streams == ["a stream of cuda:0", "a stream of cuda:1", "a stream of cuda:0"]
    assert streams[0] is streams[2]


def test_products_are_not_in_tf32_whatever_the_caller_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_backend, "CPU_FRAMES", 1)
    matmul, log_bands = torch.backends.cuda.matmul, torch_backend._log_bands
    before = matmul.allow_tf32
    seen: list[bool] = []

    def watched(*arguments: Any) -> None:
        seen.append(matmul.allow_tf32)
        log_bands(*arguments)

    monkeypatch.setattr(torch_backend, "_log_bands", watched)
    try:
        matmul.allow_tf32 = True
        torch_backend.in_torch(noise(441, "int16"), 44100, precision="exact")
        assert seen == [False] * 3
        assert matmul.allow_tf32
    finally:
        matmul.allow_tf32 = before


def test_on_cuda_fast_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what cuFFT gives in float32, one value of a track was beyond the bound."""
    seen: list[tuple[str, str]] = []

    def recorded(stems: npt.NDArray, rate: int, precision: str, device: Any) -> Any:
        seen.append((device.type, precision))
        return torch.zeros(1)

    monkeypatch.setattr(torch_backend, "_compute", recorded)
    for device in ("cuda:0", "mps", "cpu"):
        torch_backend.in_torch(noise(441, "int16"), 44100, precision="fast", device=device)
    assert seen == [("cuda", "exact"), ("mps", "fast"), ("cpu", "fast")]


def test_magnitudes_on_metal_are_those_elsewhere() -> None:
    parts = torch.from_numpy(np.random.default_rng(0).normal(0, 100, (50, 2)).astype(np.float32))
    guarded = torch_backend._magnitudes(torch.view_as_complex(parts))
    assert guarded.dtype == torch.float32
    torch.testing.assert_close(
        torch_backend._unguarded_hypot(parts[:, 0], parts[:, 1]), guarded, rtol=3e-7, atol=0
    )
