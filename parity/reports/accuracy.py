"""Writes reports/accuracy.md: agreement over hundreds of songs, one section for each long comparison.

A comparison hands over its rows with `update`, which replaces that section of the page and leaves the others as they
stand there. The rows are kept beside the page, in accuracy_<section>.json, of which
``python -m parity.reports.accuracy reports`` renders the sections again.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

from parity.environment import describe_machine, versions
from parity.reports.publish import now, publish, scratch_folder

_INTRODUCTION = """# Accuracy over many songs

Each section names the command that its figures come from. Where a song stands out, it is named."""
_MARK = "<!-- section: {} -->"


def update(folder: Path, section: str, content: dict[str, Any]) -> Path:
    """Replace one section of the report; the others stay as they were measured.

    Parameters
    ----------
    folder : Path
        Where the reports are.
    section : str
        ``parity/reports/sections/accuracy_<section>.py`` renders it; of tracks those ``_of_a_folder`` are one more.
    content : dict
        JSON-ready.
    """
    measured = {**content, "section": section, "measured": now()}
    measured |= {"machine": describe_machine(), "versions": versions()}
    return render(folder, section, measured)


def render(folder: Path, section: str, content: dict[str, Any]) -> Path:
    """Write accuracy.md with this section, its plots and accuracy_<section>.json."""
    page = folder / "accuracy.md"
    with scratch_folder(folder) as scratch:
        name = f"accuracy_{section.removesuffix('_of_a_folder')}"
        module = importlib.import_module(f"parity.reports.sections.{name}")
        sections = _sections(page.read_text(encoding="utf-8")) if page.exists() else {}
        sections[section] = str(module.render(content, scratch)).strip()
        parts = [f"{_MARK.format(name)}\n\n{text}" for name, text in sorted(sections.items())]
        text = "\n\n".join([_INTRODUCTION, *parts]) + "\n"
        return publish(scratch, folder, "accuracy", text, content, f"accuracy_{section}")


def _sections(text: str) -> dict[str, str]:
    """Of a page, by name, in the marks that `render` put before them."""
    _, *found = re.split(f"^{_MARK.format('(.+)')}$", text, flags=re.MULTILINE)
    return {name: part.strip() for name, part in zip(found[::2], found[1::2], strict=True)}


if __name__ == "__main__":
    reports = Path(sys.argv[1] if len(sys.argv) > 1 else "reports")
    for path in sorted(reports.glob("accuracy_*.json")):
        kept = json.loads(path.read_text(encoding="utf-8"))
        print(render(reports, path.stem.removeprefix("accuracy_"), kept))
