"""Who computes what a backend hands out, and on which device: decided here, and nowhere else.

A backend's arrays are of the library that it is named after; what they hold need not be computed by that library. The
spectrogram's compiled kernels (`fused`) are the quickest on a CPU and compute in ``float64``, which neither Metal nor
MLX's transform can. So on a CPU, and for ``exact`` on Metal, the backends ``torch`` and ``mlx`` put what these kernels
compute into arrays of their own. `allin1_core.backends.choose` records the decision in the `Choice`, and the modules of
those backends act on it.
"""

from __future__ import annotations

import dataclasses


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
    """Who computes what a backend hands out.

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
    kind = device.partition(":")[0]
    hold = "its arrays hold what the fused kernels compute"
    if stage == "spectrogram" and backend == "torch":
        if kind == "cpu":
            return Computation("fused", "cpu", f"on a CPU {hold}")
        if kind == "mps" and precision == "exact":
            return Computation("fused", "cpu", f"Metal has no float64: {hold} on the CPU")
    if stage == "spectrogram" and backend == "mlx":
        if precision == "exact":
            return Computation("fused", "cpu", f"MLX has no float64 transform: {hold} on the CPU")
        if not (_mlx_on_gpu() if mlx_on_gpu is None else mlx_on_gpu):
            return Computation("fused", "cpu", f"on a CPU {hold}")
    return Computation(backend, device)


def _mlx_on_gpu() -> bool:
    import mlx.core as mx

    return bool(mx.default_device().type == mx.DeviceType.gpu)
