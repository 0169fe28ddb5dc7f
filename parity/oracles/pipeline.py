"""The pipeline that `analyze` replaces, from other people's parts: the oracle and the reference of the whole.

Stems from their files, madmom's log spectrogram of each, a network in plain PyTorch, and madmom's decoder. Reading
the files and making sections of probabilities are ours on both sides: madmom reads no FLAC without ffmpeg, and the
sections have goldens of their own.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from allin1_core import AnalysisResult
from allin1_core.metrical import BEATS_PER_BAR, FRAMES_PER_SECOND, Beats, beats_from_decoder, decoder_input
from allin1_core.network import Checkpoint, NetworkOutput, Thresholds, build_model
from allin1_core.separation.folder import read_stems_folder
from allin1_core.structure import LOCAL_MAXIMA_WINDOW, Segment, pick_boundaries, sections
from allin1_core.structure.numpy_backend import local_maxima
from parity.oracles import allin1_infer, madmom_dbn
from parity.oracles.madmom_spectrogram import backend as madmom_spectrogram

# Half a frame of slack for the representation of a time, none for a second frame.
_ONE_FRAME = 1.5 / FRAMES_PER_SECOND


@dataclasses.dataclass(frozen=True)
class Expected:
    """What a result is held to, and how long the network took for it, where it was run (seconds)."""

    beats: Beats
    segments: list[Segment]
    network_seconds: float = 0.0


def make_decoder(threshold: float) -> Any:
    """madmom's decoder as the pipeline uses it."""
    return madmom_dbn.make_decoder(
        beats_per_bar=list(BEATS_PER_BAR), threshold=threshold, fps=FRAMES_PER_SECOND
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
    beats = beats_from_decoder(decoder(decoder_input(output.beat, output.downbeat)))
    return Expected(
        beats, sections(pick_boundaries(local_maxima(output.segment, LOCAL_MAXIMA_WINDOW)), output.label)
    )


class Pipeline:
    """A session of the replaced pipeline: loads once, analyses many.

    The network is that of all-in-one-infer where it is installed, else our plain one in torch.

    Parameters
    ----------
    checkpoints : sequence of Checkpoint
    """

    def __init__(self, checkpoints: Sequence[Checkpoint]) -> None:
        thresholds = Thresholds.mean([checkpoint.thresholds for checkpoint in checkpoints])
        self._decoder = make_decoder(thresholds.downbeat)
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
        self.name = f"{madmom_dbn.oracle_name()} + {network}"

    def __call__(self, folder: str | os.PathLike[str]) -> Expected:
        """Analyse a folder of stems."""
        stems = read_stems_folder(folder)
        spectrogram = madmom_spectrogram(stems.samples, stems.sample_rate)
        start = time.perf_counter()
        output = self._network(spectrogram)
        elapsed = time.perf_counter() - start
        return dataclasses.replace(from_probabilities(output, self._decoder), network_seconds=elapsed)


def difference_in_words(compared: dict[str, Any]) -> str:
    """What `compare_results` found to differ; empty where all is the same."""
    wrong = {
        "beats": not compared["same_beats"],
        "positions": not compared["same_positions"],
        "labels of sections": not compared["same_labels"],
        "boundaries of sections": compared["boundaries_apart_seconds"] is None
        or compared["boundaries_apart_seconds"] >= _ONE_FRAME,
    }
    return " and ".join(name for name, differs in wrong.items() if differs)


def _as_output(logits: dict[str, np.ndarray]) -> NetworkOutput:
    found = allin1_infer.probabilities(logits)
    return NetworkOutput(found["beat"], found["downbeat"], found["segment"], found["label"])


def compare_results(result: AnalysisResult, expected: Expected) -> dict[str, Any]:
    """Our result beside the oracle's: identical beats and positions, sections that start within a frame."""
    segments = result.segments
    same_labels = [segment.label for segment in segments] == [segment.label for segment in expected.segments]
    apart = (
        max(
            (
                max(abs(a.start - b.start), abs(a.end - b.end))
                for a, b in zip(segments, expected.segments, strict=True)
            ),
            default=0.0,
        )
        if len(segments) == len(expected.segments)
        else None
    )
    same_beats = result.beats == expected.beats.times
    same_positions = result.beat_positions == expected.beats.positions
    return {
        "beats": len(result.beats),
        "same_beats": same_beats,
        "same_positions": same_positions,
        "segments": len(segments),
        "same_labels": same_labels,
        "boundaries_apart_seconds": apart,
        "passed": same_beats and same_positions and same_labels and apart is not None and apart < _ONE_FRAME,
    }
