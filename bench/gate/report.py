"""reports/gate.md: what the gate said, how sure it is, and what replays found of that, a section each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from allin1_core.files.writing import write_text

PAGE = Path(__file__).resolve().parents[2] / "reports" / "gate.md"
_TITLE = "# Gate: did anything get slower, larger or wrong?\n"


def write_section(heading: str, lines: Sequence[str], page: Path = PAGE) -> None:
    """Put a section into the page, in place of the one of that heading."""
    text = page.read_text(encoding="utf-8") if page.exists() else _TITLE
    sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", text, flags=re.MULTILINE))
    sections[heading] = "\n" + "\n".join(lines).rstrip() + "\n\n"
    content = _TITLE + "\n" + "".join(f"## {name}\n{body}" for name, body in sections.items())
    page.parent.mkdir(exist_ok=True)
    write_text(page, content.rstrip() + "\n")
