"""Checkpoint files that are truncated, altered, far too large, or meant to execute something."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from checkpoints import SETTINGS

from allin1_core.errors import WeightsError
from allin1_core.network import Configuration, load_checkpoints
from hard_use import hostile_files
from hard_use.hostile_files import Planted, flipped
from hard_use.reader_process import faults, read_hostile_files
from hard_use.reporting import check_readings
from parity.reports.records import ParityRecorder

torch = pytest.importorskip("torch", reason="writes .pth files with torch")

READER = "allin1_core.network.weights:load_checkpoints"
MEMORY = 256 << 20
SMALL = Configuration(num_channels=4, num_blocks=1)
CONFIG: dict[str, Any] = {**SETTINGS, "dim_embed": 4, "depth": 1}


def parameters() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        name: random.standard_normal(shape, np.float32) for name, shape in SMALL.parameter_shapes().items()
    }


def pth(saved: Any) -> bytes:
    file = io.BytesIO()
    torch.save(saved, file)
    return file.getvalue()


def wholesome() -> dict[str, bytes]:
    """The same small checkpoint in each format; ``.npz`` takes its configuration from the ``.yaml`` beside it."""
    import safetensors.numpy

    arrays = parameters()
    packed = io.BytesIO()
    np.savez(packed, **arrays)
    tensors = {name: torch.from_numpy(value) for name, value in arrays.items()}
    return {
        "npz": packed.getvalue(),
        "safetensors": safetensors.numpy.save(arrays, {"config": json.dumps(CONFIG)}),
        "pth": pth({"state_dict": tensors, "config": CONFIG}),
    }


@pytest.fixture(scope="module")
def good() -> dict[str, bytes]:
    return wholesome()


def write(folder: Path, files: Iterator[tuple[str, bytes]]) -> list[Path]:
    paths = hostile_files.write(folder, files)
    for path in paths:
        if path.suffix == ".npz":
            path.with_suffix(".yaml").write_text(yaml.safe_dump(CONFIG))
    return paths


@pytest.fixture(scope="module")
def warmup(good: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A good file of each format, so that the libraries that read them are loaded."""
    folder = tmp_path_factory.mktemp("good")
    return write(folder, ((f"good.{suffix}", content) for suffix, content in good.items()))


def test_the_files_that_are_damaged_below_are_good(warmup: list[Path]) -> None:
    for path in warmup:
        (checkpoint,) = load_checkpoints(str(path))
        for name, value in parameters().items():
            np.testing.assert_array_equal(checkpoint.parameters[name], value)


def test_truncated_weights_are_refused(
    tmp_path: Path, good: dict[str, bytes], warmup: list[Path], record_parity: ParityRecorder
) -> None:
    cuts = (
        (f"cut{length}.{suffix}", content[:length])
        for suffix, content in good.items()
        for length in sorted({*range(0, len(content), 1024), *range(1, 64, 7), len(content) - 1})
    )
    readings = read_hostile_files(READER, write(tmp_path, cuts), memory=MEMORY, warmup=warmup)
    what = "weights cut off at every kilobyte"
    check_readings(record_parity, what, "an error names the file", readings, memory=MEMORY)


@pytest.mark.parametrize("number", [100, pytest.param(3000, marks=pytest.mark.full)])
def test_flipped_bits_in_weights_do_no_harm(
    tmp_path: Path, good: dict[str, bytes], warmup: list[Path], number: int, record_parity: ParityRecorder
) -> None:
    def flips() -> Iterator[tuple[str, bytes]]:
        random = np.random.default_rng(number)
        for suffix, content in good.items():
            for index in range(number):
                size = len(content)
                reach = (range(400), range(size - 400, size), range(size))[index % 3]
                yield f"flip{index}.{suffix}", flipped(content, reach, 4, random)

    readings = read_hostile_files(READER, write(tmp_path, flips()), memory=MEMORY, warmup=warmup, timeout=800)
    what, bound = "weights with flipped bits", "an error names the file, or a checked checkpoint"
    check_readings(record_parity, what, bound, readings, memory=MEMORY, may_be_read=lambda path: True)


def test_pickles_are_not_executed(tmp_path: Path, warmup: list[Path], record_parity: ParityRecorder) -> None:
    planted = tmp_path / "planted"
    trap = Planted(planted)
    objects = io.BytesIO()
    np.savez(objects, **{"norm.weight": np.array([trap], dtype=object)})
    legacy = io.BytesIO()
    torch.save({"state_dict": {}, "config": trap}, legacy, _use_new_zipfile_serialization=False)
    files = {
        "bare.pth": pickle.dumps(trap),
        "zip.pth": pth({"state_dict": {}, "config": CONFIG, "extra": trap}),
        "legacy.pth": legacy.getvalue(),
        "bare.npz": pickle.dumps(trap),
        "objects.npz": objects.getvalue(),
        "pth.npz": pth(trap),
        "bare.safetensors": pickle.dumps(trap),
    }
    readings = read_hostile_files(READER, write(tmp_path, iter(files.items())), memory=MEMORY, warmup=warmup)
    wrong = ["a pickle was executed"] * planted.exists()
    what, bound = "weights with pickled code", "an error names the file, nothing is executed"
    check_readings(record_parity, what, bound, readings, memory=MEMORY, wrong=wrong)
    pickle.loads(files["bare.pth"])
    assert planted.exists(), "the pickle is harmless, so the test above proves nothing"


