"""An implementation that is not ours, put through the same cases: ``make parity BACKEND=module:function``.

The lists of backends that the cases are parametrized over ask here. With `--backend` they hold that implementation
alone, and every test that does not run it is deselected.
"""

from __future__ import annotations

STAGES = ("spectrogram", "decoder")

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
            f"stage {stage!r}: no cases for other implementations; expected {' or '.join(STAGES)}"
        )
    _requested.clear()
    _requested[stage] = backend


def requested(stage: str) -> str | None:
    """The backend that `--backend` names for this stage; None in a run of our own."""
    return _requested.get(stage)


def any_requested() -> str | None:
    """The backend that `--backend` names, for whichever stage; None in a run of our own."""
    return next(iter(_requested.values()), None)
