"""Choice of backends: which implementation of a stage runs, why, and what is recorded about it.

A *stage* (spectrogram, network, decoder, ...) has one or more *backends*. A backend is a row of `table`: a name, the
object that implements the stage's protocol, the library it needs, the devices it can use, the bounds it declares, and
where another backend computes what it hands out. Everything that lists backends reads that table, and it alone asks
which library is installed. `choose` turns a request into a `Choice`, which travels with the result into the
provenance, the timings and the reports.

An explicit name is obeyed or refused with a :class:`~allin1_core.errors.BackendError`, never replaced: the module of
that name runs and hands out arrays of its library, or nothing does. Whose code does the arithmetic is another question.
The spectrogram's ``torch`` and ``mlx`` leave it to the compiled kernels on a CPU; their rows say so, and the choice
records it as `computed_by`, `computed_on` and `instruction_set`, and says why in `reason`.
``auto`` goes down the stage's order of preference for the device and says in `Choice.reason` why it stopped there.
Other distributions add backends through the entry point group ``allin1_core.<stage>`` or, for one call, by the
form ``module:function``; ``auto`` never picks those.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from allin1_core.backends.devices import computation, default_device, validate_device
from allin1_core.backends.table import PRECISIONS, Backend, Bound, backends, built_in, get, names, stages
from allin1_core.errors import BackendError

__all__ = [
    "PRECISIONS",
    "RECORDED",
    "Backend",
    "Bound",
    "Choice",
    "backends",
    "built_in",
    "check_precision",
    "choose",
    "choose_after",
    "choose_beside",
    "default_device",
    "get",
    "names",
    "stages",
]

# Of a `Choice`, beside its stage, in provenance, timings and reports.
RECORDED = (
    *("backend", "device", "precision", "library", "library_version", "requested_backend"),
    *("requested_device", "reason", "computed_by", "computed_on", "instruction_set"),
)


@dataclasses.dataclass(frozen=True)
class Choice:
    """What ran and why, as facts; `as_dict` goes into provenance, timings and reports as it stands.

    Attributes
    ----------
    stage, backend, device, precision : str
        The module that ran, and the device that its arrays are on.
    library, library_version : str
        The distribution that the backend needs.
    requested_backend, requested_device : str
        What the caller asked for; ``auto`` where nothing.
    computed_by, computed_on : str
        The backend whose code did the arithmetic, and the device that it ran on: those above, or another's
        (`Backend.hands_on`).
    instruction_set : str or None
        The version of the compiled kernels that ran (``AVX-512``); None where what computed is not compiled here.
    device_wanted : str
        The device that a backend was looked for, which `device` is not where the stage has none for it.
    device_because : str
        Why that device, in words; empty where it was asked for.
    passed_over : tuple of str
        Why ``auto`` did not take the backends that it would have preferred, in words.
    computed_because : str
        Why another backend computed, in words; else empty.
    """

    stage: str
    backend: str
    device: str
    precision: str
    library: str
    library_version: str
    requested_backend: str
    requested_device: str
    computed_by: str
    computed_on: str
    instruction_set: str | None
    device_wanted: str
    device_because: str = ""
    passed_over: tuple[str, ...] = ()
    computed_because: str = ""

    @property
    def reason(self) -> str:
        """Why this backend, in a sentence made of the facts."""
        because = self.device_because
        if self.requested_backend == "auto":
            kind, wanted = (device.partition(":")[0] for device in (self.device, self.device_wanted))
            because = because or f"device {self.device_wanted!r} was asked for"
            text = f"auto: {because}; {self.backend} is the first choice for {kind}"
            if self.passed_over:
                text += f" ({', '.join(self.passed_over)})"
            if kind != wanted:
                text += f"; {self.stage} has no backend for {wanted}"
        elif because:
            text = f"backend {self.requested_backend!r} was asked for; {because}"
        else:
            text = f"backend {self.requested_backend!r} and device {self.device!r} were asked for"
        return f"{text}; {self.computed_because}" if self.computed_because else text

    def as_dict(self) -> dict[str, str | None]:
        """What is recorded, as a JSON-ready mapping."""
        return {name: getattr(self, name) for name in ("stage", *RECORDED)}

    @property
    def hands_on(self) -> bool:
        """Whether the backend's arrays hold what another backend computed."""
        return self.computed_by != self.backend

    def __str__(self) -> str:
        computed = f" (computed by {self.computed_by} on {self.computed_on})" if self.hands_on else ""
        return f"{self.backend} on {self.device}{computed}"


