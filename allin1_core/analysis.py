"""The pipeline: a track enters as a path, goes through the stages in their order, and leaves as a result.

audio file -> separation -> stems (4, N) -> log spectrogram (4, T, 81) -> network -> probabilities (T,)
folder of stems ------------^                               -> decoder -> beats | local maxima -> sections
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from allin1_core import stages
from allin1_core.batch import Outputs, parse_overwrite, run_batch
from allin1_core.byproducts import Byproducts
from allin1_core.digests import is_separated
from allin1_core.metrical import tempo
from allin1_core.result import AnalysisResult
from allin1_core.session import Session
from allin1_core.timings import Timings
from allin1_core.tracks import Track, expand_paths, is_pattern

PathLike: TypeAlias = str | os.PathLike[str]


def analyze(
    paths: PathLike | Sequence[PathLike],
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
    paths : path-like or sequence of path-like
        Audio files, folders that hold the four (or six) stems of a track, or patterns (``songs/*.mp3``). A mix may
        decode to 2 GiB of samples, stems, as mono, to 4 GiB together: 3.4 hours at 44.1 kHz in 16 bits, half of that
        in ``float32``. Separation takes several times the mix.
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
        told by the stem in their name; guitar and piano are added to other.
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
        Other formats to write to `out_dir`: of ``beats``, ``audacity`` and ``jams``; see `allin1_core.exports`.
    num_threads : int, optional
        Threads that the network may use on the CPU; by default all cores.
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
        If a track cannot be used.
    BackendError, WeightsError
        If what was asked for cannot run; before any track is analysed.
    OutputError
        If a file cannot be written; nothing half-written is left behind. If a result that is there was made from
        other audio or with other settings.
    BatchError
        If some of several tracks failed; the others are done, and are in its `results`.
    """
    is_single = isinstance(paths, str | os.PathLike) and not is_pattern(paths)
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
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
        expand_paths(given),
        analyzer,
        outputs,
        stems_dir=stems_dir,
        timings_path=timings_path,
        progress=progress,
        keep_arrays=is_single or out_dir is None,
    )
    return results[0] if is_single else results


def _folder(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path).expanduser()


class Analyzer:
    """A session object: loads once, analyses many.

    Any number of threads may use it at the same time: what one of them loads, the others wait for and share. Mixes are
    separated one after the other. Only where a stage runs on MLX, whose arrays belong to the thread that made them,
    may no other thread use it than the one that did first.

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

    def __call__(
        self,
        path: str | os.PathLike[str],
        *,
        stems_dir: str | os.PathLike[str] | None = None,
        include_activations: bool = False,
        include_embeddings: bool = False,
        timings: Timings | None = None,
    ) -> AnalysisResult:
        """Analyse one track in memory; writes nothing.

        Parameters
        ----------
        path : path-like
            Audio file, or folder with its stems.
        stems_dir, include_activations, include_embeddings
            As in `analyze`.
        timings : Timings, optional
            Where the stages' times are added.

        Raises
        ------
        Allin1Error
            See `analyze`.
        """
        path = Path(path).expanduser().resolve()
        track = Track(path, path.name if path.is_dir() else path.stem)
        return self.analyze_track(
            track,
            timings or Timings(),
            stems_dir=stems_dir,
            include_activations=include_activations,
            include_embeddings=include_embeddings,
        )

    def analyze_track(
        self,
        track: Track,
        timings: Timings,
        *,
        stems_dir: str | os.PathLike[str] | None = None,
        include_activations: bool = False,
        include_embeddings: bool = False,
        kept: Byproducts | None = None,
    ) -> AnalysisResult:
        """All stages of one track; see `analyze` for the parameters and errors."""
        session = self.session
        if is_separated(track, stems_dir):
            session.check_separation()  # before a thread is started that would have to be waited for
        session.load_in_background(timings)

        stems, origin, digests = stages.stems_stage(session, track, timings, stems_dir, kept)
        spectrogram = stages.spectrogram_stage(session, track, timings, stems, kept)
        output = stages.network_stage(session, track, timings, spectrogram, stems.seconds, include_embeddings)
        with timings.stage("postprocess", track=track.name, audio_seconds=stems.seconds):
            beats = stages.metrical_stage(session, track, timings, output, stems.seconds)
            segments = stages.functional_stage(session, track, timings, output, stems.seconds)

        return AnalysisResult(
            path=track.path,
            bpm=tempo(beats.times),
            beats=beats.times,
            downbeats=beats.downbeats,
            beat_positions=beats.positions,
            segments=segments,
            provenance=session.provenance(origin, digests),
            activations=stages.activations(output) if include_activations else None,
            embeddings=stages.to_host(output.embeddings) if include_embeddings else None,
        )
