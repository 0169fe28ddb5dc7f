"""Devices: which there are, and who computes what a backend hands out on one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from allin1_core.backends.table import Backend, built_in, get
from allin1_core.errors import BackendError, DeviceMemoryError
from allin1_core.threads import Lock

# From shape and dtype to an array whose values are to be set.
Allocator: TypeAlias = Callable[[tuple[int, ...], np.dtype], np.ndarray]

# Of one array: four stems of 12 minutes in 16 bits. torch takes up to twice as much and keeps it, and pinned memory is
# lost to all other processes.
MOST_PINNED_BYTES = 256 << 20


@dataclasses.dataclass(frozen=True)
class Computation:
    """Who computes a stage for a backend.

    Attributes
    ----------
    by : str
        Name of the backend of the same stage whose code does the arithmetic.
    on : str
        The device that it runs on, as in `Choice.device`.
    why : str
        In words, where `by` is another backend; else empty.
    """

    by: str
    on: str
    why: str = ""


def computation(
    stage: str, backend: str, device: str, precision: str, *, mlx_on_gpu: bool | None = None
) -> Computation:
    """Who computes what a backend hands out, as its row of the table declares (`Backend.hands_on`).

    Parameters
    ----------
    stage, backend : str
        As in `allin1_core.backends`.
    device : str
        The device that the backend's arrays are on.
    precision : str
        ``exact`` or ``fast``.
    mlx_on_gpu : bool, optional
        Whether MLX's default device is a GPU; by default MLX is asked, where that decides.
    """
    row = next((row for row in built_in(stage) if row.name == backend), None)
    for rule in row.hands_on if row else ():
        if rule.device == device.partition(":")[0] and precision in rule.precisions:
            on_gpu = rule.unless_on_gpu and (_mlx_on_gpu() if mlx_on_gpu is None else mlx_on_gpu)
            if not on_gpu:
                return Computation(rule.by, "cpu", rule.why)
    return Computation(backend, device)


def _mlx_on_gpu() -> bool:
    import mlx.core as mx

    return bool(mx.default_device().type == mx.DeviceType.gpu)


@functools.cache
def default_device() -> tuple[str, str]:
    """The device that ``auto`` uses here, and why: cuda, then MLX on Metal, then mps, then cpu.

    A CPU-only build of torch is recognised by its version, so that looking for a GPU does not import it.
    """
    torch = get("network", "torch")
    torch_may_have_gpu = torch.installed and not torch.version.endswith("+cpu")
    if torch_may_have_gpu:
        import torch as torch_module

        if torch_module.cuda.is_available():
            return "cuda", "torch sees a CUDA device"
    if sys.platform == "darwin" and get("network", "mlx").installed:
        import mlx.core

        if mlx.core.metal.is_available():
            return "mlx", "MLX is installed and Metal is available"
    if torch_may_have_gpu and torch_module.backends.mps.is_available():
        return "mps", "torch sees Metal (mps)"
    return "cpu", "no GPU that an installed library can use"


def device_kind(device: str) -> tuple[str, int | None]:
    """Kind and number of a device string, of a machine that may have none: ``cuda:1`` is ``cuda``, 1."""
    kind, colon, number = device.partition(":") if isinstance(device, str) else ("", "", "")
    is_number = kind == "cuda" and number.isascii() and number.isdecimal()
    if kind not in ("cpu", "cuda", "mps", "mlx") or (colon and not is_number):
        raise BackendError(
            f"device {device!r}: unknown; expected cpu, cuda, cuda:N, mps or mlx. Leave it out for the best one here"
        )
    return kind, int(number) if is_number else None


def validate_device(device: str) -> str:
    """Kind of a device string of this machine."""
    kind, number = device_kind(device)
    if kind in ("cuda", "mps"):
        torch = get("network", "torch")
        if not torch.installed:
            raise BackendError(f"device {device!r}: needs torch; pip install 'allin1-core[torch]'")
        import torch as torch_module

        present = (
            torch_module.cuda.is_available() if kind == "cuda" else torch_module.backends.mps.is_available()
        )
        if not present:
            raise BackendError(
                f"device {device!r}: torch {torch.version} finds no such device; "
                "use device='cpu' or leave it out"
            )
        if number is not None and number >= torch_module.cuda.device_count():
            raise BackendError(
                f"device {device!r}: torch {torch.version} finds {torch_module.cuda.device_count()} such devices, of "
                "which cuda:0 is the first; name one of them"
            )
    return kind


def devices_here(row: Backend) -> list[str]:
    """The kinds of device of a backend that this machine has."""
    found = []
    for device in row.devices:
        with contextlib.suppress(BackendError):
            found.append(validate_device(device))
    return found


def synchronize(device: str) -> None:
    """Wait until a CUDA device or Metal has computed what it was given; on a CPU nothing is pending."""
    if device.startswith(("cuda", "mps")):
        import torch

        wait = torch.mps.synchronize if device == "mps" else functools.partial(torch.cuda.synchronize, device)
        wait()


def allocator_for(device: str) -> Allocator:
    """What makes arrays on the host that a device will read: of numpy, and for CUDA in pinned memory.

    From pinned memory the device copies at the bus's whole rate, without the host. torch keeps what was freed for the
    next array. Arrays of more than `MOST_PINNED_BYTES` are numpy's own.
    """
    if not device.startswith("cuda"):
        return np.empty

    def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        if math.prod(shape) * dtype.itemsize > MOST_PINNED_BYTES:
            return np.empty(shape, dtype)
        import torch

        with torch.cuda.device(device):  # or CUDA would be started on the first one, too
            values = torch.empty(shape, dtype=getattr(torch, dtype.name), pin_memory=True)
        return np.asarray(values.numpy())

    return allocate


# Held while torch's precision of products is set: there is one for all threads.
_PRODUCTS = Lock()


@contextlib.contextmanager
def products_in_tf32(allowed: bool) -> Iterator[None]:
    """Set whether torch rounds the factors of products on CUDA to TF32, which it keeps per process, and restore it.

    Another thread that wants to set it waits: it may want another, and what it restores is to be the caller's.
    """
    with _PRODUCTS:
        flags, name, value = _precision_of_products(allowed)
        before = [getattr(flag, name) for flag in flags]
        try:
            for flag in flags:
                setattr(flag, name, value)
            yield
        finally:
            for flag, was in zip(flags, before, strict=True):
                setattr(flag, name, was)


def _precision_of_products(tf32: bool) -> tuple[tuple[Any, ...], str, Any]:
    """What has torch's precision of products, the attribute's name, and its value."""
    import torch

    matmul: Any = torch.backends.cuda.matmul
    cudnn: Any = torch.backends.cudnn
    try:
        _ = matmul.allow_tf32, cudnn.allow_tf32
    except RuntimeError:
        # So torch 2.9 and later refuse where the caller has set what follows, and that differs.
        return (matmul, cudnn.conv, cudnn.rnn), "fp32_precision", "tf32" if tf32 else "ieee"
    return (matmul, cudnn), "allow_tf32", tf32


@contextlib.contextmanager
def memory_errors_named(what: str) -> Iterator[None]:
    """Raise `DeviceMemoryError` where torch says that a GPU's memory is full."""
    try:
        yield
    except RuntimeError as error:
        torch = sys.modules.get("torch")
        if torch is None or not isinstance(error, torch.cuda.OutOfMemoryError):
            raise
        found = str(error).partition(" Of the allocated")[0]
        raise DeviceMemoryError(
            f"{what}: the GPU's memory does not hold it beside what else is there ({found.strip()}); end what else "
            "uses the GPU, or use another device"
        ) from error


def to_host(array: Any) -> np.ndarray:
    """A numpy array of an array of numpy, torch or MLX; shares memory where it can."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
    return np.asarray(array)