def choose(
    stage: str, backend: str = "auto", *, device: str | None = None, precision: str = "exact"
) -> tuple[Backend, Choice]:
    """Decide which backend runs a stage.

    Parameters
    ----------
    stage : str
        One of `stages`.
    backend : str
        ``auto``, a name from `backends`, or ``module:function``.
    device : str, optional
        ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``mlx``; by default the backend's own best device.
    precision : str
        ``exact`` or ``fast``; recorded as it is.

    Returns
    -------
    Backend, Choice
        The implementation (not yet imported) and the record of the decision.

    Raises
    ------
    BackendError
        If stage, backend, device or precision is unknown, if the backend is not installed, or if it cannot use
        the device.
    """
    check_precision(precision)
    return _choose(stage, backend, device, precision, {})


def check_precision(precision: str) -> None:
    """Raise `BackendError` unless there is such a precision."""
    if precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r}: unknown; expected one of {', '.join(PRECISIONS)}")


def choose_after(choice: Choice, why: str) -> tuple[Backend, Choice]:
    """What ``auto`` decides where the backend that it chose refuses what it is to compute, and why, as it says."""
    device = None if choice.requested_device == "auto" else choice.requested_device
    return _choose(choice.stage, "auto", device, choice.precision, {choice.backend: why})


def _choose(
    stage: str, backend: str, device: str | None, precision: str, refused: Mapping[str, str]
) -> tuple[Backend, Choice]:
    if backend == "auto":
        chosen, on, wanted, because, passed_over = _choose_automatically(stage, device, refused)
    else:
        chosen, on, because = _choose_by_name(stage, backend, device)
        wanted, passed_over = on, ()
    computed = computation(stage, chosen.name, on, precision)
    return chosen, Choice(
        stage=stage,
        backend=chosen.name,
        device=on,
        precision=precision,
        library=chosen.distribution,
        library_version=chosen.version,
        requested_backend=backend,
        requested_device=device or "auto",
        computed_by=computed.by,
        computed_on=computed.on,
        instruction_set=(chosen if computed.by == chosen.name else get(stage, computed.by)).instruction_set,
        device_wanted=wanted,
        device_because=because,
        passed_over=passed_over,
        computed_because=computed.why,
    )


def choose_beside(
    network: Choice, stage: str, backend: str = "auto", *, precision: str = "exact"
) -> tuple[Backend, Choice]:
    """Decide which backend runs a stage of the analysis whose network is decided, as `choose` does.

    It runs on the network's device where it can; a backend asked for by name that cannot takes its own best one. The
    choice says what the caller asked for, which is the network's `requested_device`.
    """
    device: str | None = network.device
    if backend != "auto" and network.device.partition(":")[0] not in get(stage, backend).devices:
        device = None
    chosen, choice = choose(stage, backend, device=device, precision=precision)
    if device is not None and device != network.requested_device:
        choice = dataclasses.replace(choice, device_because=f"the network runs on {device}")
    return chosen, dataclasses.replace(choice, requested_device=network.requested_device)


def _choose_by_name(stage: str, name: str, device: str | None) -> tuple[Backend, str, str]:
    """The backend, its device, and why that one, which is empty where it was asked for."""
    chosen = get(stage, name)
    if not chosen.installed:
        raise BackendError(chosen.how_to_install)
    if device is None:
        default, _ = default_device()
        device = default if default in chosen.devices else chosen.devices[0]
        validate_device(device)
        return chosen, device, f"{device} is its best device here"
    if validate_device(device) not in chosen.devices:
        raise BackendError(
            f"{stage} backend {name!r} cannot use device {device!r}; it runs on {', '.join(chosen.devices)}"
        )
    return chosen, device, ""


def _choose_automatically(
    stage: str, device: str | None, refused: Mapping[str, str]
) -> tuple[Backend, str, str, str, tuple[str, ...]]:
    """The backend, its device, the device it was looked for, why that one, and what was passed over."""
    device, because = default_device() if device is None else (device, "")
    kind = validate_device(device)
    passed_over: list[str] = []
    # A stage without an implementation for the device runs on the host, and the reason says so.
    for wanted in (kind, "cpu"):
        for candidate in built_in(stage):
            if wanted not in candidate.devices:
                continue
            if candidate.name in refused:
                passed_over.append(refused[candidate.name])
            elif candidate.installed:
                return candidate, device if wanted == kind else "cpu", device, because, tuple(passed_over)
            else:
                passed_over.append(f"{candidate.name} is not installed")
    fitting = [row.remedy for row in built_in(stage) if row.installable and {kind, "cpu"} & {*row.devices}]
    raise BackendError(
        f"{stage}: no backend is installed for device {device!r}; {', or '.join(dict.fromkeys(fitting))}"
    )
