"""A session: decides once which implementations run, loads once, analyses many."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import dataclasses
import functools
import glob
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from allin1_core import backends
from allin1_core.backends.devices import Allocator, allocator_for
from allin1_core.dbn.metrical import FRAMES_PER_SECOND
from allin1_core.errors import BackendError
from allin1_core.files.reading import file_digest
from allin1_core.settings import Settings
from allin1_core.threads import Lock, Slots, at_most_usable, call_in_child, limited_cores, usable_cores
from allin1_core.timings.recorder import Timings

if TYPE_CHECKING:
    from allin1_core.audio.types import Audio, Stems
    from allin1_core.dbn import DBNDownBeatTrackingProcessor
    from allin1_core.network.model import Model
    from allin1_core.network.weights import Checkpoint
    from allin1_core.separation import Separator
    from allin1_core.structure.protocol import LocalMaximaBackend


# Cores that reading a track keeps busy: four threads read its stems, of which the last is alone for a while.
_CORES_OF_A_READER = 3

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
    settings : Settings

    Raises
    ------
    BackendError
        If a backend, device or precision does not exist, is not installed, or the two do not fit.
    """

    def __init__(self, settings: Settings) -> None:
        from allin1_core.spectrogram import LogSpectrogram

        self.settings = settings
        self._network = backends.choose(
            "network", settings.nn_backend, device=settings.device, precision=settings.precision
        )
        self.network_choice = self._network[1]
        row, choice = backends.choose_beside(
            self.network_choice, "spectrogram", settings.spec_backend, precision=settings.precision
        )
        self.log_spectrogram = LogSpectrogram(choice, row.load())
        row, choice = backends.choose("structure", device="cpu")
        self.structure_choice = self._on_the_host(choice, "the boundaries are picked on the host")
        self.local_maxima: LocalMaximaBackend = row.load()
        self._reading: concurrent.futures.Future[list[Checkpoint]] | None = None
        self._reading_lock = Lock()
        self._device, self._separation_lock = Lock(), Lock()
        self._readers = Slots(max(1, usable_cores() // _CORES_OF_A_READER))
        self._model: _LoadedOnce[Model] = _LoadedOnce()
        self._separator: _LoadedOnce[Separator] = _LoadedOnce()
        self._decoder: _LoadedOnce[DBNDownBeatTrackingProcessor] = _LoadedOnce()
        call_in_child(self)

    def reset_in_child(self) -> None:
        """Forget the reading of weights, which no thread of a forked child goes on with."""
        self._reading = None

    def limited_threads(self) -> contextlib.AbstractContextManager[None]:
        """Within it no stage on the CPU starts more threads than the settings allow."""
        most = self.settings.num_threads
        return contextlib.nullcontext() if most is None else limited_cores(at_most_usable(most))

    @property
    def keeps_to_one_thread(self) -> bool:
        """Whether a stage runs on MLX, whose arrays belong to the thread that made them."""
        chosen = [self.network_choice, self.structure_choice, self.log_spectrogram.choice]
        with contextlib.suppress(BackendError):  # none separates; a mix is refused when it comes
            chosen.append(self.separation_choice)
        return any(choice.library == "mlx" or choice.device == "mlx" for choice in chosen)

    @property
    def shares_cores(self) -> bool:
        """Whether several tracks may compute at a time, each on a part of the cores, as compiled kernels let them."""
        return self.network_choice.device == "cpu" and self.network_choice.library == "allin1-core"

    @property
    def on_device(self) -> contextlib.AbstractContextManager[None]:
        """Held by the one track that the network's device works for; by any number where they share the cores.

        A GPU does its work in the order it is given, so that a track would wait for the work of those before it.
        Torch on a CPU takes all cores, and keeps their number for the whole process.
        """
        return contextlib.nullcontext() if self.shares_cores else self._device

    @property
    def reading(self) -> contextlib.AbstractContextManager[None]:
        """Held while a track is read beside a device, by only as many tracks as keep the cores busy.

        If all were read at once, the device would wait until all of them are nearly done.
        """
        return contextlib.nullcontext() if self.shares_cores else self._readers

    @property
    def allocate_stems(self) -> Allocator:
        """Makes the array that stems come in, where the log spectrogram's device reads it fastest."""
        return allocator_for(self.log_spectrogram.choice.computed_on)

    @property
    def separating(self) -> contextlib.AbstractContextManager[None]:
        """Held by the one track that is separated, which takes the device, or on a CPU all cores and much memory."""
        return self._separation_lock if self.separation_choice.device == "cpu" else self._device

    @functools.cached_property
    def _separation(self) -> tuple[backends.Backend, backends.Choice]:
        settings = self.settings
        return backends.choose_beside(
            self.network_choice, "separation", settings.demix_backend, precision=settings.precision
        )

    @property
    def separation_choice(self) -> backends.Choice:
        """Which implementation separates mixes; `BackendError` if none is installed."""
        return self._separation[1]

    @functools.cached_property
    def repository_sha256(self) -> dict[str, str]:
        """See the function `repository_sha256`."""
        return repository_sha256(self.settings)

    def demix_model_names(self) -> list[str]:
        """Names of the separation models that the chosen backend says it knows; [] if none is installed, or says."""
        try:
            names = getattr(self._separation[0].load(), "model_names", list)
        except BackendError:
            return []
        return list(names())

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
            self.settings.demix_model,
            device=choice.device,
            precision=choice.precision,
            repository=self.settings.demix_repository,
        )
        return loaded

    def separate(
        self, mix: Audio, progress: Callable[[float], None] | None = None
    ) -> tuple[dict[str, Any], int, Stems, dict[str, Any]]:
        """Stems of a mix.

        Returns
        -------
        dict of int16 or float32 (num_samples, num_channels)
            As files would hold them; arrays of the separator's library, where it left them.
        int
            Their sample rate.
        Stems
            As the spectrogram takes them.
        dict
            What a result says about how they were made.
        """
        from allin1_core.separation.protocol import separate, stems_from_separated

        separator, settings = self.separator(), self.settings
        separated = separate(
            separator,
            mix,
            seed=settings.demix_seed,
            overlap=settings.demix_overlap,
            as_int16=settings.stems_as_int16,
            progress=progress,
            on_host=False,
        )
        provenance = {
            **self.separation_choice.as_dict(),
            **separator.provenance,
            "seed": settings.demix_seed,
            "overlap": settings.demix_overlap,
            "repository_sha256": self.repository_sha256,
        }
        sample_rate = separator.sample_rate
        stems = stems_from_separated(separated, sample_rate, self.allocate_stems)
        return separated, sample_rate, stems, provenance

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
            "model_load", choice=self.network_choice, in_background=True, model=self.settings.model, per="run"
        ) as stage:
            # Importing torch or MLX takes longer than reading the weights.
            self._network[0].load()
            checkpoints = list(load_checkpoints(self.settings.model, weights_dir=self.settings.weights_dir))
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
            "model_load", choice=self.network_choice, model=self.settings.model, per="run", what="build"
        ):
            # Outside of any `limited_cores`, which hold for calls: the next one's may allow more.
            build = functools.partial(build_chosen, checkpoints, self._network, self.settings.num_threads)
            return contextvars.Context().run(build)

    @property
    def model(self) -> Model:
        """The network; see `load_model`."""
        return self._model.get(lambda: self._build_model(Timings()))

    @property
    def decoder(self) -> DBNDownBeatTrackingProcessor:
        """The downbeat decoder with the network's threshold, built when first asked for."""
        return self._decoder.get(lambda: self._make_decoder(self.model.thresholds.downbeat))

    def _make_decoder(self, threshold: float) -> DBNDownBeatTrackingProcessor:
        from allin1_core.dbn import DBNDownBeatTrackingProcessor

        decoding = self.settings.decoding
        return DBNDownBeatTrackingProcessor(
            **decoding,
            threshold=threshold,
            fps=FRAMES_PER_SECOND,
            num_threads=len(decoding["beats_per_bar"]),
        )

    @property
    def decoder_choice(self) -> backends.Choice:
        """What decodes, in terms of what the caller asked for: the decoder has the host only to run on."""
        return self._on_the_host(self.decoder.choice, "the decoder runs on the host")

    def _on_the_host(self, choice: backends.Choice, because: str) -> backends.Choice:
        return dataclasses.replace(
            choice, requested_device=self.network_choice.requested_device, device_because=because
        )


def repository_sha256(settings: Settings) -> dict[str, str]:
    """SHA-256 of the files in `demix_repository` that the separation model is made of, by name; {} without one.

    A bag of models (``NAME.yaml``) may be made of any model there.
    """
    if settings.demix_repository is None:
        return {}
    folder = Path(settings.demix_repository)
    bag = folder / f"{settings.demix_model}.yaml"
    name = glob.escape(settings.demix_model)
    # A model's name may be followed by the beginning of its hash.
    stems = ("*",) if bag.is_file() else (name, f"{name}-*")
    models = sorted(
        path for stem in stems for end in ("th", "safetensors") for path in folder.glob(f"{stem}.{end}")
    )
    return {path.name: file_digest(path) for path in (bag, *models) if path.is_file()}
