"""Size-limited reading of untrusted files: only regular files are opened, and only those within a limit are read.

A path can lead to a pipe that nobody writes to (opening it never returns), to a device that never ends, or to a few
kilobytes that unpack to terabytes. Here each of them is an error before anything is read.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import math
import os
import stat
import tokenize
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from allin1_core.errors import Allin1Error, AudioError

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_NPY_ERRORS = (
    *(ValueError, EOFError, OverflowError, TypeError, SyntaxError),
    *(RecursionError, tokenize.TokenError, KeyError),
)


def open_regular(path: str | os.PathLike[str], error: type[Allin1Error]) -> BinaryIO:
    """Open a regular file for reading; refuse folders, pipes, sockets and devices.

    Parameters
    ----------
    path : path-like
        Symbolic links are followed.
    error : type
        What is raised: the caller's class of bad input.

    Raises
    ------
    Allin1Error
        `error`, if the path is missing, may not be read, or leads to a folder, pipe, socket or device.
    """
    path = Path(path)
    # Without O_NONBLOCK, opening a pipe waits for its writer; on a file it means nothing.
    flags = os.O_RDONLY | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except (OSError, ValueError) as cause:  # ValueError: a NUL in the name
        reason = getattr(cause, "strerror", None) or cause
        raise error(f"{path}: cannot be opened ({reason}); check the path") from cause
    kind = stat.S_IFMT(os.fstat(descriptor).st_mode)
    if kind != stat.S_IFREG:
        os.close(descriptor)
        raise error(f"{path}: is {_KINDS.get(kind, 'no regular file')}; expected a file")
    return os.fdopen(descriptor, "rb")


@dataclasses.dataclass(frozen=True)
class FileContent:
    """What a file object held, to be read as a file.

    Attributes
    ----------
    name : str
        What messages call it.
    content : bytes
    """

    name: str
    content: bytes

    def __str__(self) -> str:
        return self.name


def open_file(source: str | os.PathLike[str] | FileContent, error: type[Allin1Error]) -> BinaryIO:
    """Open a file, or the content of one as a temporary file without a name: decoders want a descriptor.

    Raises
    ------
    Allin1Error
        `error`, as `open_regular` does, or if there is no room for the temporary file.
    """
    if not isinstance(source, FileContent):
        return open_regular(source, error)
    import tempfile

    try:
        with tempfile.TemporaryFile() as file:
            file.write(source.content)
            file.seek(0)
            # Only for reading: closing a file that can be written moves the descriptor back by what was read ahead,
            # and decoders have moved it since.
            return open(os.dup(file.fileno()), "rb")
    except OSError as cause:
        raise error(
            f"{source}: cannot be written to a temporary file to be read from ({cause.strerror or cause}); make room, "
            "or set TMPDIR to a folder that has it"
        ) from cause


def read_content(path: str | os.PathLike[str], error: type[Allin1Error], *, most: int) -> bytes:
    """The bytes of a file of at most ``most`` bytes.

    Raises
    ------
    Allin1Error
        `error`, as `open_regular` does, or if the file is larger or cannot be read.
    """
    with open_regular(path, error) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise error(f"{path}: {size} bytes; expected at most {most}. This is another kind of file")
        try:
            return file.read(size)  # a number larger than the file would be allocated
        except OSError as cause:
            raise error(f"{path}: cannot be read ({cause.strerror or cause})") from cause


def read_json(path: str | os.PathLike[str], error: type[Allin1Error], *, most: int) -> Any:
    """What a JSON file of at most ``most`` bytes holds.

    Raises
    ------
    Allin1Error
        `error`, as `read_content` does, or if the file holds no JSON.
    """
    content = read_content(path, error, most=most)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as cause:
        raise error(
            f"{path}: cannot be read as JSON, {len(content)} bytes ({cause}); the file is damaged or of another kind: "
            "make it again"
        ) from cause


def read_arrays(
    path: str | os.PathLike[str], error: type[Allin1Error], *, most: int
) -> npt.NDArray | dict[str, npt.NDArray]:
    """The array of a ``.npy`` file, or the arrays of a ``.npz`` file, recognised by its first bytes.

    Raises
    ------
    Allin1Error
        `error`, as `read_content`, `read_npy` and `read_npz` do, or if it begins as neither.
    """
    content = read_content(path, error, most=most)
    if not content.startswith((b"\x93NUMPY", b"PK")):
        raise error(f"{path}: begins as neither .npy nor .npz; expected what numpy.save or numpy.savez wrote")
    read = read_npy if content.startswith(b"\x93NUMPY") else read_npz
    return read(content, str(path), error, most=most)


def read_npy(content: bytes, source: str, error: type[Allin1Error], *, most: int) -> npt.NDArray:
    """The array in the bytes of a ``.npy`` file; never unpickles.

    Parameters
    ----------
    content : bytes
    source : str
        What messages call it.
    most : int
        Largest size of the array in bytes.

    Raises
    ------
    Allin1Error
        `error`, if this is no ``.npy`` file, holds Python objects, or is longer or shorter than its header says.
    """
    file = io.BytesIO(content)
    try:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }[version]
        shape, fortran_order, dtype = read_header(file)
    except _NPY_ERRORS as cause:
        raise error(
            f"{source}: cannot be read as .npy, {len(content)} bytes ({cause}); export it again"
        ) from cause
    if dtype.hasobject:
        raise error(
            f"{source}: holds pickled Python objects; expected numbers. It was not opened: export it again"
        )
    promised = math.prod(shape) * dtype.itemsize
    present = len(content) - file.tell()
    if promised > most or promised != present or min(shape, default=0) < 0:
        raise error(
            f"{source}: the header promises {dtype} {shape}, {promised} bytes; {present} are there, and at most {most} "
            "are expected. The file is truncated or damaged: export it again"
        )
    if dtype.itemsize == 0:
        raise error(f"{source}: found dtype {dtype}; expected numbers")
    array = np.frombuffer(content, dtype, offset=file.tell())
    array = array.reshape(shape, order="F" if fortran_order else "C")
    return array.copy()


def read_npz(content: bytes, source: str, error: type[Allin1Error], *, most: int) -> dict[str, npt.NDArray]:
    """The arrays in the bytes of a ``.npz`` file; never unpickles, never unpacks more than ``most`` bytes.

    Raises
    ------
    Allin1Error
        `error`, if this is no ``.npz`` file, or one of its arrays is as `read_npy` refuses.
    """
    import zipfile
    import zlib

    errors = (
        *(zipfile.BadZipFile, zlib.error, OSError, RuntimeError),
        *(NotImplementedError, EOFError, ValueError),
    )
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > most:
                raise error(
                    f"{source}: {len(content)} bytes that unpack to {unpacked}; expected at most {most}. "
                    "It was not unpacked: export it again"
                )
            arrays = {}
            for member in members:
                if not member.filename.endswith(".npy"):
                    raise error(f"{source}: holds {member.filename[:80]!r}; expected .npy arrays only")
                name = member.filename.removesuffix(".npy")
                if name in arrays:
                    raise error(f"{source}: holds {name[:80]!r} twice; export it again")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise error(
                        f"{source}: {name[:80]!r} is packed in a way that numpy does not use; export it again"
                    )
                with archive.open(member) as file:
                    # With a number, unpacking stops there; `read()` would unpack first and cut off afterwards.
                    unpacked_member = file.read(member.file_size)
                arrays[name] = read_npy(unpacked_member, f"{source}[{name[:80]}]", error, most=most)
            return arrays
    except Allin1Error:
        raise
    except errors as cause:
        raise error(
            f"{source}: cannot be read as .npz, {len(content)} bytes ({cause}); export it again"
        ) from cause


def file_digest(path: Path, error: type[Allin1Error] = AudioError) -> str:
    """SHA-256 of a file, read in blocks; `error` if it cannot be read."""
    digest = hashlib.sha256()
    with open_regular(path, error) as file:
        try:
            while block := file.read(1 << 20):
                digest.update(block)
        except OSError as cause:
            raise error(f"{path}: cannot be read ({cause.strerror or cause}); copy the file again") from cause
    return digest.hexdigest()
