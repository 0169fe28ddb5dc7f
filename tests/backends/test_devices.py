"""What is done about GPUs, as far as it shows without one: their names, torch's flags, and memory that is full."""

from __future__ import annotations

import contextlib
import dataclasses
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import Analyzer, analysis, backends, byproducts
from allin1_core.backends import devices
from allin1_core.byproducts import Byproducts
from allin1_core.errors import BackendError, DeviceMemoryError
from allin1_core.separation.track import AudioFiles, Track
from allin1_core.timings.recorder import Timings, synchronize

torch = pytest.importorskip("torch")


@pytest.mark.parametrize(
    "device", ["cuda:", "cuda:x", "cuda:-1", "cuda:0:1", "cpu:0", "mps:1", "mlx:0", "tpu"]
)
def test_a_name_of_no_device_is_refused(device: str) -> None:
    with pytest.raises(
        BackendError,
        match=f"device '{device}': unknown; expected cpu, cuda, cuda:N, mps or mlx. Leave it out",
    ):
        devices.validate_device(device)


def test_a_device_of_torch_needs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = dataclasses.replace(backends.get("network", "torch"), module="no_such_module")
    monkeypatch.setattr(devices, "get", lambda *_: absent)
    with pytest.raises(BackendError, match="device 'cuda:1': needs torch; pip install"):
        devices.validate_device("cuda:1")


def test_a_card_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [devices.validate_device(device) for device in ("cuda", "cuda:0", "cuda:1")] == ["cuda"] * 3
    with pytest.raises(
        BackendError, match=r"device 'cuda:2': torch \S+ finds 2 such devices, of which cuda:0 is"
    ):
        devices.validate_device("cuda:2")


def test_the_card_that_computes_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several, not that which torch takes where none is named."""
    waited: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    choice = backends.choose("decoder")[1]
    for device in ("cuda", "cuda:1", "cpu"):
        synchronize(dataclasses.replace(choice, device=device))
    assert waited == ["cuda", "cuda:1"]


@pytest.mark.parametrize("device", ["cpu", "mps", "mlx"])
def test_arrays_that_cuda_does_not_read_are_numpys_own(device: str) -> None:
    assert devices.allocator_for(device) is np.empty


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_arrays_that_cuda_reads_are_in_pinned_memory_up_to_a_size(
    dtype: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here without CUDA; the card is the one that is current while they are made."""
    made: list[tuple[str, tuple[int, ...], bool]] = []
    current: list[str] = ["cuda:0"]
    empty = torch.empty

    @contextlib.contextmanager
    def on(device: str) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    def recorded(shape: tuple[int, ...], *, dtype: Any, pin_memory: bool) -> Any:
        made.append((current[-1], shape, pin_memory))
        return empty(shape, dtype=dtype).fill_(7)

    monkeypatch.setattr(torch.cuda, "device", on)
    monkeypatch.setattr(torch, "empty", recorded)
    monkeypatch.setattr(devices, "MOST_PINNED_BYTES", 4 * 100 * np.dtype(dtype).itemsize)
    allocate = devices.allocator_for("cuda:1")
    array = allocate((4, 100), np.dtype(dtype))
    assert (array.shape, array.dtype) == ((4, 100), np.dtype(dtype))
    assert (array == 7).all()  # which keeps torch's memory
    assert array.flags.c_contiguous
    assert array.flags.writeable
    longer = allocate((4, 101), np.dtype(dtype))
    assert (longer.shape, longer.dtype) == ((4, 101), np.dtype(dtype))
    assert made == [("cuda:1", (4, 100), True)]


