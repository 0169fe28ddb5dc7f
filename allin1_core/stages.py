"""The stages of the pipeline, each one timed: what goes in, what runs, what comes out.

Arrays stay with the library that made them. Where the next stage lives elsewhere, the move is a stage of its own
(``transfer``); probabilities come to the host where the decoder and the sections need them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from allin1_core.audio.conversion import quantise
from allin1_core.audio.reading import read_audio
from allin1_core.audio.types import SAMPLE_RATE, STEM_NAMES, Audio, Stems, samples_digest
from allin1_core.byproducts import Byproducts
from allin1_core.dbn.metrical import BEATS_PER_BAR, Beats, beats_from_decoder, decoder_input
from allin1_core.separation import read_stems, stems_from_separated
from allin1_core.separation.protocol import mix_for
from allin1_core.separation.track import ReadyStems, Track, audio_digests
from allin1_core.session import Session
from allin1_core.spectrogram import num_frames
from allin1_core.structure import LOCAL_MAXIMA_WINDOW, Segment, pick_boundaries, sections
from allin1_core.timings.recorder import Timings


def stems_stage(
    session: Session,
    track: Track,
    timings: Timings,
    ready: ReadyStems | None,
    kept: Byproducts | None,
) -> tuple[Stems, dict[str, Any], dict[str, str]]:
    """Four stems, where they came from, and the SHA-256 of what they were made from; see `audio_digests`."""
    if ready is not None:
        with timings.stage("audio_read", track=track.name) as stage:
            digests = audio_digests(track, ready)
            stems, origin = _read_ready_stems(track, ready)
            stage.audio_seconds = stems.seconds
        return stems, origin, digests

    choice = session.separation_choice
    digests, made_from = {}, {}
    if kept is not None:
        digests = audio_digests(track, ready)
        made_from = {
            "audio_sha256": next(iter(digests.values())),
            "model": session.demix_model,
            "repository_sha256": session.repository_sha256,
            "seed": session.demix_seed,
            "stems_as_int16": session.stems_as_int16,
            "separation": choice.as_dict(),
        }
        if kept.has_stems(track, session.demix_model, made_from):
            with timings.stage("demix", track=track.name, choice=choice) as stage:
                found = kept.load_stems(track, session.demix_model, made_from)
                stage.cached = found is not None
                stage.audio_seconds = found[0].seconds if found else None
            if found is not None:
                return *found, digests

    with timings.stage("audio_read", track=track.name) as stage:
        digests = digests or audio_digests(track, ready)
        given = track.path if track.given is None else track.given.audio
        assert not isinstance(given, Stems), "stems are not separated"
        audio = given if isinstance(given, Audio) else read_audio(given)
        stage.audio_seconds = audio.seconds
    with timings.stage("demix", track=track.name, choice=choice, audio_seconds=audio.seconds) as stage:
        stage.details.update(model=session.demix_model, seed=session.demix_seed)
        separated, sample_rate, origin = separate(session, audio, timings.report_progress)
        stems = stems_from_separated(separated, sample_rate)
    if kept is not None:
        with timings.stage("save", track=track.name, audio_seconds=audio.seconds, what="stems"):
            kept.save_stems(track, session.demix_model, separated, sample_rate, stems, made_from, origin)
    return stems, origin, digests


def _read_ready_stems(track: Track, ready: ReadyStems) -> tuple[Stems, dict[str, Any]]:
    origin: dict[str, Any] = {"backend": "stems", "reason": "ready stems were given"}
    if not isinstance(ready, Stems):
        if len({file for file, _ in ready.values()}) == 1:
            streams = {stem: stream for stem, (_, stream) in ready.items()}
            origin |= {"reason": "the file holds its stems", "audio_streams": streams}
        return read_stems(ready, str(track.path)), origin
    if ready.sample_rate != SAMPLE_RATE:
        separated = dict(zip(STEM_NAMES, ready.samples[:, :, np.newaxis], strict=True))
        ready = stems_from_separated(separated, ready.sample_rate)
    return ready, origin


def separate(
    session: Session, audio: Audio, progress: Callable[[float], None] | None = None
) -> tuple[dict[str, np.ndarray], int, dict[str, Any]]:
    """Stems of a mix as files would hold them, their sample rate, and how they were made.

    Returns
    -------
    dict of int16 or float32 (num_samples, num_channels), int, dict
    """
    separator = session.separator()
    separated = separator(mix_for(separator, audio), seed=session.demix_seed, progress=progress)
    stems = {stem: np.ascontiguousarray(samples.T) for stem, samples in separated.items()}
    if session.stems_as_int16:
        stems = {stem: quantise(samples) for stem, samples in stems.items()}
    provenance = {
        **session.separation_choice.as_dict(),
        **separator.provenance,
        "seed": session.demix_seed,
        "repository_sha256": session.repository_sha256,
    }
    return stems, separator.sample_rate, provenance


def spectrogram_stage(
    session: Session, track: Track, timings: Timings, stems: Stems, kept: Byproducts | None
) -> Any:
    """Log spectrogram, float32 (4, T, 81), as the network takes it without a copy where both share memory."""
    log_spectrogram, network = session.log_spectrogram, session.network_choice
    choice = log_spectrogram.choice
    made_from: dict[str, Any] = {}
    if kept is not None:
        made_from = {"stems_sha256": samples_digest(stems), "spectrogram": choice.as_dict()}
        if kept.has_spectrogram(track, made_from):
            frames = num_frames(stems.samples.shape[1], stems.sample_rate)
            with timings.stage("spec_load", track=track.name, audio_seconds=stems.seconds) as stage:
                spectrogram = kept.load_spectrogram(track, made_from, frames)
                stage.cached = spectrogram is not None
            if spectrogram is not None:
                return spectrogram
    with timings.stage("spectrogram", track=track.name, choice=choice, audio_seconds=stems.seconds) as stage:
        native = log_spectrogram(stems.samples, stems.sample_rate, return_native=True)
        stage.output = native
        stage.details["frames"] = int(native.shape[1])
    if kept is not None:
        with timings.stage("save", track=track.name, audio_seconds=stems.seconds, what="spectrogram"):
            kept.save_spectrogram(track, to_host(native), made_from)
    is_neighbour = (choice.backend, choice.device) == (network.backend, network.device)
    if is_neighbour or isinstance(native, np.ndarray):
        return native
    with timings.stage(
        "transfer", track=track.name, audio_seconds=stems.seconds, what="spectrogram"
    ) as stage:
        stage.details.update(
            {"from": f"{choice.backend} on {choice.device}", "to": f"{network.backend} on {network.device}"}
        )
        return to_host(native)


def network_stage(
    session: Session,
    track: Track,
    timings: Timings,
    spectrogram: Any,
    audio_seconds: float,
    include_embeddings: bool,
) -> Any:
    """Probabilities, as arrays of the network's own library."""
    model = session.load_model(timings)
    with timings.stage("nn", track=track.name, choice=model.choice, audio_seconds=audio_seconds) as stage:
        stage.details.update(folds=model.num_folds, frames=int(spectrogram.shape[1]))
        stage.output = model(spectrogram, return_embeddings=include_embeddings)
        return stage.output


