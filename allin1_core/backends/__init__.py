"""Which implementation runs, why, and what is recorded about it.

A *stage* (spectrogram, network, decoder, ...) has one or more *backends*. A backend is a row in the table
below: a name, the module that implements the stage's protocol, the library it needs, and the devices it can
use. This is the only file that asks which library is installed. `choose` turns a request into a `Choice`, which
travels with the result into the provenance, the timings and the reports.

An explicit name is obeyed or refused with a :class:`~allin1_core.errors.BackendError`, never replaced: the module of
that name runs and hands out arrays of its library, or nothing does. Whose code does the arithmetic is another question.
The spectrogram's ``torch`` and ``mlx`` leave it to the compiled kernels on a CPU; `allin1_core.backends.devices`
decides so, and the choice records it as `computed_by`, `computed_on` and `instruction_set`, and says why in `reason`.
``auto`` goes down the stage's order of preference for the device and says in `Choice.reason` why it stopped there.
Other distributions add backends through the entry point group ``allin1_core.<stage>`` or, for one call, by the
form ``module:function``; ``auto`` never picks those.
"""

from __future__ import annotations

from allin1_core.backends.devices import _validate_device, computation, default_device
from allin1_core.backends.table import (
    PRECISIONS,
    Backend,
    Choice,
    _built_in,
    _how_to_install,
    backends,
    built_in,
    get,
    names,
    stages,
)
from allin1_core.errors import BackendError

__all__ = [
    "PRECISIONS",
    "Backend",
    "Choice",
    "backends",
    "built_in",
    "choose",
    "default_device",
    "get",
    "names",
    "stages",
]


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
    if precision not in PRECISIONS:
        raise BackendError(f"precision {precision!r}: unknown; expected one of {', '.join(PRECISIONS)}")
    requested_device = device or "auto"
    if backend == "auto":
        chosen, device, reason = _choose_automatically(stage, device)
    else:
        chosen, device, reason = _choose_by_name(stage, backend, device)
    computed = computation(stage, chosen.name, device, precision)
    return chosen, Choice(
        stage=stage,
        backend=chosen.name,
        device=device,
        precision=precision,
        library=chosen.distribution,
        library_version=chosen.version,
        requested_backend=backend,
        requested_device=requested_device,
        reason=f"{reason}; {computed.why}" if computed.why else reason,
        computed_by=computed.by,
        computed_on=computed.on,
        instruction_set=(chosen if computed.by == chosen.name else get(stage, computed.by)).instruction_set,
    )


def _choose_by_name(stage: str, name: str, device: str | None) -> tuple[Backend, str, str]:
    chosen = get(stage, name)
    if not chosen.installed:
        raise BackendError(_how_to_install(chosen))
    if device is None:
        default, _ = default_device()
        device = default if default in chosen.devices else chosen.devices[0]
        return chosen, device, f"backend {name!r} was asked for; {device} is its best device here"
    if _validate_device(device) not in chosen.devices:
        raise BackendError(
            f"{stage} backend {name!r} cannot use device {device!r}; it runs on {', '.join(chosen.devices)}"
        )
    return chosen, device, f"backend {name!r} and device {device!r} were asked for"


def _choose_automatically(stage: str, device: str | None) -> tuple[Backend, str, str]:
    if device is None:
        device, why = default_device()
    else:
        why = f"device {device!r} was asked for"
    kind = _validate_device(device)
    passed_over: list[str] = []
    # A stage without an implementation for the device runs on the host, and the reason says so.
    for wanted in (kind, "cpu"):
        for candidate in _built_in(stage).values():
            if wanted not in candidate.devices:
                continue
            if not candidate.installed:
                passed_over.append(f"{candidate.name} is not installed")
                continue
            reason = f"auto: {why}; {candidate.name} is the first choice for {wanted}"
            if passed_over:
                reason += f" ({', '.join(passed_over)})"
            if wanted != kind:
                return candidate, "cpu", f"{reason}; {stage} has no backend for {kind}"
            return candidate, device, reason
    known = ", ".join(f"{row.name} ({_how_to_install(row)})" for row in _built_in(stage).values())
    raise BackendError(f"{stage}: no backend is installed for device {device!r}; choose one of: {known}")
