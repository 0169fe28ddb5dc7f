"""The oracle of the whole pipeline: the one that `analyze` replaces, assembled from independent parts.

Stems from their files, madmom's log spectrogram of each, a network in plain PyTorch, madmom's decoder, and sections by
their definition, with the published constants. Reading the files is ours on both sides: madmom reads no FLAC without
ffmpeg.
"""

from __future__ import annotations

import collections
import dataclasses
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core import AnalysisResult
from allin1_core.network import Checkpoint, NetworkOutput, build_model
from allin1_core.separation.folder import read_stems_folder
from parity.agreement import Agreement, compare
from parity.oracles import allin1_infer, madmom_dbn
from parity.oracles.madmom_spectrogram import backend as madmom_spectrogram
from parity.oracles.structure import Section, boundaries, compare_sections, local_maxima, sections
from parity.oracles.tempo import compare_tempo

_BEATS_PER_BAR = (3, 4)
_FRAMES_PER_SECOND = 100
# Seconds: 10 ms, and half of that for the representation of a time. A section may start or end a frame beside the
# oracle's, where two neighbours are all but equally probable. So may a beat of a network that rounds the factors of its
# products: it stands on the larger of two activations, which in a golden are 1.8e-5 apart (keep_on_rolling at 57.70 s),
# less than any such network rounds by.
ONE_FRAME = 0.015


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a result is held to: beats and sections as found, and what follows from the beats.

    Attributes
    ----------
    beats : list of float
        Seconds.
    positions : list of int
    segments : list of (start, end, label)
    network_seconds : float
        How long the network took for it, where it was run.
    probabilities : NetworkOutput, optional
        What the network gave.
    """

    beats: list[float]
    positions: list[int]
    segments: list[Section]
    network_seconds: float = 0.0
    probabilities: NetworkOutput | None = None

    @property
    def downbeats(self) -> list[float]:
        """Beats at position 1."""
        return [time for time, position in zip(self.beats, self.positions, strict=True) if position == 1]

    @property
    def bpm(self) -> int | None:
        """As All-In-One has it: the most frequent rounded rate, and the highest of equally frequent ones."""
        rates = collections.Counter(
            round(60 / (end - start)) for start, end in itertools.pairwise(self.beats)
        )
        return max(rates, key=lambda rate: (rates[rate], rate), default=None)


def read_golden(shared: Path, track: str) -> Expected:
    """What all-in-one-infer 3.1.0 gave for a shared track, as recorded."""
    golden = json.loads((shared / "golden" / f"{track}.json").read_text(encoding="utf-8"))
    segments = [(start, end, label) for start, end, label in golden["segments"]]
    return Expected(golden["beats"], golden["beat_positions"], segments)


def decoder_input(beat: np.ndarray, downbeat: np.ndarray) -> np.ndarray:
    """Beat but not downbeat, and downbeat, ``float32 (T, 2)``: the published formula, whose third class is neither."""
    three = np.stack(
        [np.maximum(np.float32(1e-8), beat - downbeat), downbeat, ((1 - beat) + (1 - downbeat)) / 2], axis=-1
    )
    return (three / three.sum(axis=-1, keepdims=True))[:, :2]


def make_decoder(threshold: float) -> Any:
    """madmom's decoder as the pipeline uses it."""
    return madmom_dbn.make_decoder(
        beats_per_bar=list(_BEATS_PER_BAR), threshold=threshold, fps=_FRAMES_PER_SECOND
    )


def from_probabilities(output: NetworkOutput, decoder: Callable[[np.ndarray], np.ndarray]) -> Expected:
    """Beats as madmom's decoder finds them in a network's output, and sections.

    Parameters
    ----------
    output : NetworkOutput
        Of numpy arrays.
    decoder : callable
        From `make_decoder`.
    """
    decoded = decoder(decoder_input(output.beat, output.downbeat))
    return Expected(
        [float(time) for time in decoded[:, 0]],
        [int(position) for position in decoded[:, 1]],
        sections(boundaries(local_maxima(output.segment)), output.label),
    )


