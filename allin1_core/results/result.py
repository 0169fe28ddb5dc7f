"""The result of an analysis and its files: JSON as All-In-One writes it, with the arrays beside it.

The JSON names its arrays by SHA-256, so that arrays of another run are never taken for those of this result.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core.errors import ResultError
from allin1_core.files.reading import read_content, read_json, read_npy, read_npz
from allin1_core.files.writing import (
    HashingWriter,
    expand_user,
    make_folder,
    remove,
    write_text,
    written_whole,
)
from allin1_core.results.summary import summary_html
from allin1_core.results.validation import check_outputs, validate
from allin1_core.structure import Segment

# Bytes. Embeddings of the ensemble take 300 kB a second.
_LARGEST_JSON = 64 << 20
_LARGEST_ARRAYS = 8 << 30

ACTIVATIONS, EMBEDDINGS = "activations", "embeddings"
SUFFIXES = {ACTIVATIONS: ".activ.npz", EMBEDDINGS: ".embed.npy"}


@dataclasses.dataclass
class AnalysisResult:
    """Tempo, beats and sections of a track.

    Attributes
    ----------
    path : Path
        The audio file or folder of stems that was analysed, absolute; of a track that came as samples or a file object
        its name, ``track-`` and the first eight digits of its SHA-256, relative, which leads to no file.
    bpm : int or None
        Beats per minute as All-In-One gives them, the most frequent of the rounded rates ``60 / interval``; None with
        fewer than two beats.
    beats, downbeats : list of float
        Seconds, multiples of 0.01 s.
    beat_positions : list of int
        Position in the bar of each beat, from 1.
    segments : list of Segment
        They cover the track without a gap; at least one.
    provenance : dict
        What made this: version, model and hashes of its weights, SHA-256 of the audio files, per stage the backend,
        library version, device, precision and why they were chosen.
    activations : dict of str to float32 array, optional
        ``beat``, ``downbeat``, ``segment`` ``(T,)`` and ``label`` ``(10, T)``, a row for each of
        `allin1_core.structure.LABELS`; 100 frames a second.
    embeddings : float32 array, optional
        ``(4, T, 24)``, stems, frames and channels, and with an ensemble ``(4, T, 24, folds)``.
    tempo : float or None
        Beats per minute to hundredths, by a line through all beats; None with fewer than eight beats, and in results
        of All-In-One itself. See `allin1_core.dbn.metrical.fitted_tempo`.
    tempo_spread : float or None
        How much the tempo varies over the track, in beats per minute: half the width of the range that 90 % of the
        local tempi, each over 16 beats, lie in. Of a steady track below 0.25, which is what rounding beats to 0.01 s
        leaves.
    confidences : dict of str to list of float, optional
        Probabilities from 0 to 1: of a ``beats`` and a ``downbeats`` entry that one starts within 0.07 s of it, by the
        decoder's model; ``boundaries``, the network's of each section's start but the first, and ``labels``, its mean
        over each section. None where they were not asked for.
    """

    path: Path
    bpm: int | None
    beats: list[float]
    downbeats: list[float]
    beat_positions: list[int]
    segments: list[Segment]
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    activations: dict[str, np.ndarray] | None = None
    embeddings: np.ndarray | None = None
    tempo: float | None = None
    tempo_spread: float | None = None
    confidences: dict[str, list[float]] | None = None

    def __eq__(self, other: object) -> bool:
        """Whether all fields are equal; of arrays, type, shape and values."""
        return isinstance(other, AnalysisResult) and _are_equal(vars(self), vars(other))

    def _repr_html_(self) -> str:
        """What a notebook shows: a bar of the sections, and the beats in a line."""
        return summary_html(self)

    def to_json(self, arrays_sha256: Mapping[str, str] | None = None, path: str | None = None) -> str:
        """The text of the JSON file: one line a field, so that results compare well line by line.

        Parameters
        ----------
        arrays_sha256 : dict of str, optional
            SHA-256 of the files of arrays beside it, of ``activations`` and ``embeddings``; `save` adds them.
        path : str, optional
            The URL that the track was fetched from, to stand for its path.
        """
        fields: dict[str, Any] = {
            "path": path or str(self.path),
            "bpm": self.bpm,
            "beats": self.beats,
            "downbeats": self.downbeats,
            "beat_positions": self.beat_positions,
            "segments": [dataclasses.asdict(segment) for segment in self.segments],
            "tempo": self.tempo,
            "tempo_spread": self.tempo_spread,
            "provenance": self.provenance,
        }
        if self.confidences is not None:
            fields["confidences"] = self.confidences
        if arrays_sha256:
            fields["arrays_sha256"] = dict(arrays_sha256)
        lines = [f"  {json.dumps(name)}: {_value(value)}" for name, value in fields.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def save(self, path: str | os.PathLike[str], array_dir: str | os.PathLike[str] | None = None) -> Path:
        """Write the result: ``NAME.json``, and where it carries them ``NAME.activ.npz`` and ``NAME.embed.npy``.

        The JSON is written last, with the SHA-256 of the arrays: where it is, the result is complete. Arrays that the
        result does not carry are removed if they are there, because they are another result's; so load those that are
        to be kept before saving to the same place. Equal results give equal files.

        Parameters
        ----------
        path : path-like
            The JSON file; its folder is created.
        array_dir : path-like, optional
            Folder for the arrays, created if there are any; by default they lie beside the JSON.

        Raises
        ------
        ResultError
            If the result is not valid; see `allin1_core.results.validation`. Nothing is written.
        OptionError
            If it would be written over the audio that was analysed.
        OutputError
            If a file cannot be written.
        """
        validate(self)
        path = expand_user(path)
        check_outputs(self, [path, *array_paths(path, array_dir).values()])
        make_folder(path.parent)
        arrays_sha256 = {}
        for kind, array_path in array_paths(path, array_dir).items():
            arrays = getattr(self, kind)
            if arrays is None:
                remove(array_path)
                continue
            make_folder(array_path.parent)
            with written_whole(array_path) as file:
                hashing = HashingWriter(file)
                if kind == ACTIVATIONS:
                    # Into memory first: without seeking, zip files get headers that not every reader understands.
                    content = io.BytesIO()
                    ordered = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
                    np.savez(content, **ordered)  # type: ignore[arg-type]
                    hashing.write(content.getbuffer())
                else:
                    np.save(hashing, np.ascontiguousarray(arrays))
            arrays_sha256[kind] = hashing.sha256.hexdigest()
        return write_text(path, self.to_json(arrays_sha256))


def array_paths(path: Path, array_dir: str | os.PathLike[str] | None = None) -> dict[str, Path]:
    """Where the activations and the embeddings of a result lie, whose JSON is at `path`."""
    folder = path.parent if array_dir is None else expand_user(array_dir)
    return {kind: folder / f"{path.stem}{suffix}" for kind, suffix in SUFFIXES.items()}


def _are_equal(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_are_equal(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return getattr(one, "dtype", 0) == getattr(other, "dtype", 1) and np.array_equal(one, other)
    return bool(one == other)


def _value(value: Any) -> str:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in value) + "\n  ]"
    if isinstance(value, dict):
        return json.dumps(value, indent=2).replace("\n", "\n  ")
    return json.dumps(value)


def load_result(
    path: str | os.PathLike[str],
    load_activations: bool = True,
    load_embeddings: bool = True,
    array_dir: str | os.PathLike[str] | None = None,
) -> AnalysisResult:
    """Read a result that `AnalysisResult.save`, or All-In-One itself, has written.

    Parameters
    ----------
    path : path-like
        The JSON file.
    load_activations, load_embeddings : bool
        Whether to read ``NAME.activ.npz`` and ``NAME.embed.npy`` where they are.
    array_dir : path-like, optional
        Folder they lie in; by default beside the JSON.

    Raises
    ------
    ResultError
        If the file or `array_dir` is missing, or a file is not such a result (see `allin1_core.results.validation`). If
        arrays that are there are not those that the JSON names by their SHA-256: they are of another run, of one that
        was killed before it wrote the JSON, or of a version that did not record them. All-In-One's own JSON, which says
        nothing of how it was made, is taken to belong to the arrays beside it.
    """
    if array_dir is not None and not os.path.isdir(expand_user(array_dir)):
        raise ResultError(f"array_dir: no folder at {str(array_dir)!r}; correct it or leave it out")
    path = expand_user(path)
    result, arrays_sha256 = read_json_result(path)
    for kind, array_path in array_paths(path, array_dir).items():
        is_asked_for = load_activations if kind == ACTIVATIONS else load_embeddings
        if is_asked_for and os.path.isfile(array_path):
            content = read_content(array_path, ResultError, most=_LARGEST_ARRAYS)
            if arrays_sha256 is not None:
                _check_sha256(array_path, content, path, arrays_sha256.get(kind))
            read = read_npz if kind == ACTIVATIONS else read_npy
            setattr(result, kind, read(content, str(array_path), ResultError, most=_LARGEST_ARRAYS))
            validate(result, str(array_path))
    return result


def _check_sha256(array_path: Path, content: bytes, path: Path, expected: str | None) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        named = f"that with SHA-256 {expected[:12]}..." if expected else "none"
        raise ResultError(
            f"{array_path}: found SHA-256 {found[:12]}...; expected {named}, which {path} names. The file is another "
            "result's, or damaged: delete it, or make the result again with overwrite='json' (--overwrite json)"
        )


def read_json_result(path: Path) -> tuple[AnalysisResult, dict[str, str] | None]:
    """What the JSON file of a result holds, without arrays.

    Returns
    -------
    AnalysisResult, dict of str
        SHA-256 of its arrays by ``activations`` and ``embeddings``, as far as it has them; None if All-In-One itself
        wrote the file, which says nothing about them.

    Raises
    ------
    ResultError
        If the file is missing, or is not such a result.
    """
    fields = read_json(path, ResultError, most=_LARGEST_JSON)
    if not isinstance(fields, dict):
        raise ResultError(
            f"{path}: not the JSON of an analysis; found {type(fields).__name__}, expected an object"
        )
    for name in ("path", "bpm", "beats", "downbeats", "beat_positions", "segments"):
        if name not in fields:
            raise ResultError(f"{path}: no field {name!r}; expected the JSON of an analysis")
    segments = fields["segments"]
    result = AnalysisResult(
        path=Path(fields["path"]) if isinstance(fields["path"], str) else fields["path"],
        bpm=fields["bpm"],
        beats=fields["beats"],
        downbeats=fields["downbeats"],
        beat_positions=fields["beat_positions"],
        segments=[_segment(segment) for segment in segments] if isinstance(segments, list) else segments,
        provenance=fields.get("provenance", {}),
        tempo=fields.get("tempo"),
        tempo_spread=fields.get("tempo_spread"),
        confidences=fields.get("confidences"),
    )
    validate(result, str(path))
    if not {"provenance", "arrays_sha256"} & fields.keys():
        return result, None
    arrays_sha256 = fields.get("arrays_sha256", {})
    if not isinstance(arrays_sha256, dict) or not all(
        isinstance(item, str) for item in arrays_sha256.values()
    ):
        raise ResultError(
            f"{path}: arrays_sha256: found something else; expected an object of hexadecimal digests"
        )
    return result, arrays_sha256


def _segment(fields: Any) -> Any:
    """A `Segment`, or what is there instead, for `validate` to refuse."""
    if not isinstance(fields, dict) or not {"start", "end", "label"} <= fields.keys():
        return fields
    return Segment(fields["start"], fields["end"], fields["label"])
