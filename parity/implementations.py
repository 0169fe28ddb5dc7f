"""The list of implementations that are compared, read from the table of backends.

Every case of parity, and every benchmark, is parametrized over the functions below. With
``make parity BACKEND=module:function STAGE=...`` (``--backend``, ``--backend-stage``) they give that implementation
alone, and every test that does not run it is deselected.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from allin1_core import AnalysisResult, backends
from allin1_core.backends.devices import computation, devices_here

STAGES = ("spectrogram", "network", "decoder", "structure")

_requested: dict[str, str] = {}


def request(stage: str, backend: str) -> None:
    """Run the cases of a stage against this backend only (``module:function``, or a name that an entry point gives).

    Raises
    ------
    ValueError
        If the stage has no cases for others.
    """
    if stage not in STAGES:
        raise ValueError(
            f"stage {stage!r}: no cases for other implementations; expected one of {', '.join(STAGES)}"
        )
    _requested.clear()
    _requested[stage] = backend


def requested(stage: str) -> str | None:
    """The backend that `--backend` names for this stage; None in a run of our own."""
    return _requested.get(stage)


def any_requested() -> str | None:
    """The backend that `--backend` names, for whichever stage; None in a run of our own."""
    return next(iter(_requested.values()), None)


def names(stage: str) -> list[str]:
    """Backends to compare: ours that are installed and have a device here, or the one that ``--backend`` names."""
    named = requested(stage)
    if named:
        return [named]
    return [row.name for row in backends.built_in(stage) if row.installed and devices_here(row)]


def ours(stage: str) -> list[str]:
    """As `names`, for cases of what an implementation of others need not have: none with ``--backend``."""
    return [] if any_requested() else names(stage)


def cpu_device(stage: str, backend: str) -> str:
    """Where a backend runs without a GPU: the CPU, or MLX's own device; of one that needs a GPU, that."""
    row = next((row for row in backends.built_in(stage) if row.name == backend), None)
    return row.devices[0] if row is not None else "cpu"


def native(stage: str, backend: str, values: np.ndarray, device: str = "cpu") -> Any:
    """An array of the library that a backend takes and gives, on the CPU or another device of torch's."""
    arrays = backends.get(stage, backend).arrays
    if arrays == "torch":
        import torch

        return torch.from_numpy(values).to(device)
    if arrays == "mlx":
        import mlx.core as mx

        return mx.array(values)
    return values


@dataclasses.dataclass(frozen=True)
class Implementation:
    """A backend with its precision, its device where it has several, and the bound it declares for the spectrogram."""

    backend: str
    precision: str
    device: str | None = None

    def __str__(self) -> str:
        return "-".join(part for part in (self.backend, self.precision, self.device) if part)

    def on(self, stage: str) -> str:
        """The device that it runs on."""
        return self.device or cpu_device(stage, self.backend)

    @property
    def bound(self) -> backends.Bound:
        return backends.get("spectrogram", self.backend).bounds[self.precision]


def implementations(stage: str) -> list[Implementation]:
    """What a stage's cases run against: each backend on each of its devices here, in each precision."""
    return [
        Implementation(name, precision, device)
        for name in names(stage)
        for device in _devices(backends.get(stage, name))
        for precision in backends.PRECISIONS
    ]


def network_backends() -> list[Implementation]:
    """What the network's cases run against; `fast` on CUDA alone, as elsewhere it is `exact`."""
    return [
        one for one in implementations("network") if one.precision == "exact" or one.on("network") == "cuda"
    ]


def _devices(row: backends.Backend) -> list[str | None]:
    """As `devices_here`; None for a backend's only one."""
    here = devices_here(row)
    return [None] if here == list(row.devices) and len(here) == 1 else list(here)


# What torch and MLX compute on a GPU; on a CPU, where their backends take the fused kernels, by this name alone.
OWN_OPERATIONS = {
    row.name: row.own_operations for row in backends.built_in("spectrogram") if row.own_operations
}


def label(backend: str, computed_by: str | None = None) -> str:
    """A backend in a report, so that what another computed does not pass for a proof of its own.

    Parameters
    ----------
    backend : str
        As in `Choice`.
    computed_by : str, optional
        As in `Choice`; by default the backend itself.
    """
    for library, target in OWN_OPERATIONS.items():
        if backend == target:
            return f"{library}, its own operations"
    return backend if computed_by in (None, backend) else f"{backend} (computed by {computed_by})"


def own_operations() -> list[Implementation]:
    """What runs on a GPU, run on the CPU, in the precisions that the GPU has."""
    return [
        Implementation(row.own_operations, precision)
        for row in backends.built_in("spectrogram")
        if row.own_operations and row.name in ours("spectrogram")
        for precision in backends.PRECISIONS
        if any(
            computation("spectrogram", row.name, device, precision, mlx_on_gpu=True).by == row.name
            for device in row.devices
        )
    ]


def rounds_products(result: AnalysisResult) -> bool:
    """Whether the network of a result rounds the factors of its products, by the bound that it declares."""
    choice = result.provenance["stages"]["nn"]
    if choice["precision"] == "exact":
        return False
    bounds = backends.get("network", choice["backend"]).bounds
    return bounds[choice["precision"]].music > bounds["exact"].music