class Pipeline:
    """A session of the replaced pipeline: loads once, analyses many.

    The network is that of all-in-one-infer where it is installed, else our plain one in torch.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint
    """

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        thresholds = [checkpoint.thresholds.downbeat for checkpoint in checkpoints]
        self._decoder = make_decoder(sum(thresholds) / len(thresholds))
        if allin1_infer.missing() is None:
            peer = allin1_infer.Peer(checkpoints, "cpu")
            self._network: Callable[[np.ndarray], NetworkOutput] = lambda spectrogram: _as_output(
                peer(spectrogram)
            )
            network = allin1_infer.ORACLE
        else:
            plain = build_model(checkpoints, backend="torch", device="cpu")
            self._network = lambda spectrogram: plain(spectrogram).to_numpy()
            network = "plain torch"
        self.network_name = f"{network} on cpu"
        self.name = f"{madmom_dbn.oracle_name()} + {network}"

    def __call__(self, folder: str | os.PathLike[str]) -> Expected:
        """Analyse a folder of stems."""
        stems = read_stems_folder(folder)
        spectrogram = madmom_spectrogram(stems.samples, stems.sample_rate)
        start = time.perf_counter()
        output = self._network(spectrogram)
        elapsed = time.perf_counter() - start
        found = from_probabilities(output, self._decoder)
        return dataclasses.replace(found, network_seconds=elapsed, probabilities=output)


def _as_output(logits: dict[str, np.ndarray]) -> NetworkOutput:
    found = allin1_infer.probabilities(logits)
    return NetworkOutput(found["beat"], found["downbeat"], found["segment"], found["label"])


def compare_results(
    result: AnalysisResult, expected: Expected, *, beats_within_a_frame: bool = False
) -> dict[str, Agreement]:
    """Each field of our result beside the oracle's: the same, the tempo within its bound, boundaries within a frame.

    Where `beats_within_a_frame`, beats and downbeats, too, and the tempo is held to the beats that were found.
    """
    pairs: dict[str, tuple[Sequence[Any], Sequence[Any], float]] = {
        "beats": (result.beats, expected.beats, ONE_FRAME * beats_within_a_frame),
        "positions": (result.beat_positions, expected.positions, 0.0),
        "downbeats": (result.downbeats, expected.downbeats, ONE_FRAME * beats_within_a_frame),
        "bpm": (_one(result.bpm), _one(expected.bpm), 0.0),
    }
    same = {
        name: compare(np.array(found), np.array(oracles), allowed=allowed)
        for name, (found, oracles, allowed) in pairs.items()
    }
    beats = result.beats if beats_within_a_frame else expected.beats
    tempo = compare_tempo(result.tempo, result.tempo_spread, beats)
    return {**same, **tempo, **compare_sections(result.segments, expected.segments, allowed=ONE_FRAME)}


def _one(value: Any) -> list[Any]:
    return [] if value is None else [value]


def passed(agreements: Mapping[str, Agreement]) -> bool:
    """Whether all that `compare_results` compared agrees."""
    return all(agreement.passed for agreement in agreements.values())


def measures(result: AnalysisResult, agreements: Mapping[str, Agreement]) -> dict[str, Any]:
    """What a report shows of `compare_results`, JSON-ready."""
    same = {f"same_{name}": one.passed for name, one in agreements.items() if name != "boundaries"}
    return {
        "beats": len(result.beats),
        "segments": len(result.segments),
        **same,
        "boundaries_apart_seconds": agreements["boundaries"].max_difference,
        "passed": passed(agreements),
    }


def difference_in_words(agreements: Mapping[str, Agreement]) -> str:
    """What `compare_results` found to differ; empty where all is the same."""
    return " and ".join(name for name, agreement in agreements.items() if not agreement.passed)
