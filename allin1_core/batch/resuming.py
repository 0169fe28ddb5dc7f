"""Reuse of earlier results: whether the provenance of a result on disk is that of the present run.

Compared is what changes a result: the audio, the model, the precision, where the stems came from, and how they were
separated. Devices and versions of libraries are not: each is held to give the same beats and sections. Nor are the
backends of spectrogram and network, unless one was asked for by name, or one that is not ours is on either side.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from allin1_core import backends
from allin1_core.errors import OutputError, ResultError, WeightsError
from allin1_core.files.reading import file_digest, read_content
from allin1_core.results.result import (
    ACTIVATIONS,
    EMBEDDINGS,
    AnalysisResult,
    array_paths,
    load_result,
    read_json_result,
)
from allin1_core.separation.track import ReadyStems, Track, audio_digests
from allin1_core.session import Session
from allin1_core.settings import Outputs


def existing(
    track: Track, session: Session, outputs: Outputs, ready: ReadyStems | None, *, keep_arrays: bool
) -> AnalysisResult | None:
    """The result of an earlier run, if it is whole and was not to be made again.

    It is not whole, and made again, if arrays that are there are not those that its JSON names by their SHA-256,
    or arrays asked for are not there.

    Parameters
    ----------
    track, session, outputs
    ready : ReadyStems, optional
        From `find_ready_stems`.
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
    made_otherwise = differences(result, session, audio_digests(track, ready), is_separated=ready is None)
    if made_otherwise:
        raise OutputError(
            f"{path}: the result there was made {', '.join(made_otherwise)}; choose another out_dir, or make it "
            "again with overwrite='json' (--overwrite json)"
        )
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


def differences(
    result: AnalysisResult, session: Session, audio_sha256: Mapping[str, str], *, is_separated: bool
) -> list[str]:
    """What made a result that this run would not make it with.

    Parameters
    ----------
    result : AnalysisResult
        What it does not say is not compared: All-In-One's own results say nothing.
    session : Session
    audio_sha256 : dict of str
        SHA-256 of the files that the track would be made from, by their names; see `audio_digests`.
    is_separated : bool
        Whether the stems would come from a separation.

    Returns
    -------
    list of str
        Such as ``with precision 'fast', not 'exact'``; empty if the result is that of this run.
    """
    recorded = result.provenance
    recorded_stages = recorded.get("stages", {})
    demix = recorded_stages.get("demix", {})
    was_separated = demix["backend"] != "stems" if "backend" in demix else is_separated
    if is_separated != was_separated:
        found = [
            "from separated stems, not ready ones" if was_separated else "from ready stems, not by separation"
        ]
    else:
        found = _other_files(recorded.get("audio_sha256", audio_sha256), audio_sha256)
    found += _other_model(recorded.get("model", {}), session)
    stages = {"spec_backend": session.log_spectrogram.choice, "nn_backend": session.network_choice}
    for (parameter, now), stage in zip(stages.items(), ("spectrogram", "nn"), strict=True):
        found += _other_backend(parameter, recorded_stages.get(stage, {}).get("backend"), now)
        found += _other("precision", recorded_stages.get(stage, {}).get("precision"), now.precision)
    if is_separated and was_separated:
        found += _other("demix_model", demix.get("model"), session.settings.demix_model)
        found += _other("demix_seed", demix.get("seed"), session.settings.demix_seed)
        if demix.get("repository_sha256", session.repository_sha256) != session.repository_sha256:
            found.append(
                f"with other separation weights of {session.settings.demix_model!r} (demix_repository)"
            )
        found += _other("stems_as_int16", recorded.get("stems_as_int16"), session.settings.stems_as_int16)
        if session.settings.demix_backend != "auto":
            found += _other("demix_backend", demix.get("backend"), session.settings.demix_backend)
    return list(dict.fromkeys(found))


def _other(parameter: str, recorded: Any, now: Any) -> list[str]:
    return [] if recorded in (None, now) else [f"with {parameter} {repr(recorded)[:80]}, not {now!r}"]


def _other_files(recorded: Mapping[str, Any], now: Mapping[str, str]) -> list[str]:
    names = sorted(name for name in {*recorded, *now} if recorded.get(name) != now.get(name))
    if not names:
        return []
    more = f" and {len(names) - 6} more" if len(names) > 6 else ""
    return [f"from other audio ({', '.join(name[:80] for name in names[:6])}{more} by SHA-256)"]


def _other_model(recorded: Mapping[str, Any], session: Session) -> list[str]:
    from allin1_core.network.formats import LARGEST_FILE
    from allin1_core.network.weights import ENSEMBLE, PUBLISHED

    found = _other("model", recorded.get("name"), session.settings.model)
    if found or session.settings.model in (ENSEMBLE, *PUBLISHED):
        return found  # the weights of a published name are always the published ones
    weights = [fold.get("sha256") for fold in recorded.get("weights", ())]
    if not weights:
        return []
    content = read_content(session.settings.model, WeightsError, most=LARGEST_FILE)
    if weights != [hashlib.sha256(content).hexdigest()]:
        return [f"with other weights in {session.settings.model}"]
    return []


def _other_backend(parameter: str, recorded: Any, now: backends.Choice) -> list[str]:
    if recorded in (None, now.backend):
        return []
    ours = [backend.name for backend in backends.built_in(now.stage)]
    if now.requested_backend == "auto" and recorded in ours:
        return []
    return _other(parameter, recorded, now.backend)
