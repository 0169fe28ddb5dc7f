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


def publish(scratch: Path, folder: Path, name: str, text: str, content: Mapping[str, Any]) -> Path:
    """Move ``name.md``, ``name.json`` and all that lies in `scratch` into `folder`.

    Plots that the report of that name left before, and that are not among the new ones, are removed. The markdown
    moves last, so that it never stands beside plots of another run.

    Parameters
    ----------
    scratch, folder : Path
        From `scratch_folder`, and where the report lives.
    name : str
        ``parity`` or ``bench``.
    text : str
        The markdown.
    content : mapping
        What goes into the JSON, beside the list of files.

    Returns
    -------
    Path
        The markdown file.
    """
    plots = sorted(path.name for path in scratch.iterdir())
    (scratch / f"{name}.json").write_text(dump_json({**content, "plots": plots}), encoding="utf-8")
    (scratch / f"{name}.md").write_text(text, encoding="utf-8")
    stale = set(_earlier_plots(folder / f"{name}.json")) - set(plots)
    for file in [*plots, f"{name}.json", f"{name}.md"]:
        os.replace(scratch / file, folder / file)
    for file in stale:
        (folder / file).unlink(missing_ok=True)
    return folder / f"{name}.md"


def _earlier_plots(path: Path) -> list[str]:
    if not path.exists():
        return []
    plots = json.loads(path.read_text(encoding="utf-8")).get("plots", [])
    return [Path(plot).name for plot in plots]


# A string, whatever it holds, or what Python writes for a number that JSON has no name for.
_STRING_OR_NOT_FINITE = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN')


def dump_json(content: Any) -> str:
    """JSON that a person can read and a diff can show, ending in a newline; numpy values as plain ones.

    Infinity is written as 1e999, which every reader of JSON takes for infinity, and NaN as null.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False, default=_plain)
    numbers = {"Infinity": "1e999", "-Infinity": "-1e999", "NaN": "null"}
    return _STRING_OR_NOT_FINITE.sub(lambda match: numbers.get(match[0], match[0]), text) + "\n"


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not go into JSON: {value!r}")


def now() -> str:
    """Date and time in UTC, to the minute."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
