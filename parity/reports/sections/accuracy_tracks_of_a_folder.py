"""The section of `accuracy_tracks` for a folder that the user named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parity.reports.sections import accuracy_tracks


def render(content: dict[str, Any], folder: Path) -> str:
    """Markdown of this section; its plot goes into the folder."""
    title = "Spectrogram, network and pipeline on a folder of one's own"
    return accuracy_tracks.render_named(content, folder, title, "tracks_of_a_folder")
