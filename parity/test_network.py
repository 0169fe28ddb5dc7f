"""The network of every backend against recorded probabilities, against the peer's model, and against each other."""

from __future__ import annotations

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
from parity.implementations import cpu_device, names
from parity.material import read_stems, shared_folder
from parity.oracles import allin1_infer, network_golden
from parity.oracles.network_golden import OUTPUTS, SHORT_TRACKS, TRACKS
from parity.reports.records import ParityRecord, ParityRecorder

BOUND = GENERAL_BOUNDS["network"]["exact"].anything
# Logits and embeddings, of order 10 and 3: 1e-4 of the largest, as float32 through 11 blocks allows.
LARGE_BOUND = 2e-4
FOLDS = tuple(f"harmonix-fold{index}" for index in range(8))
BACKENDS = names("network")


@functools.cache
def spectrogram(track: str) -> np.ndarray:
    return np.asarray(log_spectrogram(read_stems(track), backend="numpy"))


@functools.cache
def model(name: str, backend: str) -> Model:
    folder = shared_folder()
    assert folder is not None
    device = cpu_device("network", backend)
    return load_model(name, backend=backend, device=device, weights_dir=folder / "weights")


@functools.cache
def output(name: str, backend: str, track: str) -> NetworkOutput:
    return model(name, backend)(spectrogram(track), return_logits=True, return_embeddings=True).to_numpy()


def differences(found: Any, expected: Any) -> dict[str, Agreement]:
    """How close each of the probabilities came; `expected` is a mapping or another output."""
    return compare_each(found, expected, OUTPUTS, allowed=BOUND)


def check(
    record_parity: ParityRecorder,
    case: str,
    oracle: str,
    backend: str,
    agreements: Mapping[str, Agreement],
) -> None:
    """Record how close each output came, probabilities and others, then hold it to what is allowed."""
    each = {name: agreement.max_difference for name, agreement in agreements.items()}
    record_parity(
        ParityRecord(
            "network",
            case,
            oracle,
            backend,
            cpu_device("network", backend),
            "exact",
            "<= 1e-4",
            all(agreement.passed for agreement in agreements.values()),
            {
                "max_difference": max(each[name] for name in OUTPUTS),
                **ulp_measures(agreements[name] for name in OUTPUTS),
                **each,
            },
        )
    )
    require_each(agreements, f"{backend}, {case}, beside {oracle}")


# By default: MLX without Metal takes a second a fold for two seconds of music. The tracks of the fused network that are
# left out here are those whose beats and sections the pipeline's test holds to the same goldens.
QUICK = {"fused": (*SHORT_TRACKS, "keep_on_rolling"), "torch": SHORT_TRACKS, "mlx": ("falcon69",)}


def cases(backends: list[str], tracks: tuple[str, ...]) -> list[Any]:
    """Backend and track, those that are not in `QUICK` in the full form alone."""
    return [
        pytest.param(
            backend, track, marks=() if track in QUICK.get(backend, SHORT_TRACKS[:1]) else pytest.mark.full
        )
        for backend in backends
        for track in tracks
    ]


@pytest.mark.parametrize(("backend", "track"), cases(BACKENDS, TRACKS))
def test_ensemble(backend: str, track: str, shared: Path, record_parity: ParityRecorder) -> None:
    agreements = differences(
        output("harmonix-all", backend, track), network_golden.read_golden(shared, track)
    )
    check(record_parity, f"{track}, 8 folds", network_golden.ORACLE, backend, agreements)


@pytest.mark.parametrize(
    ("backend", "fold"),
    [
        # The ensemble's test has all of MLX's folds in one.
        pytest.param(backend, fold, marks=pytest.mark.full if backend == "mlx" and fold != FOLDS[0] else ())
        for backend in BACKENDS
        if backend != "torch"
        for fold in FOLDS
    ],
)
def test_single_folds(backend: str, fold: str, shared: Path, record_parity: ParityRecorder) -> None:
    agreements = differences(output(fold, backend, "falcon69"), output(fold, "torch", "falcon69"))
    check(record_parity, f"falcon69, {fold}", "torch", backend, agreements)


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
@pytest.mark.parametrize("backend", BACKENDS)
def test_peer(backend: str, fold: str, shared: Path, record_parity: ParityRecorder) -> None:
    """Logits and embeddings as well as probabilities."""
    expected = peer_output(fold, "falcon69")
    found = output(fold, backend, "falcon69")
    agreements = differences(found, allin1_infer.probabilities(expected))
    logits = compare_each(found.logits, expected, OUTPUTS, allowed=LARGE_BOUND)
    agreements.update((f"{name} logits", agreement) for name, agreement in logits.items())
    agreements["embeddings"] = compare(found.embeddings, expected["embeddings"], allowed=LARGE_BOUND)
    check(record_parity, f"falcon69, {fold}", allin1_infer.ORACLE, backend, agreements)


@pytest.mark.parametrize("backend", BACKENDS)
def test_native_spectrogram(backend: str, shared: Path) -> None:
    """What the spectrogram stage of the same library returns goes in as it is, and gives the same."""
    library = backends.get("network", backend).arrays
    device = cpu_device("network", backend)
    native = log_spectrogram(read_stems("falcon69"), backend=library, device=device, return_native=True)
    found = model(FOLDS[0], backend)(native)
    require_each(differences(found.to_numpy(), output(FOLDS[0], "torch", "falcon69")), backend)
