"""Figures without a display, and atomic saving of them."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from allin1_core.errors import OutputError, ResultError
from allin1_core.files.writing import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MATPLOTLIB_MISSING = "figures need the package 'matplotlib'; pip install 'allin1-core[figures]'"


def save(figure: Figure, path: str | os.PathLike[str], dpi: float = 100) -> None:
    """Write a figure in the format of the path's suffix; `OutputError` if there is none, or it cannot be written."""
    suffix = Path(path).suffix[1:].lower() or "pdf"
    if suffix not in (known := figure.canvas.get_supported_filetypes()):
        raise OutputError(
            f"{path}: no format of figures; expected a name that ends with .{', .'.join(sorted(known))}"
        )
    # Without a date the same result gives the same file.
    metadata = {"CreationDate": None} if suffix == "pdf" else None
    with written_whole(path) as file:
        figure.savefig(file, format=suffix, metadata=metadata, dpi=dpi)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches; `ResultError` if matplotlib is not installed."""
    try:
        _import_matplotlib()
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise ResultError(MATPLOTLIB_MISSING) from error
    # Without pyplot: no window, no state shared with the caller's figures.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _import_matplotlib() -> None:
    """Import matplotlib, which refuses where MPLBACKEND names a backend that is not installed.

    A process that a notebook starts inherits the notebook's. Figures here need none; a caller's pyplot keeps the one
    that is named if it is installed.
    """
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    if backend is None:
        return
    try:
        import matplotlib as mpl
    finally:
        os.environ["MPLBACKEND"] = backend
    with contextlib.suppress(ValueError):
        mpl.rcParams["backend"] = backend
