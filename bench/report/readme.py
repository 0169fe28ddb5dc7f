"""Copies the summary of reports/bench.md into README.md: ``python -m bench.report.readme``.

The summary goes between the lines ``<!-- bench:begin -->`` and ``<!-- bench:end -->``, its images with the way to them.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from allin1_core.files.writing import write_text

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


def between(text: str, name: str = "text") -> str:
    """What stands between the two marks; `ValueError` unless they are there, exactly once, in this order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(f"{name}: expected one line {BEGIN} and, after it, one line {END}")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def embed(readme: Path, report: Path) -> bool:
    """Replace what stands between the marks in `readme` by what stands between them in `report`, if that differs.

    Images of the report lie in its folder.
    """
    text = readme.read_text(encoding="utf-8")
    old, new = between(text, str(readme)), between(report.read_text(encoding="utf-8"), str(report))
    folder = os.path.relpath(report.resolve().parent, readme.resolve().parent)
    new = re.sub(
        r"(!\[[^]]*\]\()([^)/]+\.png\))", lambda image: f"{image[1]}{Path(folder, image[2]).as_posix()}", new
    )
    if old != new:
        write_text(readme, text.replace(f"{BEGIN}{old}{END}", f"{BEGIN}{new}{END}"))
    return old != new


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.report.readme", description=__doc__)
    parser.add_argument("--readme", type=Path, default=Path("README.md"))
    parser.add_argument("--report", type=Path, default=Path("reports/bench.md"))
    options = parser.parse_args(arguments)
    try:
        changed = embed(options.readme, options.report)
    except (ValueError, FileNotFoundError) as error:
        print(f"readme: {error}", file=sys.stderr)
        return 1
    print(f"{options.readme}: {'updated' if changed else 'already up to date'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
