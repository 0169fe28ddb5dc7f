"""How well a decoding agrees with the oracle's, and how well it fits annotated beats."""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import numpy as np

from allin1_core.dbn import threshold_activations
from parity.agreement import compare, ulp_measures

Paths = list[tuple[np.ndarray, float]]

_TOLERANCE = 0.07  # seconds, mir_eval's default for beats


@dataclasses.dataclass(frozen=True)
class DecoderAgreement:
    """A decoding compared with the oracle's, by `parity.agreement`.

    Attributes
    ----------
    identical_path : bool
        Every state of every frame, for every bar length; True where neither gives paths.
    num_frames : int
        Frames compared, over all bar lengths.
    frames_different : int
    log_probability_difference : float
        The largest over the bar lengths; 0 only if all are equal bit for bit, -inf (no path) included.
    beats_matched, num_beats : int
        Rows of time and position that are exactly the oracle's, and how many the oracle has.
    identical_beats : bool
        Whether all rows are, with none to spare.
    f_measure : float
        Of the beat times, with the oracle's as reference (mir_eval, 70 ms); 1 if neither has beats, 0 if they are no
        times.
    fault : str
        The first place, type, dtype or shape at which each of what was compared differs; empty if it is identical.
    max_ulp, ulp_counts
        Of the log probabilities and the beats, as in `parity.agreement.Agreement`.
    """

    identical_path: bool
    num_frames: int
    frames_different: int
    log_probability_difference: float
    beats_matched: int
    num_beats: int
    identical_beats: bool
    f_measure: float
    fault: str = ""
    max_ulp: float = 0.0
    ulp_counts: list[int] = dataclasses.field(default_factory=list)

    @property
    def identical(self) -> bool:
        """Same states, same log probabilities, same beats."""
        return self.identical_path and self.log_probability_difference == 0 and self.identical_beats

    def measures(self) -> dict[str, Any]:
        """The figures, JSON-ready."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "fault"}


def compare_decodings(
    paths: Paths, beats: np.ndarray, oracle_paths: Paths, oracle_beats: np.ndarray
) -> DecoderAgreement:
    """Compare a decoding with the oracle's.

    Parameters
    ----------
    paths, oracle_paths : list of (path, log_probability)
        One for each bar length; both empty if only beats are compared.
    beats, oracle_beats : (num_beats, 2) or (num_beats,)
        Times in seconds, and positions if there is a second column.
    """
    assert len(paths) == len(oracle_paths), (len(paths), len(oracle_paths))
    pairs = list(zip(paths, oracle_paths, strict=True))
    by_path = [compare(path, expected) for (path, _), (expected, _) in pairs]
    by_log = [
        compare(np.asarray(found), np.asarray(expected), documented=(-np.inf,))
        for (_, found), (_, expected) in pairs
    ]
    by_beat = compare(beats, oracle_beats)
    compared = {
        **{f"path {index}": agreement for index, agreement in enumerate(by_path)},
        **{f"log probability {index}": agreement for index, agreement in enumerate(by_log)},
        "beats": by_beat,
    }
    rows = {np.asarray(row).tobytes() for row in beats}
    return DecoderAgreement(
        identical_path=all(agreement.passed for agreement in by_path),
        num_frames=sum(len(expected) for expected, _ in oracle_paths),
        frames_different=sum(agreement.different for agreement in by_path),
        log_probability_difference=max((agreement.max_difference for agreement in by_log), default=0.0),
        beats_matched=sum(np.asarray(row).tobytes() in rows for row in oracle_beats),
        num_beats=len(oracle_beats),
        identical_beats=by_beat.passed,
        f_measure=f_measure(_times(oracle_beats), _times(beats)),
        fault="; ".join(f"{name}: {one.fault}" for name, one in compared.items() if not one.passed),
        **ulp_measures([*by_log, by_beat]),
    )


def decode_all(decoder: Any, activations: np.ndarray) -> tuple[np.ndarray, Paths]:
    """Beats of a decoder, and path and log probability for each of its bar lengths.

    Parameters
    ----------
    decoder : callable
        See `allin1_core.dbn.load_decoder`. One without `hmms` gives beats only.
    activations : (num_frames, 2) or (num_frames,)
    """
    if hasattr(decoder, "decode_all"):
        beats, paths = decoder.decode_all(activations)
        return np.asarray(beats), list(paths)
    models = getattr(decoder, "hmms", None) or [model for model in [getattr(decoder, "hmm", None)] if model]
    if getattr(decoder, "choice", None):
        return _recorded(decoder, models, activations)
    beats = np.asarray(decoder(activations))
    threshold = getattr(decoder, "threshold", 0)
    kept = threshold_activations(activations, threshold)[0] if threshold else activations
    if not kept.any():
        return beats, []
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "no path", RuntimeWarning)
        return beats, [model.viterbi(kept) for model in models]


def _recorded(decoder: Any, models: list[Any], activations: np.ndarray) -> tuple[np.ndarray, Paths]:
    """Beats of a decoder of ours, and what its models find meanwhile; no paths if it ended early."""
    found: dict[int, tuple[np.ndarray, float]] = {}

    def recording(model: Any, decode: Any) -> Any:
        def run(*arguments: Any) -> tuple[np.ndarray, float]:
            path, log_probability = found[id(model)] = decode(*arguments)
            return path, log_probability

        return run

    try:
        for model in models:
            vars(model)["decode"] = recording(model, type(model).decode.__get__(model))
        beats = np.asarray(decoder(activations))
    finally:
        for model in models:
            vars(model).pop("decode", None)
    return beats, [found[id(model)] for model in models if id(model) in found]


def _times(beats: np.ndarray) -> np.ndarray:
    return beats[:, :1].reshape(-1) if beats.ndim == 2 else beats


def f_measure(reference: np.ndarray, estimate: np.ndarray) -> float:
    """F-measure of beat times in seconds, without mir_eval's cut of the first five.

    1 if both are empty, 0 if either are no times: not in one dimension, not finite, or not in order.
    """
    for times in (reference, estimate):
        if times.ndim != 1 or not np.isfinite(times).all() or not (np.diff(times) >= 0).all():
            return 0.0
    if len(reference) == 0 or len(estimate) == 0:
        return float(len(reference) == len(estimate))
    import mir_eval

    return float(mir_eval.beat.f_measure(reference, estimate, f_measure_threshold=_TOLERANCE))


def against_annotations(times: np.ndarray, downbeats: np.ndarray, beats: np.ndarray) -> dict[str, float]:
    """Scores of decoded beats against annotated ones, as mir_eval counts them (from five seconds on).

    Parameters
    ----------
    times, downbeats : (num_beats,), (num_downbeats,)
        Annotated, in seconds.
    beats : (num_beats, 2)
        Decoded times in seconds and positions in the bar.

    Returns
    -------
    dict
        ``f_measure``, ``cmlt``, ``amlt``, ``downbeat_f_measure``.
    """
    import mir_eval

    reference = mir_eval.beat.trim_beats(times)
    estimate = mir_eval.beat.trim_beats(beats[:, 0])
    _, cmlt, _, amlt = mir_eval.beat.continuity(reference, estimate)
    first = mir_eval.beat.trim_beats(beats[beats[:, 1] == 1, 0])
    return {
        "f_measure": f_measure(reference, estimate),
        "cmlt": float(cmlt),
        "amlt": float(amlt),
        "downbeat_f_measure": f_measure(mir_eval.beat.trim_beats(downbeats), first),
    }