def test_the_precision_of_products_is_set_and_restored_whatever_the_caller_has_set() -> None:
    """By older flags and newer ones of torch, which refuses to read the one where the other was set."""
    if not hasattr(torch.backends, "fp32_precision"):
        pytest.skip("torch before 2.9 has the older flags alone")
    script = """
import os
import sys
import torch
from allin1_core.backends.devices import products_in_tf32
def flags():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    found = [one.fp32_precision.replace("none", "ieee") for one in (matmul, cudnn.conv, cudnn.rnn)]
    try:
        return found, matmul.allow_tf32, cudnn.allow_tf32
    except RuntimeError:
        return found
for setting in (
    "pass",
    "torch.backends.cuda.matmul.allow_tf32 = True",
    "torch.backends.fp32_precision = 'tf32'",
    "torch.backends.cudnn.conv.fp32_precision = 'ieee'",
):
    if os.fork():  # each in a process of its own, for none can be taken back
        assert os.wait()[1] == 0, setting
        continue
    exec(setting)
    before = flags()
    for allowed in (False, True):
        with products_in_tf32(allowed):
            inside = str(flags())
            assert ("tf32" in inside, "ieee" in inside) == (allowed, not allowed), (allowed, inside)
        assert flags() == before, (before, flags())
    sys.exit()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_thread_does_not_change_the_precision_of_another_ones_products() -> None:
    entered, leave = threading.Event(), threading.Event()
    matmul = torch.backends.cuda.matmul
    before = matmul.allow_tf32
    seen: list[bool] = []

    def other() -> None:
        entered.set()
        with devices.products_in_tf32(True):
            seen.append(matmul.allow_tf32)

    thread = threading.Thread(target=other)
    with devices.products_in_tf32(False):
        thread.start()
        entered.wait()
        leave.wait(0.05)  # for the other to get as far as it can
        assert not matmul.allow_tf32
    thread.join()
    assert seen == [True]
    assert matmul.allow_tf32 == before


@pytest.mark.parametrize("device", [0, torch.device("cpu"), ("cpu",)])
def test_a_device_that_is_no_name_is_refused(device: Any) -> None:
    for backend in ("auto", "torch"):
        with pytest.raises(BackendError, match=r"device .*: unknown; expected cpu, cuda, cuda:N, mps or mlx"):
            backends.choose("network", backend, device=device)


FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free. Of the allocated memory 3 GiB ..."


def test_a_gpu_whose_memory_is_full_is_an_error_of_the_track(
    song: Path, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    analyzer = Analyzer(model=small_model, device="cpu")

    def fail(*_: object, **__: object) -> Any:
        raise torch.cuda.OutOfMemoryError(FULL)

    monkeypatch.setattr(type(analyzer.session.model), "__call__", fail)
    with pytest.raises(DeviceMemoryError) as caught:
        analyzer(song)
    assert str(caught.value) == (
        "song: the GPU's memory does not hold it beside what else is there (CUDA out of memory. Tried to allocate 2.00 "
        "GiB. GPU 0 has 1.00 GiB free.); end what else uses the GPU, or use another device"
    )


def test_other_errors_stay_what_they_are() -> None:
    with (
        pytest.raises(RuntimeError, match=r"^an illegal memory access$"),
        devices.memory_errors_named("song"),
    ):
        raise RuntimeError("an illegal memory access")


def test_nothing_is_checked_hashed_or_written_by_the_track_that_has_the_device(
    song: Path, small_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of stems and a spectrogram that are kept, which takes longer than a card computes."""
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    analyzer = Analyzer(model=small_model, device="cpu", nn_backend="torch", spec_backend="torch")
    session = analyzer.session
    transform = session.log_spectrogram
    held: list[tuple[str, bool]] = []

    def note(what: str, function: Any) -> Any:
        def noted(*arguments: Any, **keywords: Any) -> Any:
            held.append((what, session._device._lock.locked()))
            return function(*arguments, **keywords)

        return noted

    class OnACard:
        choice = dataclasses.replace(transform.choice, device="cuda")
        of_valid = staticmethod(note("transform", transform.of_valid))

    session.log_spectrogram = OnACard()
    monkeypatch.setattr(analysis, "validate_stems", note("check", analysis.validate_stems))
    monkeypatch.setattr(byproducts, "samples_digest", note("hash", byproducts.samples_digest))
    monkeypatch.setattr(Byproducts, "save_spectrogram", note("write", Byproducts.save_spectrogram))
    monkeypatch.setattr(type(session.model), "__call__", note("network", type(session.model).__call__))
    track = Track.of(song)
    kept = Byproducts(tmp_path / "demix", tmp_path / "spec")
    analyzer.analyze_track(track, AudioFiles(track, None), Timings(), kept=kept)
    assert held == [
        *(("hash", False), ("check", False), ("transform", True)),
        *(("write", False), ("network", True)),
    ]
    assert not session._device._lock.locked()
