"""The network of every backend against recorded probabilities, against the peer's model, and against each other."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.backends.table import GENERAL_BOUNDS
from allin1_core.network import Model, NetworkOutput, load_checkpoints, load_model
from allin1_core.spectrogram import log_spectrogram
from parity.agreement import Agreement, compare, compare_each, require_each, ulp_measures
from parity.implementations import Implementation, network_backends
from parity.material import read_stems, shared_folder
from parity.oracles import allin1_infer, network_golden
from parity.oracles.network_golden import OUTPUTS, TRACKS
from parity.reports.records import ParityRecord, ParityRecorder

BOUND = GENERAL_BOUNDS["network"]["exact"].anything
# Logits and embeddings, of order 10 and 3: 1e-4 of the largest, as float32 through 11 blocks allows.
LARGE_BOUND = 2e-4
FOLDS = tuple(f"harmonix-fold{index}" for index in range(8))
IMPLEMENTATIONS = network_backends()
# Ours in plain torch, which the others are held to beside the recorded probabilities.
PLAIN = Implementation("torch", "exact", "cpu")


@functools.cache
def spectrogram(track: str) -> np.ndarray:
    return np.asarray(log_spectrogram(read_stems(track), backend="numpy"))


@functools.cache
def model(name: str, implementation: Implementation) -> Model:
    folder = shared_folder()
    assert folder is not None
    return load_model(name, **dataclasses.asdict(implementation), weights_dir=folder / "weights")


@functools.cache
def output(name: str, implementation: Implementation, track: str) -> NetworkOutput:
    run = model(name, implementation)
    return run(spectrogram(track), return_logits=True, return_embeddings=True).to_numpy()


def differences(found: Any, expected: Any, allowed: float = BOUND) -> dict[str, Agreement]:
    """How close each of the probabilities came; `expected` is a mapping or another output."""
    return compare_each(found, expected, OUTPUTS, allowed=allowed)


def bound(implementation: Implementation) -> float:
    """Of an implementation's probabilities, as its row declares it."""
    return backends.get("network", implementation.backend).bounds[implementation.precision].anything


def large_bound(implementation: Implementation) -> float:
    """Of its logits and embeddings: as much more as its probabilities are allowed than those of `exact`."""
    return LARGE_BOUND * bound(implementation) / BOUND


def check(
    record_parity: ParityRecorder,
    case: str,
    oracle: str,
    implementation: Implementation,
    agreements: Mapping[str, Agreement],
) -> None:
    """Record how close each output came, probabilities and others, then hold it to what is allowed."""
    each = {name: agreement.max_difference for name, agreement in agreements.items()}
    record_parity(
        ParityRecord(
            "network",
            case,
            oracle,
            implementation.backend,
            implementation.on("network"),
            implementation.precision,
            f"<= {bound(implementation):.0e}",
            all(agreement.passed for agreement in agreements.values()),
            {
                "max_difference": max(each[name] for name in OUTPUTS),
                **ulp_measures(agreements[name] for name in OUTPUTS),
                **each,
            },
        )
    )
    require_each(agreements, f"{implementation}, {case}, beside {oracle}")


def is_quick(implementation: Implementation, track: str) -> bool:
    """Whether an ensemble runs by default: on a GPU on every track, on a CPU the fused one on a short track.

    MLX without Metal takes a second a fold for two seconds of music. The pipeline's tests hold the probabilities of
    the fused network on every track, and of the others on falcon69, to the same goldens.
    """
    return implementation.on("network") == "cuda" or (implementation.backend, track) == ("fused", "falcon69")


@pytest.mark.parametrize(
    ("implementation", "track"),
    [
        pytest.param(one, track, marks=() if is_quick(one, track) else pytest.mark.full, id=f"{one}-{track}")
        for one in IMPLEMENTATIONS
        for track in TRACKS
    ],
)
def test_ensemble(
    implementation: Implementation, track: str, shared: Path, record_parity: ParityRecorder
) -> None:
    agreements = differences(
        output("harmonix-all", implementation, track),
        network_golden.read_golden(shared, track),
        bound(implementation),
    )
    check(record_parity, f"{track}, 8 folds", network_golden.ORACLE, implementation, agreements)


@pytest.mark.parametrize(
    ("implementation", "fold"),
    [
        # The ensemble's test has all of MLX's folds in one.
        pytest.param(
            one,
            fold,
            marks=pytest.mark.full if one.backend == "mlx" and fold != FOLDS[0] else (),
            id=f"{one}-{fold}",
        )
        for one in IMPLEMENTATIONS
        if one != PLAIN
        for fold in FOLDS
    ],
)
def test_single_folds(
    implementation: Implementation, fold: str, shared: Path, record_parity: ParityRecorder
) -> None:
    agreements = differences(
        output(fold, implementation, "falcon69"), output(fold, PLAIN, "falcon69"), bound(implementation)
    )
    check(record_parity, f"falcon69, {fold}", "torch", implementation, agreements)


@functools.cache
def peer_output(fold: str, track: str) -> dict[str, np.ndarray]:
    folder = shared_folder()
    assert folder is not None
    (checkpoint,) = load_checkpoints(fold, weights_dir=folder / "weights")
    return allin1_infer.Peer([checkpoint])(spectrogram(track))


@pytest.mark.skipif(allin1_infer.missing() is not None, reason=str(allin1_infer.missing()))
@pytest.mark.parametrize(
    "fold", [FOLDS[0], *(pytest.param(fold, marks=pytest.mark.full) for fold in FOLDS[1:])]
)
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
def test_peer(implementation: Implementation, fold: str, shared: Path, record_parity: ParityRecorder) -> None:
    """Logits and embeddings as well as probabilities."""
    expected = peer_output(fold, "falcon69")
    found = output(fold, implementation, "falcon69")
    agreements = differences(found, allin1_infer.probabilities(expected), bound(implementation))
    allowed = large_bound(implementation)
    logits = compare_each(found.logits, expected, OUTPUTS, allowed=allowed)
    agreements.update((f"{name} logits", agreement) for name, agreement in logits.items())
    agreements["embeddings"] = compare(found.embeddings, expected["embeddings"], allowed=allowed)
    check(record_parity, f"falcon69, {fold}", allin1_infer.ORACLE, implementation, agreements)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
def test_native_spectrogram(implementation: Implementation, shared: Path) -> None:
    """What the spectrogram stage of the same library returns goes in as it is, and gives the same."""
    backend = implementation.backend
    library = backends.get("network", backend).arrays
    device = implementation.on("network")
    native = log_spectrogram(read_stems("falcon69"), backend=library, device=device, return_native=True)
    found = model(FOLDS[0], implementation)(native).to_numpy()
    expected = output(FOLDS[0], PLAIN, "falcon69")
    require_each(differences(found, expected, bound(implementation)), implementation)
