"""Results, activations and timings that are truncated, altered, far too large, or meant to execute something."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core.results.result import AnalysisResult
from allin1_core.structure import Segment
from allin1_core.timings.recorder import Timings
from hard_use.hostile_files import Planted, flipped, npy, npz, write
from hard_use.reader_process import Reading, read_hostile_files
from hard_use.readers import GOOD_RECORD, GOOD_SPECTROGRAM
from hard_use.reporting import check_readings
from parity.reports.records import ParityRecorder

MEMORY = 128 << 20


def good_result(**arrays_sha256: str) -> bytes:
    result = AnalysisResult(
        Path("/music/a.wav"),
        120,
        [0.5, 1.0],
        [0.5],
        [1, 2],
        [Segment(0.0, 2.0, "intro")],
        {"model": {"name": "x"}},
    )
    return result.to_json(arrays_sha256).encode()


def good_timings(folder: Path) -> bytes:
    path = folder / "timings.jsonl"
    timings = Timings(path)
    with timings.stage("nn", track="a", audio_seconds=2.0):
        pass
    with timings.stage("save", track="a"):
        pass
    return path.read_bytes()


PROBABILITIES = np.random.default_rng(0).random((4, 100), np.float32)
# What reads a file of that name, in hard_use.readers, and how a good one is made.
READERS: dict[str, tuple[str, Callable[[Path], bytes]]] = {
    "result.json": ("result", lambda _: good_result()),
    "a.activ.npz": ("activations", lambda _: npz(beat=PROBABILITIES[0], downbeat=PROBABILITIES[1])),
    "a.npy": ("activations", lambda _: npy(PROBABILITIES[:2].T)),
    "spectrogram.npy": ("kept_spectrogram", lambda _: GOOD_SPECTROGRAM),
    "a.made_from.json": ("kept_record", lambda _: GOOD_RECORD),
    "timings.jsonl": ("timings", good_timings),
}


def good(name: str, folder: Path) -> bytes:
    return READERS[name][1](folder)


def read_all(name: str, paths: list[Path], folder: Path) -> list[Reading]:
    """Read them in a process of their own, after a good one of their kind."""
    warm = folder / f"good_{name}"
    warm.write_bytes(good(name, folder))
    return read_hostile_files(f"hard_use.readers:{READERS[name][0]}", paths, warmup=[warm], memory=MEMORY)


@pytest.mark.parametrize("name", READERS)
def test_a_good_file_is_read_and_every_truncation_is_refused(
    tmp_path: Path, name: str, record_parity: ParityRecorder
) -> None:
    content = good(name, tmp_path)
    cuts = ((f"cut{length}_{name}", content[:length]) for length in range(0, len(content) - 1, 7))
    whole_file, *readings = read_all(name, [tmp_path / f"good_{name}", *write(tmp_path, cuts)], tmp_path)
    assert whole_file.ended == "read", whole_file
    # A file of lines is whole at the end of each line.
    whole = {
        f"cut{end + step}_timings.jsonl" for end, byte in enumerate(content) if byte == 10 for step in (0, 1)
    }
    check_readings(
        record_parity,
        f"{name} truncated",
        "an error names the file",
        readings,
        memory=MEMORY,
        may_be_read=lambda path: path.name in whole,
    )


@pytest.mark.parametrize("number", [150, pytest.param(5000, marks=pytest.mark.full)])
@pytest.mark.parametrize("name", READERS)
def test_flipped_bits_do_no_harm(
    tmp_path: Path, name: str, number: int, record_parity: ParityRecorder
) -> None:
    content, random = good(name, tmp_path), np.random.default_rng(number)

    def flips() -> Iterator[tuple[str, bytes]]:
        for index in range(number):
            reach = min(256, len(content)) if index % 2 else len(content)
            yield f"flip{index}_{name}", flipped(content, range(reach), 4, random)

    readings = read_all(name, write(tmp_path, flips()), tmp_path)
    what, bound = f"{name} with flipped bits", "an error names the file, or a result"
    check_readings(record_parity, what, bound, readings, memory=MEMORY, may_be_read=lambda path: True)


# In the place of any file of text, and of any of its fields.
TEXTS = ("", "null", "[]", "{}", "3", "NaN", '"a"', "[" * 100_000, '{"a":' * 100_000, "9" * 5000)
TEXTS += ("\ufeff{}", "{}\n{}", "\x00")
VALUES = (None, 3, -1, True, "x", [], {}, [None], [[]])


def changed(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Copies with another value in each field."""
    for name, value in itertools.product(fields, VALUES):
        yield {**fields, name: value}


def hostile_texts(folder: Path) -> dict[str, list[str]]:
    """By the kind of file that each pretends to be."""
    kept, fields = json.loads(GOOD_RECORD), json.loads(good_result())
    line = json.loads(good_timings(folder).splitlines()[0])
    provenance = (*VALUES, {"a": None}, {"name": []}, {"weights": 3}, {"weights": [3]})
    return {
        "a.made_from.json": [
            *map(json.dumps, changed(kept)),
            json.dumps({**kept, "made_from": {**kept["made_from"], "more": 1}}),
        ],
        "result.json": [
            *map(json.dumps, changed(fields)),
            *(
                json.dumps({**fields, "provenance": {name: value}})
                for name, value in itertools.product(("model", "stages", "audio_sha256"), provenance)
            ),
            *(
                json.dumps({**fields, "arrays_sha256": value})
                for value in (*VALUES, {"activations": 3}, {"x": "y"})
            ),
            json.dumps({**fields, "beats": [float("nan")]}),
            json.dumps({**fields, "beats": [1e400]}),
            json.dumps(fields).replace("120", "9" * 5000),
            json.dumps({**fields, "path": "a\0b"}),
            json.dumps({**fields, "segments": [{"start": 0}]}),
            json.dumps({**fields, "segments": [{"start": 0, "end": 1, "label": {}}]}),
        ],
        "timings.jsonl": [
            *map(json.dumps, changed(line)),
            json.dumps({"schema": 1}),
            json.dumps({"schema": 99}),
            json.dumps({**line, "duration": float("nan")}),
            json.dumps({**line, "start": 5, "end": 1}),
        ],
    }


