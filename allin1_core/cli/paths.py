"""Arguments of the command line that are paths."""

from __future__ import annotations

import argparse
from pathlib import Path

from allin1_core.files.writing import expand_user


def path(text: str) -> Path:
    """The path that an argument names, ``~`` expanded; misuse if it is empty, which would be the working folder."""
    if not text:
        raise argparse.ArgumentTypeError("found ''; expected a path")
    return expand_user(text)
