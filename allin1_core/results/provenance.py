"""Provenance: what a result records of how it was made, and what of that a run must share to take it for its own.

Compared is what changes a result: the audio, the model, the precision, where the stems came from, how they were
separated, and the hints for the beats. Devices and versions of libraries are not: each is held to give the same beats
and sections. Nor are the backends of spectrogram and network, unless one was asked for by name, or one that is not ours
is on either side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from allin1_core import __version__, backends
from allin1_core.dbn.hints import Anchors
from allin1_core.errors import WeightsError
from allin1_core.files.reading import read_content
from allin1_core.files.writing import expand_user
from allin1_core.results.result import AnalysisResult

if TYPE_CHECKING:
    from allin1_core.session import Session


def record(
    session: Session, stems: Mapping[str, Any], audio_sha256: Mapping[str, str], anchors: Anchors = ()
) -> dict[str, Any]:
    """What a result says about how it was made.

    Parameters
    ----------
    session : Session
    stems : dict
        Where the stems came from.
    audio_sha256 : dict of str
        SHA-256 of the files that they were made from, by name.
    anchors : tuple of (float, int)
        See `allin1_core.dbn.hints`.
    """
    hints = _hints(session, anchors)
    return {
        "allin1_core_version": __version__,
        "model": {"name": session.settings.model, "weights": session.model.provenance},
        "audio_sha256": audio_sha256,
        "stems_as_int16": session.settings.stems_as_int16,
        "stages": {
            "demix": stems,
            "spectrogram": session.log_spectrogram.choice.as_dict(),
            "nn": session.model.choice.as_dict(),
            "metrical_dbn": session.decoder_choice.as_dict(),
            "functional_local_maxima": session.structure_choice.as_dict(),
        },
        **({"hints": hints} if hints else {}),
    }


def _hints(session: Session, anchors: Anchors) -> dict[str, Any]:
    """The hints that were given, as JSON has them."""
    of_track = {"anchors": [list(anchor) for anchor in anchors]} if anchors else {}
    return session.settings.hints | of_track


def differences(
    result: AnalysisResult,
    session: Session,
    audio_sha256: Mapping[str, str],
    anchors: Anchors = (),
    *,
    is_separated: bool,
) -> list[str]:
    """What made a result that this run would not make it with.

    Parameters
    ----------
    result : AnalysisResult
        What it does not say is not compared: All-In-One's own results say nothing. Hints that it does not
        name were not given.
    session : Session
    audio_sha256 : dict of str
        SHA-256 of the files that the track would be made from, by their names; see `AudioFiles`.
    anchors : tuple of (float, int)
        Beats of the track that are known.
    is_separated : bool
        Whether the stems would come from a separation.

    Returns
    -------
    list of str
        Such as ``with precision 'fast', not 'exact'``; empty if the result is that of this run.
    """
    recorded, settings = result.provenance, session.settings
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
        found += _other("demix_model", demix.get("model"), settings.demix_model)
        found += _other("demix_seed", demix.get("seed"), settings.demix_seed)
        found += _other("demix_overlap", demix.get("overlap"), settings.demix_overlap)
        found += _other("precision", demix.get("precision"), settings.precision)
        if demix.get("repository_sha256", session.repository_sha256) != session.repository_sha256:
            found.append(f"with other separation weights of {settings.demix_model!r} (demix_repository)")
        found += _other("stems_as_int16", recorded.get("stems_as_int16"), settings.stems_as_int16)
        if settings.demix_backend != "auto":
            found += _other("demix_backend", demix.get("backend"), settings.demix_backend)
    then, asked = recorded.get("hints") or {}, _hints(session, anchors)
    if then != asked:  # there may be hundreds of anchors
        found.append(f"with hints {repr(then)[:80]}, not {repr(asked)[:80]}")
    return list(dict.fromkeys(found))


def _other(parameter: str, recorded: Any, now: Any) -> list[str]:
    # It may be a path, or whatever stands in a file of others.
    return [] if recorded in (None, now) else [f"with {parameter} {repr(recorded)[:300]}, not {now!r}"]


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
    content = read_content(expand_user(session.settings.model), WeightsError, most=LARGEST_FILE)
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
