"""Writes reports/accuracy.md: agreement over hundreds of songs, one section for each long comparison.

A comparison hands over its rows with `update`; they are kept in accuracy.json, beside those of the others, and the
page is rendered from that file alone: ``python -m parity.reports.accuracy reports`` does it again.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from parity.environment import describe_machine, versions
from parity.reports.publish import now, publish, scratch_folder

_INTRODUCTION = """# Accuracy over many songs

Each section names the command that its figures come from. Where a song stands out, it is named."""


def update(folder: Path, section: str, content: dict[str, Any]) -> Path:
    """Replace one section of the report and write it; the others stay as they were measured.

    Parameters
    ----------
    folder : Path
        Where the reports are.
    section : str
        ``parity/reports/sections/accuracy_<section>.py`` renders it.
    content : dict
        JSON-ready.
    """
    sections = _read(folder)
    sections[section] = {**content, "measured": now(), "machine": describe_machine(), "versions": versions()}
    return render(folder, sections)


def _read(folder: Path) -> dict[str, Any]:
    path = folder / "accuracy.json"
    sections: dict[str, Any] = (
        json.loads(path.read_text(encoding="utf-8"))["sections"] if path.exists() else {}
    )
    return sections


def render(folder: Path, sections: dict[str, Any]) -> Path:
    """Write accuracy.md, its plots and accuracy.json."""
    with scratch_folder(folder) as scratch:
        parts = [_INTRODUCTION]
        for name, content in sorted(sections.items()):
            module = importlib.import_module(f"parity.reports.sections.accuracy_{name}")
            parts.append(str(module.render(content, scratch)).strip())
        return publish(scratch, folder, "accuracy", "\n\n".join(parts) + "\n", {"sections": sections})


if __name__ == "__main__":
    reports = Path(sys.argv[1] if len(sys.argv) > 1 else "reports")
    print(render(reports, _read(reports)))
