"""How far the stages agree with their oracles on one track: a row of the report over many."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core import Analyzer
from allin1_core.backends.table import GENERAL_BOUNDS
from allin1_core.network import load_model
from allin1_core.network.model import Model, NetworkOutput
from allin1_core.separation.folder import read_stems_folder
from allin1_core.spectrogram import select
from parity.agreement import compare_each, largest_difference
from parity.implementations import implementations, own_operations
from parity.material import STEMS
from parity.oracles.madmom_spectrogram import backend as madmom_spectrogram
from parity.oracles.network_golden import OUTPUTS
from parity.oracles.pipeline import compare_results, from_probabilities, make_decoder, measures

NETWORK_BOUND = GENERAL_BOUNDS["network"]["exact"].anything


def compare_spectrograms(stems: np.ndarray, sample_rate: int, expected: np.ndarray) -> list[dict[str, Any]]:
    """Largest difference from madmom for each implementation, and for each stem."""
    rows = []
    for implementation in implementations("spectrogram") + own_operations():
        compute = select(
            implementation.backend, device=implementation.device, precision=implementation.precision
        )
        output = compute(stems, sample_rate)
        # An output of another shape has no stems to tell apart.
        parts = output if np.shape(output) == expected.shape else [output] * len(expected)
        by_stem = {
            stem: largest_difference(part, reference)
            for stem, part, reference in zip(STEMS, parts, expected, strict=True)
        }
        largest = max(by_stem.values())
        rows.append(
            {
                "implementation": str(implementation),
                "computed_by": compute.choice.computed_by,
                "by_stem": by_stem,
                "largest": largest,
                "bound": implementation.bound.music,
                "passed": largest <= implementation.bound.music,
            }
        )
    return rows


def compare_networks(ours: NetworkOutput, plain: NetworkOutput) -> dict[str, Any]:
    """Largest difference of each of the network's probabilities."""
    agreements = compare_each(ours, plain, OUTPUTS, allowed=NETWORK_BOUND)
    found = {name: agreement.max_difference for name, agreement in agreements.items()}
    return {
        "by_output": found,
        "largest": max(found.values()),
        "bound": NETWORK_BOUND,
        "passed": all(agreement.passed for agreement in agreements.values()),
    }


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What is loaded once and compares many tracks: the network in plain torch and as it runs, and the pipeline."""

    plain: Model
    fused: Model
    analyzer: Analyzer

    @classmethod
    def load(cls, model: str, weights_dir: Path | None, num_threads: int | None = None) -> Comparison:
        """Load a model; parameters are those of `allin1_core.network.load_model`."""
        plain, fused = (
            load_model(model, backend=name, device="cpu", weights_dir=weights_dir, num_threads=num_threads)
            for name in ("torch", "fused")
        )
        return cls(
            plain,
            fused,
            Analyzer(model=model, device="cpu", weights_dir=weights_dir, num_threads=num_threads),
        )

    def compare(self, path: Path) -> dict[str, Any]:
        """One track's row; whatever reading and analysing it raises."""
        stems = read_stems_folder(path)
        expected = np.asarray(madmom_spectrogram(stems.samples, stems.sample_rate))
        plain_output = self.plain(expected).to_numpy()
        decoder = make_decoder(self.plain.thresholds.downbeat)
        result = self.analyzer(path)
        compared = compare_results(result, from_probabilities(plain_output, decoder))
        return {
            "track": path.name,
            "seconds": stems.samples.shape[1] / stems.sample_rate,
            "spectrogram": compare_spectrograms(stems.samples, stems.sample_rate, expected),
            "network": compare_networks(self.fused(expected).to_numpy(), plain_output),
            "pipeline": measures(result, compared),
        }