def metrical_stage(
    session: Session, track: Track, timings: Timings, output: Any, audio_seconds: float
) -> Beats:
    """Beats with their positions in the bar."""
    with timings.stage("metrical_prep", track=track.name, audio_seconds=audio_seconds):
        activations = decoder_input(to_host(output.beat), to_host(output.downbeat))
        decoder = session.decoder
    with timings.stage(
        "metrical_dbn", track=track.name, choice=session.decoder_choice, audio_seconds=audio_seconds
    ) as stage:
        stage.details.update(beats_per_bar=list(BEATS_PER_BAR), threshold=decoder.threshold)
        return beats_from_decoder(decoder(activations))


def functional_stage(
    session: Session, track: Track, timings: Timings, output: Any, audio_seconds: float
) -> list[Segment]:
    """Labelled sections."""
    choice = session.structure_choice
    with timings.stage("functional_probs", track=track.name, audio_seconds=audio_seconds):
        label = to_host(output.label)
        segment = to_host(output.segment) if choice.library == "numpy" else output.segment
    with timings.stage(
        "functional_local_maxima", track=track.name, choice=choice, audio_seconds=audio_seconds
    ) as stage:
        stage.output = session.local_maxima(segment, LOCAL_MAXIMA_WINDOW)
    with timings.stage("functional_boundaries", track=track.name, audio_seconds=audio_seconds):
        return sections(pick_boundaries(to_host(stage.output)), label)


def activations(output: Any) -> dict[str, np.ndarray]:
    return {name: to_host(getattr(output, name)) for name in ("beat", "downbeat", "segment", "label")}


def to_host(array: Any) -> np.ndarray:
    """A numpy array of an array of numpy, torch or MLX; shares memory where it can."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
    return np.asarray(array)
