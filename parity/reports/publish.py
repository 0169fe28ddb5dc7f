"""Atomic replacement of a report's files (markdown, plots, JSON): all together, or none."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


@contextlib.contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """An empty folder on the same disk as `folder`, which is made if it is not there; removed with the block."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as name:
        yield Path(name)


# An image of a page in the page's own folder.
_PLOT = re.compile(r"!\[[^]]*\]\(([^)/]+\.png)\)")


def publish(
    scratch: Path, folder: Path, name: str, text: str, content: Mapping[str, Any], data: str | None = None
) -> Path:
    """Move ``name.md``, its JSON and all that lies in `scratch` into `folder`.

    Plots that the page showed before and no longer shows are removed. The markdown moves last, so that it never stands
    beside plots of another run.

    Parameters
    ----------
    scratch, folder : Path
        From `scratch_folder`, and where the report lives.
    name : str
        ``parity``, ``bench`` or ``accuracy``.
    text : str
        The markdown.
    content : mapping
        What goes into the JSON.
    data : str, optional
        Name of the JSON where it is not the page's.

    Returns
    -------
    Path
        The markdown file.
    """
    page, records = folder / f"{name}.md", f"{data or name}.json"
    plots = sorted(path.name for path in scratch.iterdir())
    (scratch / records).write_text(dump_json(content), encoding="utf-8")
    (scratch / page.name).write_text(text, encoding="utf-8")
    before = page.read_text(encoding="utf-8") if page.exists() else ""
    stale = set(_PLOT.findall(before)) - set(_PLOT.findall(text))
    for file in [*plots, records, page.name]:
        os.replace(scratch / file, folder / file)
    for file in stale:
        (folder / file).unlink(missing_ok=True)
    return page


# A string, whatever it holds, or what Python writes for a number that JSON has no name for.
_STRING_OR_NOT_FINITE = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN')


def dump_json(content: Any, indent: int | None = 1) -> str:
    """JSON that a person can read and a diff can show, ending in a newline; numpy values as plain ones.

    Infinity is written as 1e999, which every reader of JSON takes for infinity, and NaN as null.
    """
    text = json.dumps(content, indent=indent, ensure_ascii=False, default=_plain)
    numbers = {"Infinity": "1e999", "-Infinity": "-1e999", "NaN": "null"}
    return _STRING_OR_NOT_FINITE.sub(lambda match: numbers.get(match[0], match[0]), text) + "\n"


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not go into JSON: {value!r}")


def now() -> str:
    """Date and time in UTC, to the minute."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
