"""The network: every backend against the peer's model in one run, its growth with length, and its memory.

The peer takes seconds a fold on two cores; so one fold is paired over several rounds, and all eight three times, where
five rounds or more are asked for. Without the peer the reference is our own plain torch network.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.network import Checkpoint, Configuration, Model, build_model, load_checkpoints
from allin1_core.spectrogram import log_spectrogram
from bench.machine import pinned_threads, usable_cores
from bench.memory import peak_memory_bytes
from bench.paired import paired_times
from bench.records import BenchRecord, BenchRecorder
from bench.tracks import default_track
from parity.oracles import allin1_infer
from parity.oracles.network_golden import OUTPUTS
from parity.random_networks import random_checkpoint, random_spectrogram
from parity.shared import shared_folder

BOUND = 1e-4
# TF32 keeps 10 bits of a factor: as the docstring of `load_model` declares.
FAST_BOUND = 2e-2
# Of the slow ones fewer rounds: a round of MLX on a CPU takes half a minute.
_MOST_ROUNDS = {("torch", "cpu"): 3, ("mlx", "mlx"): 2}
_GROWTH_SECONDS = (15, 60, 195, 600)
_AN_HOUR = 3600
_ENSEMBLE_ROUNDS = 3
# With fewer rounds it is a short run, which leaves out what takes minutes.
_THOROUGH = 5


@dataclasses.dataclass(frozen=True)
class Implementation:
    """One row: a backend on a device in a precision."""

    backend: str
    device: str
    precision: str = "exact"

    def __str__(self) -> str:
        return f"{self.backend}-{self.device}-{self.precision}"


def implementations() -> list[Implementation]:
    """All that can run here."""
    found = []
    for name, row in backends.backends("network").items():
        if row.automatic and row.installed:
            found.append(Implementation(name, "mlx" if name == "mlx" else "cpu"))
    if backends.default_device()[0] == "cuda":
        found += [Implementation("torch", "cuda"), Implementation("torch", "cuda", "fast")]
    return found


IMPLEMENTATIONS = implementations()
# Eight folds of these take minutes beside the peer.
_SLOW = (Implementation("torch", "cpu"), Implementation("mlx", "mlx"))


def arithmetic(configuration: Configuration, frames: int) -> float:
    """Floating point operations of one fold in 10^9: two for each product in a layer, nothing for all else."""
    channels, keys = configuration.num_channels, configuration.kernel_size
    inner_time, inner_instrument = (
        int(width * configuration.mlp_ratio) for width in (2 * channels, channels)
    )
    stem = 79 * 9 * channels // 2 + 15 * 12 * channels // 2 * channels + 3 * 9 * channels**2
    time_layer = 2 * (4 * channels**2 + 2 * keys * channels) + 3 * channels * inner_time
    instrument_layer = 4 * channels**2 + 2 * 25 * channels + 2 * channels * inner_instrument
    heads = channels * (3 + configuration.num_labels)
    products = stem + configuration.num_blocks * (time_layer + instrument_layer) + heads
    return 2e-9 * products * configuration.num_instruments * frames


@functools.cache
def checkpoints() -> tuple[Checkpoint, ...]:
    """The published folds or, without the shared material, eight with seeded random parameters."""
    folder = shared_folder()
    if folder is not None:
        return tuple(load_checkpoints("harmonix-all", weights_dir=folder / "weights"))
    return tuple(random_checkpoint(seed) for seed in range(8))


@functools.cache
def spectrogram(seconds: float | None = None) -> np.ndarray:
    """Of the default track, or of the track cut or repeated to a length."""
    track = default_track() if seconds is None else default_track().lasting(seconds)
    return np.asarray(log_spectrogram(track.stems, backend="numpy"))


def build(implementation: Implementation, num_folds: int, threads: int) -> Model:
    return build_model(
        checkpoints()[:num_folds],
        backend=implementation.backend,
        device=implementation.device,
        precision=implementation.precision,
        num_threads=threads,
    )


def run_once(frames: np.ndarray, implementation: Implementation, num_folds: int, threads: int) -> None:
    """What a fresh process runs to measure memory."""
    model = build(implementation, num_folds, threads)
    model.synchronize(model(frames))


def reference(
    device: str, num_folds: int, threads: int
) -> tuple[str, Callable[[], Any], Callable[[Any], Any]]:
    """Name, call, and the call's output as probabilities: the peer on the same kind of device, else plain torch."""
    frames = spectrogram()
    torch_device = device if device.startswith("cuda") else "cpu"
    if allin1_infer.missing() is None:
        peer = allin1_infer.Peer(checkpoints()[:num_folds], torch_device)
        name = f"{allin1_infer.ORACLE} on {torch_device}"
        return (
            name,
            lambda: peer.run(frames),
            lambda out: allin1_infer.probabilities(allin1_infer.to_numpy(out)),
        )
    plain = build(Implementation("torch", torch_device), num_folds, threads)

    def run() -> Any:
        output = plain(frames)
        plain.synchronize(output)
        return output

    return f"plain torch on {torch_device}", run, lambda out: dataclasses.asdict(out.to_numpy())