def hostile(planted: Path) -> Iterator[tuple[str, bytes]]:
    objects = np.array([Planted(planted)], dtype=object)
    for name, texts in hostile_texts(planted.parent).items():
        for index, text in enumerate((*TEXTS, *texts)):
            yield f"{index}_{name}", text.encode()
    for name, content in {
        "objects": npz(beat=objects, downbeat=objects),
        "pickle": pickle.dumps(Planted(planted)),
        "text": npz(beat=np.array(["a"]), downbeat=np.array(["b"])),
        "void": npz(beat=np.zeros(3, "V0"), downbeat=np.zeros(3, "V0")),
        "complex": npz(beat=np.zeros(3, complex), downbeat=np.zeros(3, complex)),
        "one": npz(beat=PROBABILITIES[0]),
        "lengths": npz(beat=PROBABILITIES[0], downbeat=PROBABILITIES[1, 1:]),
    }.items():
        yield f"{name}_a.activ.npz", content
    for name, content in {
        "objects": npy(objects),
        "pickle": pickle.dumps(Planted(planted)),
        "claims": npy(PROBABILITIES[:2].T).replace(b"(100, 2), }            ", b"(999999999999999, 2), }"),
        "shape": npy(PROBABILITIES),
        "text": b"0.1 0.2\n",
    }.items():
        yield f"{name}_a.npy", content
        yield f"{name}_spectrogram.npy", content
    good = np.load(io.BytesIO(GOOD_SPECTROGRAM))
    for name, array in {
        "bands": good[..., :80],
        "stems": good[:3],
        "frames": np.concatenate([good, good], axis=1),
        "double": good.astype(np.float64),
        "nan": np.where(good < 0.01, np.float32(np.nan), good),
        "inf": np.where(good < 0.01, np.float32(np.inf), good),
    }.items():
        yield f"{name}_spectrogram.npy", npy(array)


@pytest.mark.parametrize("name", READERS)
def test_hostile_files_are_refused_or_harmless(
    tmp_path: Path, name: str, record_parity: ParityRecorder
) -> None:
    planted = tmp_path / "planted"
    paths = [path for path in write(tmp_path, hostile(planted)) if path.name.endswith(f"_{name}")]
    (tmp_path / f"zero_{name}").symlink_to("/dev/zero")
    (tmp_path / f"loop_{name}").symlink_to(f"loop_{name}")
    (tmp_path / f"folder_{name}").mkdir()
    os.mkfifo(tmp_path / f"pipe_{name}")
    with (tmp_path / f"sparse_{name}").open("wb") as file:
        file.truncate(1 << 40)
    no_files = [
        tmp_path / f"{kind}_{name}" for kind in ("zero", "loop", "folder", "pipe", "sparse", "missing")
    ]
    readings = read_all(name, [*paths, *no_files], tmp_path)
    check_readings(
        record_parity,
        f"{name} that is hostile",
        "an error names the file, nothing is executed",
        readings,
        memory=MEMORY,
        may_be_read=lambda path: path not in no_files,
        wrong=["a pickle was executed"] * planted.exists(),
    )


def test_hostile_arrays_beside_a_result(tmp_path: Path, record_parity: ParityRecorder) -> None:
    """The JSON vouches for them by their SHA-256, so that they are read."""
    planted = tmp_path / "planted"
    objects = np.array([Planted(planted)], dtype=object)
    embeddings = np.random.default_rng(0).random((4, 200, 24), np.float32)
    paths = []

    def write_with_json(name: str, suffix: str, content: bytes) -> Path:
        kind = "activations" if suffix == ".activ.npz" else "embeddings"
        vouching = good_result(**{kind: hashlib.sha256(content).hexdigest()})
        (tmp_path / f"{name}.json").write_bytes(vouching)
        (tmp_path / f"{name}{suffix}").write_bytes(content)
        return tmp_path / f"{name}{suffix}"

    for index, (suffix, content) in enumerate(
        [
            (".activ.npz", npz(beat=objects)),
            (".activ.npz", pickle.dumps(Planted(planted))),
            (".activ.npz", npz(beat=PROBABILITIES)[:-30]),
            (".embed.npy", npy(objects)),
            (".embed.npy", pickle.dumps(Planted(planted))),
            (".embed.npy", npy(PROBABILITIES)),
            (".embed.npy", npy(embeddings)[:-1]),
            (".embed.npy", b""),
        ]
    ):
        paths.append(write_with_json(str(index), suffix, content))
    good = write_with_json("good", ".embed.npy", npy(embeddings))
    readings = read_hostile_files(
        "hard_use.readers:result_with_arrays", [good, *paths], warmup=[good], memory=MEMORY
    )
    assert readings[0].ended == "read", readings[0]
    wrong = [f"{row.path}: {row.message}" for row in readings if "SHA-256" in row.message]
    wrong += ["a pickle was executed"] * planted.exists()
    check_readings(
        record_parity,
        "arrays beside a result",
        "an error names the file, nothing is executed",
        readings,
        memory=MEMORY,
        may_be_read=lambda path: path == good,
        wrong=wrong,
    )
