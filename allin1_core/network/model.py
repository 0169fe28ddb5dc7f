"""The network behind one interface, whichever backend runs it: load it by name, call it on a log spectrogram."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
from collections.abc import Callable, Sequence
from typing import Any

from allin1_core import backends
from allin1_core.backends.devices import to_host
from allin1_core.errors import UnfitBackendError
from allin1_core.network.configuration import Configuration, Thresholds
from allin1_core.network.protocol import Network, NetworkBackend
from allin1_core.network.weights import Checkpoint, load_checkpoints
from allin1_core.threads import check_count, usable_cores

_LOG = logging.getLogger(__name__)
# Rows of the logits: three scalars a frame, then the function labels.
NUM_SCALARS = 3


@dataclasses.dataclass(frozen=True)
class Logits:
    """Logits averaged over the folds: `beat`, `downbeat`, `segment` (T,), `label` (labels, T)."""

    beat: Any
    downbeat: Any
    segment: Any
    label: Any


@dataclasses.dataclass(frozen=True)
class NetworkOutput:
    """What the network says about each frame, as the backend's own float32 arrays.

    For a batch of B spectrograms every array has a leading axis of length B.

    Attributes
    ----------
    beat, downbeat, segment : (T,)
        Probability that a beat, a downbeat, a segment starts at the frame (10 ms).
    label : (labels, T)
        Probabilities of the function labels, which add up to one at each frame.
    probabilities : (3 + labels, T), optional
        What these are rows of, so that one transfer brings all of them to the host.
    logits : Logits, optional
    embeddings : (instruments, T, channels), optional
        Final normalised hidden state; of an ensemble (instruments, T, channels, folds), as All-In-One stores it.
    """

    beat: Any
    downbeat: Any
    segment: Any
    label: Any
    logits: Logits | None = None
    embeddings: Any = None
    probabilities: Any = None

    def arrays(self) -> list[Any]:
        """All arrays present."""
        found = [self.beat, self.downbeat, self.segment, self.label, self.embeddings]
        if self.logits is not None:
            found += vars(self.logits).values()
        return [array for array in found if array is not None]

    def to_numpy(self) -> NetworkOutput:
        """The same with numpy arrays on the host; copies only what lives elsewhere."""
        probabilities = None if self.probabilities is None else to_host(self.probabilities)
        if probabilities is None:
            beat, downbeat, segment, label = map(
                to_host, (self.beat, self.downbeat, self.segment, self.label)
            )
        else:
            beat, downbeat, segment, label = _rows(probabilities)
        logits = None if self.logits is None else Logits(*map(to_host, vars(self.logits).values()))
        embeddings = None if self.embeddings is None else to_host(self.embeddings)
        return NetworkOutput(beat, downbeat, segment, label, logits, embeddings, probabilities)


class Model:
    """A loaded network.

    Attributes
    ----------
    choice : backends.Choice
        Which backend runs, where, and why.
    configuration : Configuration
    thresholds : Thresholds
        Of an ensemble, the mean over its folds.
    checkpoints : list of Checkpoint
    """

    def __init__(
        self,
        network: Network,
        checkpoints: Sequence[Checkpoint],
        choice: backends.Choice,
        num_threads: int | None = None,
    ) -> None:
        self._network = network
        self._num_threads = num_threads
        self.checkpoints = list(checkpoints)
        self.choice = choice
        self.configuration: Configuration = self.checkpoints[0].configuration
        self.thresholds = Thresholds.mean([checkpoint.thresholds for checkpoint in self.checkpoints])

    def __reduce__(self) -> tuple[Callable[..., Model], tuple[list[Checkpoint]]]:
        """Pickled as its checkpoints and what was asked for: where it arrives, the network is built again."""
        choice = self.choice
        build = functools.partial(
            build_model,
            backend=choice.requested_backend,
            device=None if choice.requested_device == "auto" else choice.requested_device,
            precision=choice.precision,
            num_threads=self._num_threads,
        )
        return build, (self.checkpoints,)

    @property
    def num_folds(self) -> int:
        """Checkpoints whose logits are averaged."""
        return len(self.checkpoints)

    @property
    def provenance(self) -> list[dict[str, str]]:
        """JSON-ready record of the weights: name, file and SHA-256 of each fold."""
        return [checkpoint.provenance for checkpoint in self.checkpoints]

    def __call__(
        self, spectrogram: Any, *, return_logits: bool = False, return_embeddings: bool = False
    ) -> NetworkOutput:
        """Run the network.

        Parameters
        ----------
        spectrogram : float32 (instruments, T, bands) or (B, instruments, T, bands)
            Log spectrogram as `log_spectrogram` returns it: the backend's own array, or numpy's. A batch holds
            tracks of equal length.
        return_logits, return_embeddings : bool
            Whether to fill these fields of the output.

        Returns
        -------
        NetworkOutput
            On CUDA and MPS possibly still being computed; see `synchronize`.

        Raises
        ------
        ValueError
            If the spectrogram has another shape or type.
        BackendError
            If it is an array of another library or on a device that the backend cannot read.
        """
        self._check(spectrogram)
        native = self._network.as_native(spectrogram)
        is_batch = native.ndim == 4
        logits, embeddings = self._network.logits(native if is_batch else native[None], return_embeddings)
        probabilities = self._network.probabilities(logits)
        if not is_batch:
            logits, probabilities = logits[0], probabilities[0]
            embeddings = None if embeddings is None else embeddings[0]
        if embeddings is not None and self.num_folds == 1:
            embeddings = embeddings[..., 0]
        output = NetworkOutput(
            *_rows(probabilities),
            logits=Logits(*_rows(logits)) if return_logits else None,
            embeddings=embeddings,
            probabilities=probabilities,
        )
        if self.choice.device == "mlx":
            # MLX is lazy: without this the network's time would be charged to whoever reads the result.
            self.synchronize(output)
        return output

    def synchronize(self, output: NetworkOutput) -> None:
        """Wait until everything in the output is computed."""
        self._network.synchronize(output.arrays())

    def _check(self, spectrogram: Any) -> None:
        shape, dtype = tuple(getattr(spectrogram, "shape", ())), str(getattr(spectrogram, "dtype", ""))
        instruments, bands = self.configuration.num_instruments, self.configuration.num_bands
        if len(shape) not in (3, 4) or shape[-3] != instruments or shape[-1] != bands or 0 in shape:
            raise ValueError(
                f"spectrogram: shape {shape}; expected ({instruments}, T, {bands}) or a batch "
                f"(B, {instruments}, T, {bands}) with at least one frame"
            )
        if dtype.rpartition(".")[2] != "float32":
            raise ValueError(f"spectrogram: {dtype}; expected float32, as log_spectrogram returns it")


def _rows(array: Any) -> tuple[Any, Any, Any, Any]:
    return array[..., 0, :], array[..., 1, :], array[..., 2, :], array[..., NUM_SCALARS:, :]


def build_model(
    checkpoints: Sequence[Checkpoint],
    *,
    backend: str = "auto",
    device: str | None = None,
    precision: str = "exact",
    num_threads: int | None = None,
) -> Model:
    """Put checkpoints that are already in memory behind a backend; the parameters are those of `load_model`.

    Raises
    ------
    BackendError
        If the backend or device is unknown or not installed.
    OptionError
        If `num_threads` is not positive.
    ValueError
        If there is no checkpoint, or they differ in their configurations.
    """
    chosen = backends.choose("network", backend, device=device, precision=precision)
    return build_chosen(checkpoints, chosen, num_threads)


def build_chosen(
    checkpoints: Sequence[Checkpoint],
    chosen: tuple[backends.Backend, backends.Choice],
    num_threads: int | None = None,
) -> Model:
    """As `build_model`, for a backend that `backends.choose` has decided on.

    Where ``auto`` decided, and that backend is not made for these weights, it is the next one, and the choice says why.
    """
    if not checkpoints:
        raise ValueError("checkpoints: none; expected one, or the folds of an ensemble")
    if any(checkpoint.configuration != checkpoints[0].configuration for checkpoint in checkpoints):
        raise ValueError("checkpoints: their configurations differ; expected the folds of one ensemble")
    check_count("num_threads", num_threads, "all cores")
    row, choice = chosen
    build: NetworkBackend = row.load()
    try:
        network = build(
            checkpoints,
            device=choice.device,
            precision=choice.precision,
            num_threads=num_threads or usable_cores(),
        )
    except UnfitBackendError as error:
        if choice.requested_backend != "auto":
            raise
        instead = backends.choose_after(choice, str(error))
        _LOG.warning("network: %s is taken instead of %s, and slower: %s", instead[1], choice, error)
        return build_chosen(checkpoints, instead, num_threads)
    return Model(network, checkpoints, choice, num_threads)


def load_model(
    name: str = "harmonix-all",
    *,
    backend: str = "auto",
    device: str | None = None,
    precision: str = "exact",
    weights_dir: str | os.PathLike[str] | None = None,
    num_threads: int | None = None,
) -> Model:
    """Load the All-In-One network with the published weights.

    Parameters
    ----------
    name : str
        ``harmonix-all`` (the ensemble of eight folds), ``harmonix-fold0`` ... ``harmonix-fold7``, or the path of a
        checkpoint file of one's own.
    backend : str
        ``auto``, ``fused`` (compiled, CPU), ``triton`` (compiled, CUDA), ``torch`` (CPU, CUDA, MPS) or ``mlx``.
    device : str, optional
        ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``mlx``; by default the best one here.
    precision : str
        ``exact``: float32 throughout, or as good, probabilities within 1e-4 of the reference. ``fast``: on CUDA, matrix
        products may round their inputs to 11 bits, probabilities within 5e-3 (``triton``) or 2e-2 (``torch``);
        elsewhere the same as ``exact``.
    weights_dir : path, optional
        Folder with the weights. Otherwise: the folder that ``ALLIN1_WEIGHTS_DIR`` names, else the local Hugging
        Face cache, else a download from ``taejunkim/allinone``.
    num_threads : int, optional
        Threads that a CPU backend may use; by default all cores of this process.

    Raises
    ------
    WeightsError
        If the weights are missing, altered or do not match their configuration.
    BackendError
        If the backend or device is unknown or not installed.
    """
    chosen = backends.choose(
        "network", backend, device=device, precision=precision
    )  # refused before files are read
    return build_chosen(load_checkpoints(name, weights_dir=weights_dir), chosen, num_threads)
