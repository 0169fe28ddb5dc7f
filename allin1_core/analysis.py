"""The pipeline: a track enters as a path, goes through the stages in their order, and leaves as a result.

audio file -> separation -> stems (4, N) -> log spectrogram (4, T, 81) -> network -> probabilities (T,)
folder of stems ------------^                               -> decoder -> beats | local maxima -> sections
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, cast

from allin1_core import stages
from allin1_core.batch import Outputs, parse_overwrite, run_batch
from allin1_core.batch.names import absolute, expand_paths, is_pattern, track_name
from allin1_core.byproducts import Byproducts
from allin1_core.dbn.metrical import fitted_tempo, most_frequent_tempo
from allin1_core.files.writing import expand_user
from allin1_core.results.result import AnalysisResult
from allin1_core.separation.inputs import Given, Input, PathLike, is_one_input, take
from allin1_core.separation.track import ReadyStems, Track, find_ready_stems
from allin1_core.session import Session
from allin1_core.threads import limited_cores
from allin1_core.timings.recorder import Timings

Parameters = ParamSpec("Parameters")


def analyze(
    paths: Input | Sequence[Input],
    out_dir: PathLike | None = None,
    visualize: bool | PathLike = False,
    sonify: bool | PathLike = False,
    model: str = "harmonix-all",
    device: str | None = None,
    include_activations: bool = False,
    include_embeddings: bool = False,
    demix_dir: PathLike = "./demix",
    spec_dir: PathLike = "./spec",
    keep_byproducts: bool = False,
    overwrite: bool | str = False,
    *,
    stems_dir: PathLike | None = None,
    spec_backend: str = "auto",
    nn_backend: str = "auto",
    precision: str = "exact",
    demix_backend: str = "auto",
    demix_model: str = "htdemucs",
    demix_repository: PathLike | None = None,
    demix_seed: int = 0,
    stems_as_int16: bool = True,
    weights_dir: PathLike | None = None,
    array_dir: PathLike | None = None,
    exports: Sequence[str] = (),
    num_threads: int | None = None,
    timings_path: PathLike | None = None,
    progress: bool | None = None,
) -> AnalysisResult | list[AnalysisResult]:
    """Find tempo, beats, downbeats and sections of songs.

    Parameters
    ----------
    paths : path-like, Audio, Stems or binary file object, or sequence of those
        Audio files, folders that hold the four (or six) stems of a track, stem files (``.stem.mp4``, told by their
        content), or patterns (``songs/*.mp3``). A mix may decode to 2 GiB of samples, stems, as mono, to 4 GiB
        together: 3.4 hours at 44.1 kHz in 16 bits, half of that in ``float32``. Separation takes several times the
        mix. A symbolic link is a track of its own name. What comes again is dropped.

        Instead of a path, samples (`Audio` of a mix, `Stems` of four stems) or a binary file object, which is read
        from where it stands to its end, into memory, and left open. Such a track is called ``track-`` and the first
        eight digits of its SHA-256, also as the `path` of its result, which is relative and leads to no file.
    out_dir : path-like, optional
        Folder for ``NAME.json`` of each track, written as soon as the track is done. A result that is there is read
        instead of made again, if it says that it was made from the same audio (SHA-256), by the same model, at the
        same precision, from stems that came the same way; if it says otherwise that is an error, which names what
        differs, unless `overwrite` has ``json``. It is made again if arrays asked for are not there, or those that are
        there are not the ones that its JSON names by their SHA-256. Devices, versions and, left to ``auto``, the
        backends of spectrogram and network may differ: they give the same beats and sections. Without `out_dir`
        nothing is written.
    visualize, sonify : bool or path-like
        Whether to draw each result (``NAME.pdf``) and to mix clicks into each track (``NAME.sonif.wav``), and where
        to; True stands for ``./viz`` and ``./sonif``.
    model : str
        ``harmonix-all``, the ensemble of eight folds, or one of them, ``harmonix-fold0`` ... ``harmonix-fold7``.
    device : str, optional
        ``cpu``, ``cuda``, ``cuda:N``, ``mps`` or ``mlx``; by default the best one here.
    include_activations, include_embeddings : bool
        Whether results carry the network's probabilities and hidden states (``NAME.activ.npz``, ``NAME.embed.npy``).
        Those of a list whose arrays are written to files do not carry them, so that memory does not grow with the
        list: `load_result` reads them.
    demix_dir, spec_dir : path-like
        Where byproducts are kept: ``demix_dir/<demix_model>/NAME/<stem>.wav`` and ``spec_dir/NAME.npy``.
    keep_byproducts : bool
        Whether to keep separated stems and spectrograms, and to use those of an earlier run. The result is the same.
    overwrite : bool or str
        What to make again although it is there: True for everything, or of ``json``, ``demix`` and ``spec`` those
        named, separated by commas.
    stems_dir : path-like, optional
        Folder with ready stems, ``<stems_dir>/<file name without suffix>/{bass,drums,other,vocals}.*``. Files are
        told by the stem in their name; guitar and piano are added to other. Samples of a mix and file objects have no
        name to look for.
    spec_backend : str
        ``auto``, ``fused``, ``numpy``, ``torch``, ``mlx``, the name of an installed entry point, or
        ``module:function``. On a CPU ``auto`` takes ``fused``.
    nn_backend : str
        ``auto``, ``fused``, ``torch`` or ``mlx``. On a CPU ``auto`` takes ``fused``.
    precision : str
        ``exact`` or ``fast``.
    demix_backend : str
        ``auto``, ``demucs-infer`` (torch) or ``demucs-mlx``.
    demix_model : str
        Demucs' name of the separation model.
    demix_repository : path-like, optional
        Folder with separation models of one's own (``NAME.th``). Warning: demucs-infer opens such a file as a pickle
        that may execute any code; use only files that you made or trust.
    demix_seed : int
        Of Demucs' random time shift; the same seed gives the same stems.
    stems_as_int16 : bool
        Whether separated stems are quantised as 16-bit files are, as All-In-One does. False keeps float32.
    weights_dir : path-like, optional
        Folder with the network's weights; see `load_model`.
    array_dir : path-like, optional
        Folder for ``.activ.npz`` and ``.embed.npy``; by default `out_dir`.
    exports : sequence of str
        Other formats to write to `out_dir`: of ``beats``, ``audacity`` and ``jams``; see `allin1_core.results.exports`.
    num_threads : int, optional
        Threads that each stage may use on the CPU, the separation excepted; by default all cores.
    timings_path : path-like, optional
        File that a line of JSON is added to for each stage of each track; see docs/timings.md.
    progress : bool, optional
        Whether to show progress bars; by default on a terminal.

    Returns
    -------
    AnalysisResult or list of AnalysisResult
        One result for a single path that is not a pattern, else a list in input order; with `out_dir`, the results of
        a list carry neither activations nor embeddings.

    Raises
    ------
    AudioError, StemsError
        If a track cannot be used, or is none of the things named above.
    BackendError, WeightsError
        If what was asked for cannot run; before any track is analysed.
    OutputError
        If a file cannot be written; nothing half-written is left behind. If a track's name is too long for one of
        its files; then none is written. If a result that is there was made from other audio or with other settings.
    BatchError
        If tracks of a list or a pattern failed; the others are done, and are in its `results`. A single path raises
        its own error.
    """
    is_one = is_one_input(paths)
    is_single = is_one and not (isinstance(paths, str | os.PathLike) and is_pattern(paths))
    tracks = _expand(cast("Sequence[Input]", [paths] if is_one else paths))
    outputs = Outputs(
        out_dir=_folder(out_dir),
        array_dir=_folder(array_dir),
        figures_dir=_folder("./viz" if visualize is True else visualize or None),
        sounds_dir=_folder("./sonif" if sonify is True else sonify or None),
        demix_dir=_folder(demix_dir) if keep_byproducts else None,
        spec_dir=_folder(spec_dir) if keep_byproducts else None,
        overwrite=parse_overwrite(overwrite),
        include_activations=include_activations,
        include_embeddings=include_embeddings,
        exports=tuple(exports),
    )
    analyzer = Analyzer(
        model=model,
        device=device,
        spec_backend=spec_backend,
        nn_backend=nn_backend,
        precision=precision,
        demix_backend=demix_backend,
        demix_model=demix_model,
        demix_repository=demix_repository,
        demix_seed=demix_seed,
        stems_as_int16=stems_as_int16,
        weights_dir=weights_dir,
        num_threads=num_threads,
    )
    results = run_batch(
        list(tracks),
        analyzer,
        outputs,
        given={path: given for path, given in tracks.items() if given is not None},
        stems_dir=stems_dir,
        timings_path=timings_path,
        progress=progress,
        keep_arrays=is_single or out_dir is None,
        is_single=is_single,
    )
    return results[0] if is_single else results


def _expand(inputs: Sequence[Input]) -> dict[Path, Given | None]:
    """The path of each track, or what stands for it, and what came without one; see `expand_paths`."""
    tracks: dict[Path, Given | None] = {}
    for one in inputs:
        if isinstance(one, str | os.PathLike):
            tracks.update(dict.fromkeys(expand_paths([one])))
        else:
            given = take(one)
            tracks[given.path] = given
    return tracks


def _folder(path: PathLike | None) -> Path | None:
    return None if path is None else expand_user(path)


def _on_its_threads(
    method: Callable[Concatenate[Analyzer, Parameters], AnalysisResult],
) -> Callable[Concatenate[Analyzer, Parameters], AnalysisResult]:
    """The method within the limit that ``num_threads`` sets to all thread pools."""

    @functools.wraps(method)
    def limited(self: Analyzer, *args: Parameters.args, **options: Parameters.kwargs) -> AnalysisResult:
        most = self.session.num_threads
        with contextlib.nullcontext() if most is None else limited_cores(most):
            return method(self, *args, **options)

    return limited


class Analyzer:
    """A session object: loads once, analyses many.

    Any number of threads may use it at the same time: what one of them loads, the others wait for and share. Mixes are
    separated one after the other. Only where a stage runs on MLX, whose arrays belong to the thread that made them,
    may no other thread use it than the one that did first. Other processes may use it too: after a fork what is loaded
    is theirs as well, and pickled (for ``spawn`` or loky) it carries its options and loads again.

    Parameters
    ----------
    **options
        The keyword parameters of `Session`, which are those of `analyze` that say what runs: ``model``, ``device``,
        ``spec_backend``, ``nn_backend``, ``precision``, ``demix_backend``, ``demix_model``, ``demix_repository``,
        ``demix_seed``, ``stems_as_int16``, ``weights_dir``, ``num_threads``.

    Raises
    ------
    BackendError
        If a backend, device or precision does not exist, is not installed, or the two do not fit.

    Examples
    --------
    >>> analyzer = allin1_core.Analyzer(device="cpu")
    >>> for path in paths:
    ...     print(analyzer(path).bpm)
    """

    def __init__(self, **options: Any) -> None:
        self.session = Session(**options)
        self._options = options

    def __reduce__(self) -> tuple[Callable[[], Analyzer], tuple[()]]:
        """Pickled as its options: where it arrives, backends are chosen and weights are loaded again."""
        return functools.partial(type(self), **self._options), ()

    def __call__(
        self,
        path: Input,
        *,
        stems_dir: PathLike | None = None,
        include_activations: bool = False,
        include_embeddings: bool = False,
        timings: Timings | None = None,
    ) -> AnalysisResult:
        """Analyse one track in memory; writes nothing.

        Parameters
        ----------
        path : path-like, Audio, Stems or binary file object
            Audio file, folder with its stems, or stem file; or the track itself, as in `analyze`.
        stems_dir, include_activations, include_embeddings
            As in `analyze`.
        timings : Timings, optional
            Where the stages' times are added.

        Raises
        ------
        Allin1Error
            See `analyze`.
        """
        if isinstance(path, str | os.PathLike):
            path = absolute(expand_user(path))
            track = Track(path, track_name(path))
        else:
            given = take(path)
            track = Track(given.path, given.path.name, given)
        return self.analyze_track(
            track,
            timings or Timings(),
            find_ready_stems(track, stems_dir),
            include_activations=include_activations,
            include_embeddings=include_embeddings,
        )

    @_on_its_threads
    def analyze_track(
        self,
        track: Track,
        timings: Timings,
        ready: ReadyStems | None,
        *,
        include_activations: bool = False,
        include_embeddings: bool = False,
        kept: Byproducts | None = None,
    ) -> AnalysisResult:
        """All stages of one track, whose ready stems were found; see `analyze` for the parameters and errors."""
        session = self.session
        if ready is None:
            session.check_separation()
        session.load_in_background(timings)

        stems, origin, digests = stages.stems_stage(session, track, timings, ready, kept)
        spectrogram = stages.spectrogram_stage(session, track, timings, stems, kept)
        output = stages.network_stage(session, track, timings, spectrogram, stems.seconds, include_embeddings)
        with timings.stage("postprocess", track=track.name, audio_seconds=stems.seconds):
            beats = stages.metrical_stage(session, track, timings, output, stems.seconds)
            segments = stages.functional_stage(session, track, timings, output, stems.seconds)
            tempo = fitted_tempo(beats.times)

        return AnalysisResult(
            path=track.path,
            bpm=most_frequent_tempo(beats.times),
            beats=beats.times,
            downbeats=beats.downbeats,
            beat_positions=beats.positions,
            segments=segments,
            tempo=None if tempo is None else tempo.bpm,
            tempo_spread=None if tempo is None else tempo.spread,
            provenance=session.provenance(origin, digests),
            activations=stages.activations(output) if include_activations else None,
            embeddings=stages.to_host(output.embeddings) if include_embeddings else None,
        )
