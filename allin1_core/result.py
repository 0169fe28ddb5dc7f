"""What an analysis gives, and its files: JSON as All-In-One writes it, with the arrays beside it."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core.errors import ResultError
from allin1_core.files import make_folder, write_text, written_whole
from allin1_core.regular_files import read_content, read_json, read_npy, read_npz
from allin1_core.structure import Segment

# Bytes. Embeddings of the ensemble take 300 kB a second.
_LARGEST_JSON = 64 << 20
_LARGEST_ARRAYS = 8 << 30

ACTIVATIONS_SUFFIX = ".activ.npz"
EMBEDDINGS_SUFFIX = ".embed.npy"


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
        ``beat``, ``downbeat``, ``segment`` ``(T,)`` and ``label`` ``(10, T)``; 100 frames a second.
    embeddings : float32 array, optional
        ``(4, T, 24)``, and with an ensemble ``(4, T, 24, folds)``.
    tempo : float or None
        Beats per minute to hundredths, by a line through all beats; None with fewer than eight beats, and in results
        of All-In-One itself. See `allin1_core.metrical.fitted_tempo`.
    tempo_spread : float or None
        How much the tempo varies over the track, in beats per minute: half the width of the range that 90 % of the
        local tempi, each over 16 beats, lie in. Of a steady track below 0.25, which is what rounding beats to 0.01 s
        leaves.
    """

    path: Path
    bpm: int | None
    beats: list[float]
    downbeats: list[float]
    beat_positions: list[int]
    segments: list[Segment]
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)
    activations: dict[str, np.ndarray] | None = None
    embeddings: np.ndarray | None = None
    tempo: float | None = None
    tempo_spread: float | None = None

    def to_json(self) -> str:
        """The text of the JSON file: one line a field, so that results compare well line by line."""
        fields: dict[str, Any] = {
            "path": str(self.path),
            "bpm": self.bpm,
            "beats": self.beats,
            "downbeats": self.downbeats,
            "beat_positions": self.beat_positions,
            "segments": [dataclasses.asdict(segment) for segment in self.segments],
            "tempo": self.tempo,
            "tempo_spread": self.tempo_spread,
            "provenance": self.provenance,
        }
        lines = [f"  {json.dumps(name)}: {_value(value)}" for name, value in fields.items()]
        return "{\n" + ",\n".join(lines) + "\n}\n"

    def save(self, path: str | os.PathLike[str], array_dir: str | os.PathLike[str] | None = None) -> Path:
        """Write the result: ``NAME.json``, and where it carries them ``NAME.activ.npz`` and ``NAME.embed.npy``.

        The JSON is written last: where it is, the result is complete.

        Parameters
        ----------
        path : path-like
            The JSON file; its folder is created.
        array_dir : path-like, optional
            Folder for the arrays, created if there are any; by default they lie beside the JSON.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        path = Path(path)
        make_folder(path.parent)
        activations, embeddings = array_paths(path, array_dir)
        if self.activations is not None:
            make_folder(activations.parent)
            with written_whole(activations) as file:
                np.savez(file, **self.activations)  # type: ignore[arg-type]
        if self.embeddings is not None:
            make_folder(embeddings.parent)
            with written_whole(embeddings) as file:
                np.save(file, self.embeddings)
        return write_text(path, self.to_json())


def array_paths(path: Path, array_dir: str | os.PathLike[str] | None = None) -> tuple[Path, Path]:
    """Where the activations and the embeddings of a result lie, whose JSON is at `path`."""
    folder = path.parent if array_dir is None else Path(array_dir).expanduser()
    return folder / f"{path.stem}{ACTIVATIONS_SUFFIX}", folder / f"{path.stem}{EMBEDDINGS_SUFFIX}"


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
        If a file is missing, or is not such a result.
    """
    path = Path(path).expanduser()
    fields = read_json(path, ResultError, most=_LARGEST_JSON)
    try:
        result = _from_fields(fields)
    except KeyError as error:
        raise ResultError(f"{path}: no field {error}; expected the JSON of an analysis") from error
    except (ValueError, TypeError) as error:
        raise ResultError(f"{path}: not the JSON of an analysis ({error})") from error
    activations, embeddings = array_paths(path, array_dir)
    if load_activations and activations.is_file():
        content = read_content(activations, ResultError, most=_LARGEST_ARRAYS)
        result.activations = read_npz(content, str(activations), ResultError, most=_LARGEST_ARRAYS)
    if load_embeddings and embeddings.is_file():
        content = read_content(embeddings, ResultError, most=_LARGEST_ARRAYS)
        result.embeddings = read_npy(content, str(embeddings), ResultError, most=_LARGEST_ARRAYS)
    return result


def _from_fields(fields: Any) -> AnalysisResult:
    """The result that JSON stands for; `KeyError`, `TypeError` or `ValueError` if it stands for none."""
    if not isinstance(fields, dict):
        raise TypeError(f"found {type(fields).__name__}, expected an object")
    provenance = fields.get("provenance", {})
    _check_object("provenance", provenance)
    for name in ("model", "stages", "audio_sha256"):
        _check_object(f"provenance.{name}", provenance.get(name, {}))
    for name, stage in provenance.get("stages", {}).items():
        _check_object(f"provenance.stages.{name[:40]}", stage)
    weights = provenance.get("model", {}).get("weights", [])
    if not isinstance(weights, list):
        raise TypeError(f"provenance.model.weights is {type(weights).__name__}, expected a list")
    for fold in weights:
        _check_object("provenance.model.weights", fold)
    return AnalysisResult(
        path=Path(fields["path"]),
        bpm=_number_or_none(fields["bpm"]),
        beats=[_number(time) for time in fields["beats"]],
        downbeats=[_number(time) for time in fields["downbeats"]],
        beat_positions=[_number(position) for position in fields["beat_positions"]],
        segments=[
            Segment(_number(segment["start"]), _number(segment["end"]), str(segment["label"]))
            for segment in fields["segments"]
        ],
        provenance=provenance,
        tempo=_number_or_none(fields.get("tempo")),
        tempo_spread=_number_or_none(fields.get("tempo_spread")),
    )


def _check_object(name: str, value: Any) -> None:
    if not isinstance(value, dict):
        raise TypeError(f"{name} is {type(value).__name__}, expected an object")


def _number(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < float("inf"):
        raise TypeError(f"found {str(value)[:40]!r}, expected a number")
    return value


def _number_or_none(value: Any) -> Any:
    return None if value is None else _number(value)