def bombs() -> Iterator[tuple[str, bytes]]:
    huge = torch.zeros(1).expand(1 << 40)
    yield "stride.pth", pth({"state_dict": {"norm.weight": huge}, "config": CONFIG})
    for method, compression in (("deflate", zipfile.ZIP_DEFLATED), ("bzip2", zipfile.ZIP_BZIP2)):
        file = io.BytesIO(pth({"state_dict": {}, "config": CONFIG}))
        with zipfile.ZipFile(file, "a", compression) as archive:
            archive.writestr("archive/data/0", bytes(80 << 20))
        yield f"{method}.pth", file.getvalue()
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", compression) as archive:
            archive.writestr("norm.weight.npy", bytes(80 << 20))
        yield f"{method}.npz", file.getvalue()
    yield "header.safetensors", (1 << 62).to_bytes(8, "little") + b"{}"
    nested = b'{"a":' + b"[" * 100_000
    yield "nested.safetensors", len(nested).to_bytes(8, "little") + nested
    claims = b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,4]}}'
    yield "claims.safetensors", len(claims).to_bytes(8, "little") + claims + bytes(4)


def test_bombs_do_not_go_off(tmp_path: Path, warmup: list[Path], record_parity: ParityRecorder) -> None:
    """The bound lies below what the archives unpack to, as a reader that unpacks them shows first."""
    memory = 40 << 20
    paths = write(tmp_path, bombs())
    archives = [path for path in paths if path.stem in ("deflate", "bzip2")]
    unpacked = read_hostile_files("hard_use.misbehaving:unpack", archives, memory=memory, warmup=warmup)
    assert len(archives) == 4
    assert len(faults(unpacked, memory=memory)) == 4, "a reader that unpacks them passes: too small a bomb"
    readings = read_hostile_files(READER, paths, memory=memory, warmup=warmup)
    what = "weights that unpack to far more"
    check_readings(record_parity, what, "an error, under 40 MB", readings, memory=memory)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- a\n- b\n",
        "[" * 5000,
        "depth: " + "9" * 5000,
        "a: &a [x, x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{f'*{chr(97 + i)}, ' * 9}]\n" for i in range(20))
        + "model: *u\n",
        "!!python/object/apply:os.mkdir [planted]",
        "model: 2001-99-99",
        "\x00",
        yaml.safe_dump({**CONFIG, "depth": 10**12}),
        yaml.safe_dump({**CONFIG, "depth": 1e308}),
        yaml.safe_dump({**CONFIG, "depth": -1}),
        yaml.safe_dump({**CONFIG, "dim_embed": float("inf")}),
        yaml.safe_dump({**CONFIG, "mlp_ratio": float("nan")}),
        yaml.safe_dump({**CONFIG, "num_heads": 3}),
        yaml.safe_dump({**CONFIG, "best_threshold_beat": 2}),
        yaml.safe_dump({**CONFIG, "data": "none"}),
    ],
)
def test_a_hostile_configuration_is_one_error_that_names_it(
    tmp_path: Path, good: dict[str, bytes], text: str
) -> None:
    (tmp_path / "a.npz").write_bytes(good["npz"])
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(WeightsError, match=r"a\.yaml") as caught:
        load_checkpoints(str(tmp_path / "a.npz"))
    assert len(str(caught.value)) < 1000
    assert not Path("planted").exists()


@pytest.mark.parametrize("form", ["bfloat16", "to_sparse", "half"])
def test_pth_of_tensors_that_are_no_plain_float32(form: str, tmp_path: Path) -> None:
    path = tmp_path / "own.pth"
    path.write_bytes(pth({"state_dict": {"a": getattr(torch.ones(2), form)()}, "config": CONFIG}))
    with pytest.raises(WeightsError, match=r"own\.pth: 'a' is torch\..*, cpu \(2,\); expected a tensor"):
        load_checkpoints(str(path))


def test_safetensors_with_empty_metadata(tmp_path: Path) -> None:
    content, path = wholesome()["safetensors"], tmp_path / "own.safetensors"
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps({**json.loads(content[8:start]), "__metadata__": None}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + content[start:])
    with pytest.raises(
        WeightsError, match=r"own\.safetensors: no configuration; put own\.yaml beside the file"
    ):
        load_checkpoints(str(path))
