"""The options of an analysis: `Settings` say what runs, `Outputs` what is written where.

`analyze`, `Analyzer` and the command line have options of the same names and defaults, and take their documentation
from here. Nothing here touches a file.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from allin1_core import backends
from allin1_core.backends.table import module_exists
from allin1_core.dbn.hints import checked_meter_change, checked_meters, checked_tempo_range
from allin1_core.errors import OptionError
from allin1_core.files.writing import expand_user
from allin1_core.plotting import MATPLOTLIB_MISSING
from allin1_core.results.exports import FORMATS, JAMS_MISSING
from allin1_core.separation.inputs import PathLike
from allin1_core.separation.protocol import check_overlap, check_seed
from allin1_core.threads import check_count

Documented = TypeVar("Documented", bound=Callable[..., Any])

# What `Settings` say of the beats, as the decoder calls it.
_HINTS = ("min_bpm", "max_bpm", "beats_per_bar", "meter_weights", "meter_change_prob")
_REMAKE = ("json", "demix", "spec")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What runs.

    Parameters
    ----------
    model : str
        ``harmonix-all``, the ensemble of eight folds, or one of them, ``harmonix-fold0`` ... ``harmonix-fold7``.
    device : str, optional
        ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``mlx``; by default the best one here.
    spec_backend : str
        ``auto``, ``fused``, ``numpy``, ``torch``, ``mlx``, the name of an installed entry point, or
        ``module:function``. On a CPU ``auto`` takes ``fused``.
    nn_backend : str
        ``auto``, ``fused``, ``triton``, ``torch`` or ``mlx``. On a CPU ``auto`` takes ``fused``, on CUDA ``triton``.
    precision : str
        ``exact`` or ``fast``.
    demix_backend : str
        ``auto``, ``demucs-infer`` (torch) or ``demucs-mlx``.
    demix_model : str
        Demucs' name of the separation model.
    demix_repository : path-like, optional
        Folder with separation models of one's own, ``NAME.safetensors`` or ``NAME.th``. Warning: demucs-infer opens a
        ``.th`` as a pickle that may execute any code; use only files that you made or trust.
    demix_seed : int
        Of Demucs' random time shift; the same seed gives the same stems.
    demix_overlap : float
        What part of a segment of the separation the next one repeats, from 0 to 0.9. More takes longer: the time
        grows with 1 / (1 - overlap).
    stems_as_int16 : bool
        Whether separated stems are quantised as 16-bit files are, as All-In-One does. False keeps float32.
    weights_dir : path-like, optional
        Folder with the network's weights; see `load_model`.
    num_threads : int, optional
        Threads that each stage may use on the CPU, the separation excepted; by default all cores. Tracks side by side
        share the cores.
    jobs : int, optional
        Tracks of a list that are analysed at the same time, with the same results in the same order; by default one
        for each core (of `num_threads`, if that is given), at most 16, and with MLX one. Together they are at most ten
        minutes long for each job, by their headers, or one longer track is alone: so much memory is taken. What a GPU
        or torch computes, and separation, is one track's at a time.
    min_bpm, max_bpm : float
        Slowest and fastest tempo that beats may have, in beats per minute.
    beats_per_bar : int or sequence of int
        Bar lengths to choose from, in beats.
    meter_weights : sequence of float, optional
        Prior weight of each bar length (their sum does not matter); by default all are equal.
    meter_change_prob : float, optional
        Probability that the bar length changes, at each bar line; by default it is one throughout the song.

    Raises
    ------
    BackendError
        If there is no such precision or backend.
    OptionError
        If `num_threads` or `jobs` is no positive whole number, `demix_seed` no whole one, or `demix_overlap` out of its
        range; if a folder's path is empty.
    HintError
        If the tempo range is empty, a bar length is not positive, there is not one weight for each, or a probability is
        none.
    """

    model: str = "harmonix-all"
    device: str | None = None
    spec_backend: str = "auto"
    nn_backend: str = "auto"
    precision: str = "exact"
    demix_backend: str = "auto"
    demix_model: str = "htdemucs"
    demix_repository: PathLike | None = None
    demix_seed: int = 0
    demix_overlap: float = 0.25
    stems_as_int16: bool = True
    weights_dir: PathLike | None = None
    num_threads: int | None = None
    jobs: int | None = None
    min_bpm: float = 55.0
    max_bpm: float = 215.0
    beats_per_bar: int | Sequence[int] = (3, 4)
    meter_weights: Sequence[float] | None = None
    meter_change_prob: float | None = None

    def __post_init__(self) -> None:
        check_count("num_threads", self.num_threads, "all cores")
        check_count("jobs", self.jobs, "one for each core")
        # Whether or not their stage will run.
        backends.check_precision(self.precision)
        for stage, name in (("network", "nn"), ("spectrogram", "spec"), ("separation", "demix")):
            if getattr(self, f"{name}_backend") != "auto":
                backends.get(stage, getattr(self, f"{name}_backend"))
        for name in ("demix_repository", "weights_dir"):
            if getattr(self, name) == "":  # as a path that would be the working folder
                raise OptionError(f"{name}: found ''; expected a folder; '.' for the working folder")
        _expand_paths(self, "demix_repository", "weights_dir")
        meters, weights = checked_meters(self.beats_per_bar, self.meter_weights)
        checked = (
            *checked_tempo_range(self.min_bpm, self.max_bpm),
            meters,
            weights,
            checked_meter_change(self.meter_change_prob, meters),
        )
        for name, value in zip(_HINTS, checked, strict=True):
            object.__setattr__(self, name, value)
        check_seed(self.demix_seed)
        check_overlap(self.demix_overlap)

    @property
    def decoding(self) -> dict[str, Any]:
        """What the decoder is told of tempo and bars, by its parameters' names."""
        return {name: getattr(self, name) for name in _HINTS}

    @property
    def hints(self) -> dict[str, Any]:
        """Of `decoding` what is not the default, as JSON has it."""
        given = {name: value for name, value in self.decoding.items() if value != getattr(type(self), name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in given.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outputs:
    """What is written, and where to.

    Parameters
    ----------
    out_dir : path-like, optional
        Folder for ``NAME.json`` of each track, written as soon as the track is done; NAME is the file's name without
        its suffix, with eight digits of its path's SHA-256 where another path has that. A result that is there is read
        instead of made again, if it says that it was made from the same audio (SHA-256), by the same model, at the
        same precision, from stems that came the same way, with the same hints; if it says otherwise that is an
        error, which names what differs, unless `overwrite` has ``json``. It is made again if arrays asked for are not
        there, or those that are there are not the ones that its JSON names by their SHA-256. Devices, versions and,
        left to ``auto``, the backends of spectrogram and network may differ: they give the same beats and sections.
        Without `out_dir` nothing is written.
    visualize, sonify : bool or path-like
        Whether to draw each result (``NAME.pdf``) and to mix clicks into each track (``NAME.sonif.wav``), and where
        to; True stands for ``./viz`` and ``./sonif``.
    include_activations, include_embeddings : bool
        Whether results carry the network's probabilities and hidden states (``NAME.activ.npz``, ``NAME.embed.npy``).
        Those of a list whose arrays are written to files do not carry them, so that memory does not grow with the
        list: `load_result` reads them.
    include_confidences : bool
        Whether results say how probable each beat, downbeat, boundary and label is (`AnalysisResult.confidences`). A
        result that is there without them is made again.
    demix_dir, spec_dir : path-like
        Where byproducts are kept: ``demix_dir/<demix_model>/NAME/<stem>.wav`` and ``spec_dir/NAME.npy``.
    keep_byproducts : bool
        Whether to keep separated stems and spectrograms, and to use those of an earlier run. The result is the same.
    overwrite : bool or str
        What to make again although it is there: True for everything, or of ``json``, ``demix`` and ``spec`` those
        named, separated by commas.
    array_dir : path-like, optional
        Folder for ``.activ.npz`` and ``.embed.npy``; by default `out_dir`.
    exports : sequence of str
        Other formats to write to `out_dir`, of `allin1_core.results.exports.FORMATS`.
    timings_path : path-like, optional
        File that a line of JSON is added to for each stage of each track; see docs/timings.md.

    Raises
    ------
    OptionError
        If `overwrite` or `exports` have a name that is unknown; if the package that an export or `visualize` needs is
        not installed; if `exports` or `array_dir` are given without `out_dir`, or `array_dir` without arrays to be
        written; if a path is empty.
    """

    out_dir: PathLike | None = None
    visualize: bool | PathLike = False
    sonify: bool | PathLike = False
    include_activations: bool = False
    include_embeddings: bool = False
    include_confidences: bool = False
    demix_dir: PathLike = "./demix"
    spec_dir: PathLike = "./spec"
    keep_byproducts: bool = False
    overwrite: bool | str = False
    array_dir: PathLike | None = None
    exports: Sequence[str] = ()
    timings_path: PathLike | None = None

    def __post_init__(self) -> None:
        folders = ("out_dir", "visualize", "sonify", "demix_dir", "spec_dir", "array_dir")
        for name in (*folders, "timings_path"):
            if getattr(self, name) == "":  # as a path that would be the working folder
                expected = "a folder; '.' for the working folder" if name in folders else "a file"
                raise OptionError(f"{name}: found ''; expected {expected}")
        _expand_paths(self, "out_dir", "demix_dir", "spec_dir", "array_dir", "timings_path")
        parse_overwrite(self.overwrite)
        object.__setattr__(self, "exports", tuple(self.exports))
        unknown = [name for name in self.exports if name not in FORMATS]
        if unknown:
            raise OptionError(f"exports: {', '.join(unknown)} unknown; expected of {', '.join(FORMATS)}")
        for wanted, module, missing in (
            ("jams" in self.exports, "jams", JAMS_MISSING),
            (self.visualize, "matplotlib", MATPLOTLIB_MISSING),
        ):
            if wanted and not module_exists(module):
                raise OptionError(missing)
        if self.out_dir is None and (self.exports or self.array_dir is not None):
            name = "exports" if self.exports else "array_dir"
            raise OptionError(
                f"{name}: given without out_dir, so that nothing would be written; expected out_dir, too"
            )
        if self.array_dir is not None and not (self.include_activations or self.include_embeddings):
            raise OptionError(
                "array_dir: given without arrays to be written; expected include_activations (--activ) or "
                "include_embeddings (--embed), too"
            )

    @property
    def figures_dir(self) -> Path | None:
        """Where figures go, if they are drawn."""
        return _folder(self.visualize, "./viz")

    @property
    def sounds_dir(self) -> Path | None:
        """Where tracks with clicks go, if they are made."""
        return _folder(self.sonify, "./sonif")

    @property
    def remade(self) -> frozenset[str]:
        """What is made again although it is there: of ``json``, ``demix`` and ``spec``."""
        return parse_overwrite(self.overwrite)

    def result_path(self, name: str) -> Path | None:
        """Where the JSON of a track goes."""
        return None if self.out_dir is None else Path(self.out_dir, f"{name}.json")


def _expand_paths(carrier: Settings | Outputs, *names: str) -> None:
    for name in names:
        value = getattr(carrier, name)
        if value is not None:
            object.__setattr__(carrier, name, expand_user(value))


def _folder(wanted: bool | PathLike, default: str) -> Path | None:
    return expand_user(default if isinstance(wanted, bool) else wanted) if wanted else None


def parse_overwrite(overwrite: bool | str) -> frozenset[str]:
    """What is made again: all for True, nothing for False, else the names between the commas.

    Raises
    ------
    OptionError
        If a name is unknown, or it is neither.
    """
    if isinstance(overwrite, bool):
        return frozenset(_REMAKE if overwrite else ())
    if not isinstance(overwrite, str):
        raise OptionError(f"overwrite: {overwrite!r}; expected True, False, or names such as 'json,spec'")
    names = {name.strip() for name in overwrite.split(",") if name.strip()}
    unknown = sorted(names - {"all", *_REMAKE})
    if unknown:
        raise OptionError(
            f"overwrite: {', '.join(unknown)} unknown; expected all, or of {', '.join(_REMAKE)}"
        )
    if "all" in names:
        return frozenset(_REMAKE)
    # A result made from older byproducts would contradict the new ones.
    return frozenset(names | {"json"}) if names else frozenset()


def options_of(given: Mapping[str, Any], *carriers: type) -> dict[str, Any]:
    """Those among what is given by name that are options of `Settings` or `Outputs`."""
    return {field.name: given[field.name] for carrier in carriers for field in dataclasses.fields(carrier)}


def documented(*carriers: type) -> Callable[[Documented], Documented]:
    """Decorator that puts the parameters of `Settings` or `Outputs` where the docstring has a line ``<options>``."""

    def document(target: Documented) -> Documented:
        if target.__doc__:  # python -OO has none
            lists = [_parameters(inspect.getdoc(carrier) or "") for carrier in carriers]
            target.__doc__ = inspect.cleandoc(target.__doc__).replace("<options>", "\n".join(lists))
        return target

    return document


def _parameters(docstring: str) -> str:
    return docstring.partition("----------\n")[2].partition("\n\n")[0]
