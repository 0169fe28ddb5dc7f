"""Reuse of earlier results: whether the result on disk is whole, and its provenance that of the present run."""

from __future__ import annotations

import os
from pathlib import Path

from allin1_core.errors import OutputError, ResultError
from allin1_core.files.reading import file_digest
from allin1_core.results.provenance import differences
from allin1_core.results.result import (
    ACTIVATIONS,
    EMBEDDINGS,
    AnalysisResult,
    array_paths,
    load_result,
    read_json_result,
)
from allin1_core.separation.track import AudioFiles, Track
from allin1_core.session import Session
from allin1_core.settings import Outputs


def existing(
    track: Track, session: Session, outputs: Outputs, files: AudioFiles, *, keep_arrays: bool
) -> AnalysisResult | None:
    """The result of an earlier run, if it is whole and was not to be made again.

    It is not whole, and made again, if arrays that are there are not those that its JSON names by their SHA-256,
    or arrays asked for are not there.

    Parameters
    ----------
    track, session, outputs, files
    keep_arrays : bool
        Whether the result carries the arrays asked for. If not, it carries the activations if they are drawn. The
        SHA-256 of all that are there is checked either way.

    Raises
    ------
    OutputError
        If it was made from other audio, or with settings that give another result; see `differences`.
    ResultError
        If the file there is no result.
    AudioError, StemsError
        If what it was made from cannot be read.
    """
    path = outputs.result_path(track.name)
    if path is None or "json" in outputs.remade or not path.is_file():
        return None
    result, arrays_sha256 = read_json_result(path)
    made_otherwise = differences(
        result, session, files.digests, track.anchors, is_separated=files.ready is None
    )
    if made_otherwise:
        raise OutputError(
            f"{path}: the result there was made {', '.join(made_otherwise)}; choose another out_dir, or make it "
            "again with overwrite='json' (--overwrite json)"
        )
    if outputs.include_confidences and result.confidences is None:
        return None
    is_asked_for = {ACTIVATIONS: outputs.include_activations, EMBEDDINGS: outputs.include_embeddings}
    for kind, array_path in array_paths(path, outputs.array_dir).items():
        if not os.path.isfile(array_path):
            if is_asked_for[kind]:
                return None
        elif arrays_sha256 is not None and not _has_digest(array_path, arrays_sha256.get(kind)):
            return None
    load_activations = outputs.include_activations and (keep_arrays or outputs.figures_dir is not None)
    load_embeddings = outputs.include_embeddings and keep_arrays
    if load_activations or load_embeddings:
        return load_result(path, load_activations, load_embeddings, outputs.array_dir)
    return result


def _has_digest(path: Path, sha256: str | None) -> bool:
    try:
        return file_digest(path, ResultError) == sha256
    except ResultError:
        return False  # another process is replacing it, or it cannot be read
