"""A session: decides once which implementations run, loads once, analyses many."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import glob
import os
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from allin1_core import __version__, backends
from allin1_core.dbn.metrical import BEATS_PER_BAR, FRAMES_PER_SECOND
from allin1_core.files.reading import file_digest
from allin1_core.files.writing import expand_user
from allin1_core.threads import Lock, call_in_child, check_num_threads
from allin1_core.timings.recorder import Timings

if TYPE_CHECKING:
    from allin1_core.dbn import DBNDownBeatTrackingProcessor
    from allin1_core.network.model import Model
    from allin1_core.network.weights import Checkpoint
    from allin1_core.separation import Separator
    from allin1_core.structure.protocol import LocalMaximaBackend


Loaded = TypeVar("Loaded")


class _LoadedOnce(Generic[Loaded]):
    """What one thread loads while others that need it wait; a failure is not kept."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._value: Loaded | None = None

    @property
    def is_loaded(self) -> bool:
        return self._value is not None

    def get(self, load: Callable[[], Loaded]) -> Loaded:
        with self._lock:
            if self._value is None:
                self._value = load()
            return self._value


class Session:
    """The chosen backends, and what they have loaded.

    Choices are made at once, so that a request that cannot be met is refused before any work. The network's weights
    are read in a thread of their own (`load_in_background`), beside the first track's separation; the separation
    model is loaded when a mix first needs it. What is loaded is loaded once; loading that failed is tried again when
    next asked for.

    Threads may share it as they may share an `Analyzer`.

    Parameters
    ----------
    model, device, spec_backend, nn_backend, precision, demix_backend, demix_model, demix_repository, demix_seed, \
    stems_as_int16, weights_dir, num_threads
        As in `allin1_core.analyze`.

    Raises
    ------
    BackendError
        If a backend, device or precision does not exist, is not installed, or the two do not fit, or `num_threads` is
        not positive.
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
        demix_repository: str | os.PathLike[str] | None = None,
        demix_seed: int = 0,
        stems_as_int16: bool = True,
        weights_dir: str | os.PathLike[str] | None = None,
        num_threads: int | None = None,
    ) -> None:
        from allin1_core.spectrogram import LogSpectrogram

        check_num_threads(num_threads)
        self.model_name = model
        self.demix_model = demix_model
        self.demix_repository = None if demix_repository is None else expand_user(demix_repository)
        self.demix_seed = demix_seed
        self.stems_as_int16 = stems_as_int16
        self.demix_backend = demix_backend
        self._weights_dir = weights_dir
        self._network = backends.choose("network", nn_backend, device=device, precision=precision)
        self.network_choice = self._network[1]
        row, choice = backends.choose_beside(
            self.network_choice, "spectrogram", spec_backend, precision=precision
        )
        self.log_spectrogram = LogSpectrogram(choice, row.load())
        row, self.structure_choice = backends.choose_beside(self.network_choice, "structure")
        self.local_maxima: LocalMaximaBackend = row.load()
        self._reading: concurrent.futures.Future[list[Checkpoint]] | None = None
        self._reading_lock = Lock()
        self._model: _LoadedOnce[Model] = _LoadedOnce()
        self._separator: _LoadedOnce[Separator] = _LoadedOnce()
        self._decoder: _LoadedOnce[DBNDownBeatTrackingProcessor] = _LoadedOnce()
        self.num_threads = num_threads
        call_in_child(self)

    def reset_in_child(self) -> None:
        """Forget the reading of weights, which no thread of a forked child goes on with."""
        self._reading = None

    @functools.cached_property
    def _separation(self) -> tuple[backends.Backend, backends.Choice]:
        return backends.choose_beside(self.network_choice, "separation", self.demix_backend)

    @property
    def separation_choice(self) -> backends.Choice:
        """Which implementation separates mixes; `BackendError` if none is installed."""
        return self._separation[1]

    def check_separation(self) -> None:
        """Raise `BackendError` if no separation backend, or not the one asked for, can run here."""
        _ = self.separation_choice

    @functools.cached_property
    def repository_sha256(self) -> dict[str, str]:
        """SHA-256 of the files in `demix_repository` that the separation model is made of, by name; {} without one.

        A bag of models (``NAME.yaml``) may be made of any model there.
        """
        if self.demix_repository is None:
            return {}
        folder = self.demix_repository
        bag = folder / f"{self.demix_model}.yaml"
        models = sorted(folder.glob("*.th" if bag.is_file() else f"{glob.escape(self.demix_model)}*.th"))
        return {path.name: file_digest(path) for path in (bag, *models) if path.is_file()}

    def separator(self) -> Separator:
        """The separation model, loaded when first asked for.

        Raises
        ------
        BackendError
            If no separation backend is installed.
        WeightsError
            If its weights cannot be had.
        """
        return self._separator.get(self._load_separator)

    def _load_separator(self) -> Separator:
        row, choice = self._separation
        loaded: Separator = row.load()(
            self.demix_model, device=choice.device, repository=self.demix_repository
        )
        return loaded

    def load_in_background(self, timings: Timings) -> None:
        """Start reading the network's weights, unless that was done before, and did not fail."""
        if self._model.is_loaded:
            return
        with self._reading_lock:
            if self._reading is not None and self._reading.done() and self._reading.exception() is not None:
                self._reading = None
        self._reading_of_checkpoints(timings)

    def _reading_of_checkpoints(self, timings: Timings) -> concurrent.futures.Future[list[Checkpoint]]:
        with self._reading_lock:
            if self._reading is None:
                self._reading = concurrent.futures.Future()
                # Not of a pool: a process that ends waits for a pool's threads, and this one may be downloading.
                threading.Thread(
                    target=self._fulfil, args=(self._reading, timings), name="model_load", daemon=True
                ).start()
            return self._reading

    def _fulfil(self, reading: concurrent.futures.Future[list[Checkpoint]], timings: Timings) -> None:
        try:
            reading.set_result(self._read_checkpoints(timings))
        except BaseException as error:
            reading.set_exception(error)

    def _read_checkpoints(self, timings: Timings) -> list[Checkpoint]:
        from allin1_core.network.weights import load_checkpoints

        with timings.stage(
            "model_load", choice=self.network_choice, in_background=True, model=self.model_name, per="run"
        ) as stage:
            # Importing torch or MLX takes longer than reading the weights.
            self._network[0].load()
            checkpoints = list(load_checkpoints(self.model_name, weights_dir=self._weights_dir))
            stage.details.update(folds=len(checkpoints), what="weights")
        # Its models are made once for each set of parameters: here, so that the first track need not wait for them.
        self._make_decoder(checkpoints[0].thresholds.downbeat)
        return checkpoints

    def load_model(self, timings: Timings) -> Model:
        """The network; waits until its weights are read, and builds it in the calling thread.

        Building is left to the caller's thread because MLX arrays belong to the thread that made them.

        Raises
        ------
        WeightsError
            If its weights cannot be had or do not fit.
        """
        return self._model.get(lambda: self._build_model(timings))

    def _build_model(self, timings: Timings) -> Model:
        from allin1_core.network.model import build_chosen

        reading = self._reading_of_checkpoints(timings)
        try:
            checkpoints = reading.result()
        except BaseException:
            with self._reading_lock:
                self._reading = None if self._reading is reading else self._reading
            raise
        with timings.stage(
            "model_load", choice=self.network_choice, model=self.model_name, per="run", what="build"
        ):
            return build_chosen(checkpoints, self._network, self.num_threads)

    @property
    def model(self) -> Model:
        """The network; see `load_model`."""
        return self.load_model(Timings())

    @property
    def decoder(self) -> DBNDownBeatTrackingProcessor:
        """The downbeat decoder with the network's threshold, built when first asked for."""
        return self._decoder.get(lambda: self._make_decoder(self.model.thresholds.downbeat))

    @staticmethod
    def _make_decoder(threshold: float) -> DBNDownBeatTrackingProcessor:
        from allin1_core.dbn import DBNDownBeatTrackingProcessor

        return DBNDownBeatTrackingProcessor(
            beats_per_bar=list(BEATS_PER_BAR),
            threshold=threshold,
            fps=FRAMES_PER_SECOND,
            num_threads=len(BEATS_PER_BAR),
        )

    @property
    def decoder_choice(self) -> backends.Choice:
        """What decodes, in terms of what the caller asked for: the decoder has the host only to run on."""
        return dataclasses.replace(
            self.decoder.choice,
            requested_device=self.network_choice.requested_device,
            device_because="the decoder runs on the host",
        )

    def provenance(self, stems: dict[str, Any], audio_sha256: dict[str, str]) -> dict[str, Any]:
        """What a result says about how it was made.

        Parameters
        ----------
        stems : dict
            Where the stems came from.
        audio_sha256 : dict of str
            SHA-256 of the files that they were made from, by name.
        """
        return {
            "allin1_core_version": __version__,
            "model": {"name": self.model_name, "weights": self.model.provenance},
            "audio_sha256": audio_sha256,
            "stems_as_int16": self.stems_as_int16,
            "stages": {
                "demix": stems,
                "spectrogram": self.log_spectrogram.choice.as_dict(),
                "nn": self.model.choice.as_dict(),
                "metrical_dbn": self.decoder_choice.as_dict(),
                "functional_local_maxima": self.structure_choice.as_dict(),
            },
        }