def paired_row(
    implementation: Implementation, num_folds: int, rounds: int, warmup: int, note: str
) -> BenchRecord:
    """Time one implementation against the reference, and compare what they return."""
    track, frames = default_track(), spectrogram()
    with pinned_threads(usable_cores()) as threads:
        model = build(implementation, num_folds, threads)
        name, run_reference, as_probabilities = reference(implementation.device, num_folds, threads)
        native = model._network.as_native(
            frames
        )  # on its device before the clock starts, as a stage would find it
        times = paired_times(
            lambda: model(native), run_reference, rounds=rounds, warmup=warmup, synchronize=model.synchronize
        )
        expected, found = as_probabilities(times.reference_output), times.candidate_output.to_numpy()
    difference = max(float(np.abs(getattr(found, key) - expected[key]).max()) for key in OUTPUTS)
    fold_or_folds = "1 fold" if num_folds == 1 else f"{num_folds} folds"
    return BenchRecord(
        stage="network",
        backend=implementation.backend,
        device=model.choice.device,
        precision=implementation.precision,
        variant=fold_or_folds,
        reference=name,
        track=track.name,
        audio_seconds=track.seconds,
        threads=threads,
        seconds=times.candidate.tolist(),
        reference_seconds=times.reference.tolist(),
        agreement=f"max {difference:.1e}",
        agrees=difference <= (BOUND if implementation.precision == "exact" else FAST_BOUND),
        figures={
            "max_difference": difference,
            "choice": model.choice.as_dict(),
            "gflops": num_folds * arithmetic(model.configuration, frames.shape[1]),
            "note": f"{note}; weights: {model.checkpoints[0].name}" + (" and on" if num_folds > 1 else ""),
        },
    )


def memory(implementation: Implementation, frames: np.ndarray, num_folds: int) -> int | None:
    """Peak memory on the host; nothing for a GPU, whose memory this does not see."""
    if implementation.device.startswith("cuda"):
        return None
    threads = usable_cores()
    return peak_memory_bytes(
        run_once,
        frames,
        implementation,
        num_folds,
        threads,
        warmup=(random_spectrogram(200), implementation, 1, threads),
        threads=threads,
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
def test_one_fold(implementation: Implementation, record_bench: BenchRecorder, rounds: int) -> None:
    key = (implementation.backend, implementation.device)
    brief = rounds < _THOROUGH and implementation in _SLOW
    rounds = 1 if brief else min(rounds, _MOST_ROUNDS.get(key, rounds))
    row = paired_row(
        implementation,
        1,
        rounds,
        warmup=0 if brief or key == ("mlx", "mlx") else 1,
        note=f"{rounds} round{'s' if rounds > 1 else ''} of one fold",
    )
    if not brief:
        row = dataclasses.replace(row, peak_memory_bytes=memory(implementation, spectrogram(), 1))
    if not brief and key != ("mlx", "mlx"):
        row.figures["by_length"] = [growth_point(implementation, seconds) for seconds in _GROWTH_SECONDS]
    record_bench(row)
    assert row.agrees, f"{implementation}: {row.agreement}"


def growth_point(implementation: Implementation, seconds: float) -> dict[str, Any]:
    """Median of three runs of one fold on a length."""
    frames = spectrogram(seconds)
    with pinned_threads(usable_cores()) as threads:
        model = build(implementation, 1, threads)
        native = model._network.as_native(frames)
        times = []
        for _ in range(3):
            start = time.perf_counter()
            model.synchronize(model(native))
            times.append(time.perf_counter() - start)
    return {"audio_seconds": seconds, "seconds": statistics.median(times)}


@pytest.mark.parametrize("implementation", [row for row in IMPLEMENTATIONS if row not in _SLOW], ids=str)
def test_eight_folds(implementation: Implementation, record_bench: BenchRecorder, rounds: int) -> None:
    if rounds < _THOROUGH:
        pytest.skip(
            f"{rounds} rounds: the eight folds of the peer take long; they are paired from {_THOROUGH} rounds on"
        )
    row = paired_row(
        implementation, 8, _ENSEMBLE_ROUNDS, warmup=1, note=f"the ensemble, {_ENSEMBLE_ROUNDS} rounds"
    )
    row = dataclasses.replace(row, peak_memory_bytes=memory(implementation, spectrogram(), 8))
    record_bench(row)
    assert row.agrees, f"{implementation}: {row.agreement}"


def test_an_hour(record_bench: BenchRecorder, rounds: int) -> None:
    """The ensemble on 60 minutes, in under 4 GB."""
    if rounds < _THOROUGH:
        pytest.skip(f"{rounds} rounds: an hour takes minutes; it is analysed from {_THOROUGH} rounds on")
    frames = random_spectrogram(_AN_HOUR * 100)
    implementation = Implementation("fused", "cpu")
    with pinned_threads(usable_cores()) as threads:
        model = build(implementation, 8, threads)
        start = time.perf_counter()
        model(frames)
        elapsed = time.perf_counter() - start
    peak = memory(implementation, frames, 8)
    assert peak is not None
    fits = peak < 4e9
    record_bench(
        BenchRecord(
            stage="network",
            backend="fused",
            device="cpu",
            precision="exact",
            variant="8 folds, an hour",
            reference="",
            track="random spectrogram",
            audio_seconds=_AN_HOUR,
            threads=threads,
            seconds=[elapsed],
            reference_seconds=[],
            agreement="under 4 GB" if fits else "over 4 GB",
            agrees=fits,
            peak_memory_bytes=peak,
            figures={"gflops": 8 * arithmetic(model.configuration, frames.shape[1]), "note": "one run"},
        )
    )
    assert fits, f"{peak / 1e9:.2f} GB"


@pytest.mark.parametrize("implementation", [row for row in IMPLEMENTATIONS if row.backend != "mlx"], ids=str)
def test_time(implementation: Implementation, benchmark: Any, rounds: int) -> None:
    with pinned_threads(usable_cores()) as threads:
        model = build(implementation, 1, threads)
        native = model._network.as_native(spectrogram())

        def run() -> Any:
            output = model(native)
            model.synchronize(output)
            return output

        brief = rounds < _THOROUGH and implementation in _SLOW
        output = benchmark.pedantic(
            run, rounds=1 if brief else min(rounds, 3), warmup_rounds=0 if brief else 1
        )
    assert output.label.shape[0] == 10
