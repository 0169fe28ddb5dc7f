"""Untrusted arrays and files: refused before they are opened, unpacked or executed."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from allin1_core.errors import BatchError, WeightsError
from allin1_core.files.reading import FileContent, open_file, open_regular, read_content, read_npy, read_npz
from hard_use.hostile_files import Planted, npy

MOST = 1 << 20


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", ">f8", "int16", "bool"])
def test_arrays_come_back_as_they_were_saved(dtype: str, order: str) -> None:
    array = np.asarray(np.random.default_rng(0).integers(0, 2, (3, 4, 5)), dtype=dtype, order=order)
    for found in (
        read_npy(npy(array), "a.npy", WeightsError, most=MOST),
        read_npz(npz(a=array), "a.npz", WeightsError, most=MOST)["a"],
    ):
        assert found.dtype == array.dtype
        np.testing.assert_array_equal(found, array)
        assert found.flags.writeable


def test_pickles_are_refused_and_not_executed(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    objects = np.array([Planted(planted)], dtype=object)
    with pytest.raises(WeightsError, match="Python objects"):
        read_npy(npy(objects), "a.npy", WeightsError, most=MOST)
    with pytest.raises(WeightsError, match="Python objects"):
        read_npz(npz(a=objects), "a.npz", WeightsError, most=MOST)
    for read in (read_npy, read_npz):
        with pytest.raises(WeightsError, match="cannot be read"):
            read(pickle.dumps(Planted(planted)), "a", WeightsError, most=MOST)
    assert not planted.exists()
    pickle.loads(pickle.dumps(Planted(planted)))
    assert planted.exists(), "the pickle is harmless, so the test above proves nothing"


def npz(**arrays: np.ndarray) -> bytes:
    """Compressed, so that there is more to damage."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def bomb(stated: int, real: int, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A .npz whose member says that it unpacks to ``stated`` bytes, and unpacks to ``real`` zeros."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive, archive.open("a.npy", "w") as member:
        for _ in range(real >> 20):
            member.write(bytes(1 << 20))
    content = bytearray(file.getvalue())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = stated.to_bytes(4, "little")
    return bytes(content)


@pytest.mark.skipif(
    sys.platform != "linux", reason="limits the address space, which only Linux does reliably"
)
@pytest.mark.parametrize(
    ("stated", "method"),
    [
        (1 << 27, zipfile.ZIP_DEFLATED),
        (1000, zipfile.ZIP_DEFLATED),
        (1000, zipfile.ZIP_BZIP2),
        (1000, zipfile.ZIP_LZMA),
    ],
)
def test_a_zip_bomb_is_not_unpacked(tmp_path: Path, stated: int, method: int) -> None:
    content = bomb(stated, 1 << 27, method)
    assert len(content) < 2 << 20
    (tmp_path / "bomb.npz").write_bytes(content)
    child = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, resource\n"
            "from allin1_core.errors import WeightsError\n"
            "from allin1_core.files.reading import read_npz\n"
            "content = open(sys.argv[1], 'rb').read()\n"
            "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
            "resource.setrlimit(resource.RLIMIT_AS, (used + (32 << 20),) * 2)\n"
            "try: read_npz(content, sys.argv[1], WeightsError, most=1 << 20)\n"
            "except WeightsError as error: print(error)\n",
            str(tmp_path / "bomb.npz"),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.startswith(str(tmp_path / "bomb.npz"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        npy(np.zeros(10))[:-1],
        npy(np.zeros(10)) + b"\0",
        npy(np.zeros(10)).replace(b"(10,)", b"(-1,)"),
        npy(np.zeros(10)).replace(b"(10,), }      ", b"(10**18,), }  "),
        npy(np.zeros(10)).replace(b"(10,), }           ", b"(999999999999,), } "),
        npy(np.zeros(10)).replace(b"'<f8'", b"'|V0'"),
        npy(np.zeros(0)).replace(b"'<f8'", b"'|V0'"),
        npy(np.zeros(10)).replace(b"{", b"("),
        b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535,
        b"\x93NUMPY\x02\x00\xff\xff\xff\x7f" + b"(" * 1000,
        b"\x93NUMPY\x09\x00\xff\xff" + b" " * 65535,
    ],
)
def test_damaged_npy_is_one_error_that_names_it(content: bytes) -> None:
    with pytest.raises(WeightsError, match=r"^damaged\.npy: "):
        read_npy(content, "damaged.npy", WeightsError, most=MOST)


def test_every_truncation_of_a_npz_is_refused() -> None:
    content = npz(a=np.arange(40, dtype=np.float32), b=np.zeros((2, 3)))
    for length in range(len(content)):
        with pytest.raises(WeightsError, match=r"^a\.npz"):
            read_npz(content[:length], "a.npz", WeightsError, most=MOST)


def test_bit_flips_in_a_npz_are_refused_or_leave_its_values() -> None:
    """A flip may hit what nobody reads (a date); the checksums catch all that reaches a value."""
    arrays = {"a": np.arange(40, dtype=np.float32), "b": np.zeros((2, 3))}
    content, refused = npz(**arrays), 0
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = read_npz(bytes(flipped), "a.npz", WeightsError, most=MOST)
        except WeightsError:
            refused += 1
            continue
        for name, values in zip(arrays, found.values(), strict=False):
            np.testing.assert_array_equal(values, arrays[name])
    assert refused > 4 * len(content)


def test_only_files_are_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "device.npz").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with open_regular(tmp_path / "link", WeightsError) as file:
        assert file.read() == b"content"
    for name, reason in {
        "loop": "symbolic links",
        "dangling": "No such file",
        "device.npz": "is a device",
        "pipe": "is a pipe",
        ".": "is a folder",
        "nul\0": "null (byte|character)",  # Python 3.14 has the other word
        "long" * 100: "name too long",
        "new\nline": "No such file",
        "surrogate\udcff": "No such file",
    }.items():
        with pytest.raises(WeightsError, match=reason) as caught:
            open_regular(tmp_path / name, WeightsError)
        assert str(caught.value).isprintable()


def test_messages_stay_on_their_line_and_name_what_they_can() -> None:
    name = "Björk 😀\nERROR: all is lost\x1b[2J\u202e\udcff.wav"
    assert str(WeightsError(f"{name}: is a folder")) == (
        "Björk 😀\\nERROR: all is lost\\x1b[2J\\u202e\\udcff.wav: is a folder"
    )
    both = BatchError([(Path("a\nb"), WeightsError("c\nd")), (Path("e"), ValueError("f"))], [None, None])
    assert str(both).splitlines()[1:] == ["  a\\nb: WeightsError: c\\nd", "  e: ValueError: f"]


def test_a_file_of_the_wrong_size_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(WeightsError, match=str(1 << 40)):
        read_content(tmp_path / "sparse", WeightsError, most=MOST)
    (tmp_path / "exact").write_bytes(bytes(MOST))
    assert len(read_content(tmp_path / "exact", WeightsError, most=MOST)) == MOST


def test_content_is_closed_wherever_a_decoder_left_the_descriptor() -> None:
    """Closing failed where the descriptor stood before what had been read ahead: 128 KiB from Python 3.14 on."""
    with open_file(FileContent("content", bytes(300_000)), WeightsError) as file:
        assert file.read(4) == bytes(4)
        os.lseek(file.fileno(), 0, os.SEEK_SET)
    assert file.closed
