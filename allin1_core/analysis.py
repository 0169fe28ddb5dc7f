"""The pipeline: a track enters as a path, goes through the stages in their order, and leaves as a result.

audio file -> separation -> stems (4, N) -> log spectrogram (4, T, 81) -> network -> probabilities (T,)
folder of stems ------------^                               -> decoder -> beats | local maxima -> sections

Arrays stay with the library that made them. Where the next stage lives elsewhere, the move is a stage of its own
(``transfer``); probabilities come to the host where the decoder and the sections need them.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core import backends
from allin1_core.audio.types import Stems
from allin1_core.backends.devices import memory_errors_named, to_host
from allin1_core.byproducts import Byproducts, TimedStage
from allin1_core.dbn import metrical
from allin1_core.dbn.hints import check_within, checked_anchors
from allin1_core.errors import Allin1Error, BackendError, WeightsError
from allin1_core.results import provenance
from allin1_core.results.result import AnalysisResult
from allin1_core.separation.inputs import Input, PathLike
from allin1_core.separation.track import AudioFiles, Track, find_ready_stems
from allin1_core.session import Session
from allin1_core.settings import Settings, documented, options_of
from allin1_core.spectrogram import validate_stems
from allin1_core.structure import LOCAL_MAXIMA_WINDOW, pick_boundaries, section_confidences, sections
from allin1_core.timings.recorder import Timings


@documented(Settings)
class Analyzer:
    """The pipeline with its models, which are loaded once for many tracks.

    Any number of threads may use it at the same time: what one of them loads, the others wait for and share. Mixes are
    separated one after the other. Where a stage runs on MLX, whose arrays belong to the thread that made them, only
    the thread that used it first may use it. Other processes may use it too: after a fork what is loaded
    is theirs as well, except on CUDA, which no forked process can use; and pickled (for ``spawn`` or loky) it carries
    its options and loads again.

    Parameters
    ----------
    <options>

    Raises
    ------
    BackendError
        If a backend, device or precision does not exist, is not installed, or the two do not fit.
    OptionError
        If an option has a value of the wrong form.
    HintError
        If a hint for the beats is out of its range, or contradicts another.
    """

    def __init__(
        self,
        *,
        model: str = "harmonix-all",
        device: str | None = None,
        spec_backend: str = "auto",
        nn_backend: str = "auto",
        precision: str = "exact",
        demix_backend: str = "auto",
        demix_model: str = "htdemucs",
        demix_repository: PathLike | None = None,
        demix_seed: int = 0,
        demix_overlap: float = 0.25,
        stems_as_int16: bool = True,
        weights_dir: PathLike | None = None,
        num_threads: int | None = None,
        jobs: int | None = None,
        min_bpm: float = 55.0,
        max_bpm: float = 215.0,
        beats_per_bar: int | Sequence[int] = (3, 4),
        meter_weights: Sequence[float] | None = None,
        meter_change_prob: float | None = None,
    ) -> None:
        self.session = Session(Settings(**options_of(locals(), Settings)))

    def __reduce__(self) -> tuple[Callable[[], Analyzer], tuple[()]]:
        """Pickled as its options: where it arrives, backends are chosen and weights are loaded again."""
        return functools.partial(type(self), **vars(self.session.settings)), ()

    def __call__(
        self,
        path: Input,
        *,
        stems_dir: PathLike | None = None,
        anchors: Sequence[float | Sequence[float]] | None = None,
        include_activations: bool = False,
        include_embeddings: bool = False,
        include_confidences: bool = False,
        timings: Timings | None = None,
    ) -> AnalysisResult:
        """Analyse one track in memory; writes nothing.

        Parameters and errors are those of `analyze`, of a single track; to `timings` the stages' times are added.
        """
        track = Track.of(path, checked_anchors(anchors, self.session.settings.decoding["beats_per_bar"]))
        return self.analyze_track(
            track,
            AudioFiles(track, stems_dir),
            timings or Timings(),
            include_activations=include_activations,
            include_embeddings=include_embeddings,
            include_confidences=include_confidences,
        )

    def analyze_track(
        self,
        track: Track,
        files: AudioFiles,
        timings: Timings,
        *,
        include_activations: bool = False,
        include_embeddings: bool = False,
        include_confidences: bool = False,
        kept: Byproducts | None = None,
    ) -> AnalysisResult:
        """All stages of one track, whose ready stems were found; see `analyze` for the parameters and errors."""
        session, ready = self.session, files.ready
        stage: TimedStage = functools.partial(timings.stage, track=track.name)

        with (
            session.limited_threads(),
            memory_errors_named(track.name),
            contextlib.ExitStack() as at_end,
            contextlib.ExitStack() as on_device,
        ):
            # Separation, or reading of stems.
            separation = _separation_of(session, track) if ready is None else None  # refused before any work
            session.load_in_background(timings)

            def separated() -> tuple[dict[str, np.ndarray], int, Stems, dict[str, Any]]:
                with session.reading, stage("audio_read") as timed:
                    audio = files.read(track.read_mix)
                    timed.audio_seconds = audio.seconds
                    check_within(track.anchors, audio.seconds)
                with (
                    session.separating,
                    stage("demix", choice=separation, audio_seconds=audio.seconds) as timed,
                ):
                    settings = session.settings
                    timed.details.update(
                        model=settings.demix_model, seed=settings.demix_seed, overlap=settings.demix_overlap
                    )
                    return session.separate(audio, timings.report_progress)

            if ready is not None:
                with session.reading, stage("audio_read") as timed:
                    stems, origin = files.read(lambda: track.read_stems(ready, session.allocate_stems))
                    timed.audio_seconds = stems.seconds
            elif kept:
                stems, origin = kept.stems(track, session, files.digests, stage, separated)
            else:
                *_, stems, origin = separated()
            check_within(track.anchors, stems.seconds)
            stage = functools.partial(stage, audio_seconds=stems.seconds)

            at_end.enter_context(timings.lines_together())

            # Log spectrogram, moved to the network if it is elsewhere.
            transform = session.log_spectrogram
            here, there = transform.choice, session.network_choice

            def transformed() -> Any:
                samples = validate_stems(stems.samples)  # before it holds the device
                if here.device != "cpu":
                    on_device.enter_context(session.on_device)
                with stage("spectrogram", choice=here) as timed:
                    timed.output = transform.of_valid(samples, stems.sample_rate, return_native=True)
                    timed.details["frames"] = int(timed.output.shape[1])
                if kept:
                    on_device.close()  # it is hashed and written while another track has the device
                return timed.output

            spectrogram = kept.spectrogram(track, stems, here, stage, transformed) if kept else transformed()
            if here.device == "cpu" or kept:
                on_device.enter_context(session.on_device)
            place = "{0.backend} on {0.device}".format
            arrays = {backends.get(choice.stage, choice.backend).arrays for choice in (here, there)}
            moves = len(arrays) > 1 or here.device != there.device
            if moves and not isinstance(spectrogram, np.ndarray):
                with stage("transfer", what="spectrogram", **{"from": place(here), "to": place(there)}):
                    spectrogram = to_host(spectrogram)

            # Probabilities, as the network's own arrays.
            model = session.load_model(timings)
            with stage("nn", choice=model.choice, folds=model.num_folds) as timed:
                timed.details["frames"] = int(spectrogram.shape[1])
                output = timed.output = model(spectrogram, return_embeddings=include_embeddings)

            # Beats with their positions in the bar, and labelled sections.
            with stage("postprocess"):
                with stage("functional_probs"):
                    output = output.to_numpy()
                    label, boundary = output.label, output.segment
                    names = ("beat", "downbeat", "segment", "label") if include_activations else ()
                    kept_probabilities = {name: getattr(output, name) for name in names}
                on_device.close()  # all is on the host: the next track may have it
                with stage("metrical_prep"):
                    activations = metrical.decoder_input(output.beat, output.downbeat)
                    decoder = session.decoder
                with stage("functional_local_maxima", choice=session.structure_choice):
                    maxima = session.local_maxima(boundary, LOCAL_MAXIMA_WINDOW)
                with stage("metrical_dbn", choice=session.decoder_choice) as timed:
                    bars = decoder.beats_per_bar.tolist()
                    timed.details.update(beats_per_bar=bars, threshold=decoder.threshold)
                    beats = metrical.beats_from_decoder(decoder(activations, anchors=track.anchors))
                with stage("functional_boundaries"):
                    segments = sections(pick_boundaries(maxima), label)
                tempo = metrical.fitted_tempo(beats.times)
                confidences = None
                if include_confidences:
                    with stage("confidences"):
                        found = decoder.confidences(activations, beats.times, anchors=track.anchors)
                        boundaries, labels = section_confidences(segments, boundary, label)
                        is_first = np.array(beats.positions) == 1
                        of_each = {"beats": found[:, 0], "downbeats": found[is_first, 1]}
                        of_each |= {"boundaries": boundaries, "labels": labels}
                        confidences = {name: np.round(values, 4).tolist() for name, values in of_each.items()}

            return AnalysisResult(
                path=track.path,
                bpm=metrical.most_frequent_tempo(beats.times),
                beats=beats.times,
                downbeats=beats.downbeats,
                beat_positions=beats.positions,
                segments=segments,
                tempo=None if tempo is None else tempo.bpm,
                tempo_spread=None if tempo is None else tempo.spread,
                confidences=confidences,
                provenance=provenance.record(session, origin, files.digests, track.anchors),
                activations=kept_probabilities or None,
                embeddings=output.embeddings,
            )


def _separation_of(session: Session, mix: Track) -> backends.Choice:
    try:
        return session.separation_choice
    except BackendError as error:
        raise BackendError(f"{mix.path}: a mix, without ready stems: {error}") from error


def check_separation(session: Session, tracks: Iterable[Track], stems_dir: PathLike | None = None) -> None:
    """Refuse a mix that no backend can separate; tracks are looked at only if none can.

    Raises
    ------
    BackendError
        Names the first mix. What else is wrong with a track its analysis says.
    """
    try:
        session.separation_choice  # noqa: B018
    except BackendError:
        for track in tracks:
            try:
                ready = find_ready_stems(track, stems_dir)
            except Allin1Error:
                continue
            if ready is None:
                _separation_of(session, track)


def check_files(settings: Settings) -> None:
    """Refuse files and folders of weights that are not there, whether or not their stage will run: `WeightsError`."""
    from allin1_core.network.weights import check_name, explicit_folder
    from allin1_core.separation.protocol import check_own_model

    check_name(settings.model)
    explicit_folder(settings.weights_dir)
    if settings.demix_repository is not None:
        check_own_model(settings.demix_model, Path(settings.demix_repository))


def check_settings(session: Session) -> None:
    """Refuse what `check_files` does, and names of separation models that the chosen backend does not know.

    Raises
    ------
    WeightsError
        Says which there are.
    """
    settings = session.settings
    check_files(settings)
    # To ask for others than the usual one may import torch.
    if settings.demix_repository is None and settings.demix_model != Settings.demix_model:
        names = session.demix_model_names()
        if names and settings.demix_model not in names:
            raise WeightsError(
                f"demix_model: {settings.demix_model!r} unknown; expected one of {', '.join(names)}"
            )
