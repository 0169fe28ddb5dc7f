"""Names in an output folder, each taken by one track at a time, also between processes that share the folder.

Which names have results can be seen from the files there, but two processes that start together see none. So a
process takes a name before it begins, by a small hidden file that says whose it is, and gives it back when the
result, which says the same, is there. A process that was killed leaves its file; the same track may still have the
name, another track takes another one.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from allin1_core.files import temporary_name


def take_name(folder: Path, name: str, path: Path) -> bool:
    """Take a name for a track, unless another track has it.

    Parameters
    ----------
    folder : Path
        Where the results go.
    name : str
        What the track's files are to be called. Upper and lower case do not differ.
    path : Path
        The track.

    Returns
    -------
    bool
        Whether the name is this track's. True where the file system has no hard links, on which this rests.
    """
    claim, wanted = _claim(folder, name), os.fsencode(path)
    written = folder / temporary_name()
    try:
        written.write_bytes(wanted)
        while True:
            try:
                os.link(written, claim)  # appears whole, and only if it is not there
                return True
            except FileExistsError:
                pass
            try:
                return claim.read_bytes() == wanted
            except FileNotFoundError:
                continue  # given back since
    except OSError:
        return True
    finally:
        written.unlink(missing_ok=True)


def give_back_name(folder: Path, name: str) -> None:
    """Let others take the name, as far as the results that are there allow it."""
    _claim(folder, name).unlink(missing_ok=True)


def _claim(folder: Path, name: str) -> Path:
    """A hash, because the name with anything added may be too long for a file."""
    return folder / f".{hashlib.sha256(os.fsencode(name.casefold())).hexdigest()[:32]}.claim"
