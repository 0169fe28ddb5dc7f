"""The network: every backend against the peer's model in one run, its growth with length, and its memory.

The peer takes seconds a fold on two cores: one fold is paired on a minute, and all eight on a processor within the
whole pipeline (bench_pipeline.py). What is slower than the peer is paired in fewer rounds. Without the peer the
reference is our own plain torch network.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.network import Configuration, Model, build_model
from allin1_core.spectrogram import log_spectrogram
from bench.measure.calls import checkpoints, run_network
from bench.measure.load import pinned_threads
from bench.measure.memory import peak_memory_and_seconds
from bench.measure.paired import growth_point, is_brief, paired_times, sure_rounds
from bench.report.records import BenchRecord, BenchRecorder
from parity.agreement import compare_each
from parity.environment import usable_cores
from parity.implementations import Implementation, network_backends
from parity.inputs.networks import random_spectrogram
from parity.material import default_track
from parity.oracles import allin1_infer
from parity.oracles.network_golden import OUTPUTS

_SECONDS = 60.0
# On a CPU MLX takes 0.1 s for a second of audio.
_MLX_SECONDS = 10.0
_WARM_UP_SECONDS = 5.0
_GROWTH_SECONDS = (15, 60, 195, 600)
_AN_HOUR = 3600
_FOLDS_OF_AN_HOUR = 2
_MOST_FOR_AN_HOUR = 4e9  # bytes
_FEW_ROUNDS = 3


IMPLEMENTATIONS = network_backends()
_TORCH, _MLX = Implementation("torch", "exact", "cpu"), Implementation("mlx", "exact")


def _mlx_is_slow() -> bool:
    """Whether MLX has a CPU only, for which it is not made."""
    import mlx.core as mx

    return bool(mx.default_device().type == mx.DeviceType.cpu)


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
def spectrogram(seconds: float | None = None) -> np.ndarray:
    """Of the default track, or of the track cut or repeated to a length."""
    track = default_track().lasting(seconds)
    return np.asarray(log_spectrogram(track.stems, backend="numpy"))


def build(implementation: Implementation, num_folds: int, threads: int) -> Model:
    return build_model(checkpoints()[:num_folds], num_threads=threads, **dataclasses.asdict(implementation))


def reference(
    device: str, num_folds: int, threads: int
) -> tuple[str, Callable[[np.ndarray], Any], Callable[[Any], Any]]:
    """Name, call, and the call's output as probabilities: the peer on the same kind of device, else plain torch."""
    torch_device = device if device.startswith("cuda") else "cpu"
    if allin1_infer.missing() is None:
        peer = allin1_infer.Peer(checkpoints()[:num_folds], torch_device)
        name = f"{allin1_infer.ORACLE} on {torch_device}"
        return name, peer.run, lambda out: allin1_infer.probabilities(allin1_infer.to_numpy(out))
    plain = build(Implementation("torch", "exact", torch_device), num_folds, threads)

    def run(frames: np.ndarray) -> Any:
        output = plain(frames)
        plain.synchronize(output)
        return output

    return f"plain torch on {torch_device}", run, lambda out: dataclasses.asdict(out.to_numpy())


def agreement_of(found: Any, expected: Any, backend: str, precision: str) -> tuple[str, bool]:
    """How close a network's probabilities are to the reference's, in words, and whether that is close enough."""
    bound = backends.get("network", backend).bounds[precision].anything
    agreements = compare_each(found, expected, OUTPUTS, allowed=bound).values()
    difference = max(agreement.max_difference for agreement in agreements)
    return f"max {difference:.1e} of a probability, bound {bound:.0e}", difference <= bound


def paired_row(
    implementation: Implementation,
    num_folds: int,
    rounds: int,
    benchmark: Any,
    seconds: float | None = None,
    note: str = "",
) -> BenchRecord:
    """Time one implementation against the reference on the track or an excerpt, and compare what they return."""
    track = default_track().lasting(seconds)
    frames = spectrogram(seconds)
    with pinned_threads(usable_cores()) as threads:
        model = build(implementation, num_folds, threads)
        name, run_reference, as_probabilities = reference(model.choice.device, num_folds, threads)
        # On its device before the clock starts, as a stage would find it.
        native = model._network.as_native(frames)
        # A few seconds warm up as well as all of them.
        excerpt = spectrogram(_WARM_UP_SECONDS)
        model.synchronize(model(excerpt))
        run_reference(excerpt)
        times = paired_times(
            lambda: model(native),
            lambda: run_reference(frames),
            rounds=rounds,
            warmup=0 if num_folds > 1 else 1,
            synchronize=model.synchronize,
            benchmark=benchmark,
        )
        expected, found = as_probabilities(times.reference_output), times.candidate_output.to_numpy()
    agreement, agrees = agreement_of(found, expected, implementation.backend, implementation.precision)
    fold_or_folds = "1 fold" if num_folds == 1 else f"{num_folds} folds"
    weights = model.checkpoints[0].name + (" and on" if num_folds > 1 else "")
    return BenchRecord(
        stage="network",
        backend=implementation.backend,
        device=model.choice.device,
        precision=implementation.precision,
        variant=fold_or_folds + (f", {seconds:.0f} s" if seconds is not None else ""),
        reference=name,
        track=track.name,
        audio_seconds=track.seconds,
        threads=threads,
        **times.as_fields,
        agreement=agreement,
        agrees=agrees,
        figures={
            "gflops": num_folds * arithmetic(model.configuration, frames.shape[1]),
            "note": "; ".join(part for part in (note, f"weights: {weights}") if part),
        },
        reference_threads=threads,
    )


def memory(implementation: Implementation, frames: np.ndarray, num_folds: int) -> int | None:
    """Peak memory on the host; nothing for a GPU, whose memory this does not see."""
    return (
        None
        if implementation.on("network") == "cuda"
        else _in_a_fresh_process(implementation, frames, num_folds)[0]
    )


def _in_a_fresh_process(
    implementation: Implementation, frames: np.ndarray, num_folds: int
) -> tuple[int, float]:
    """Peak memory in bytes, and seconds."""
    threads = usable_cores()
    return peak_memory_and_seconds(
        run_network,
        frames,
        num_folds,
        warmup=(random_spectrogram(200), 1),
        threads=threads,
        num_threads=threads,
        **dataclasses.asdict(implementation),
    )


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
def test_one_fold(
    implementation: Implementation, record_bench: BenchRecorder, rounds: int, benchmark: Any
) -> None:
    if implementation == _MLX and _mlx_is_slow():
        row = paired_row(implementation, 1, _FEW_ROUNDS, benchmark, _MLX_SECONDS, "without Metal: an excerpt")
    else:
        num_rounds = _FEW_ROUNDS if implementation == _TORCH else sure_rounds(rounds)
        row = paired_row(implementation, 1, num_rounds, benchmark, _SECONDS)
    if not is_brief(rounds):
        peak = memory(implementation, spectrogram(row.audio_seconds), 1)
        row = dataclasses.replace(row, peak_memory_bytes=peak)
        if implementation.backend == "fused":
            row.figures["by_length"] = [_growth(implementation, seconds) for seconds in _GROWTH_SECONDS]
    record_bench(row)
    assert row.agrees, f"{implementation}: {row.agreement}"


def _growth(implementation: Implementation, seconds: float) -> dict[str, Any]:
    """Median time of one fold on a length, and its peak memory."""
    frames = spectrogram(seconds)
    peak = memory(implementation, frames, 1)
    with pinned_threads(usable_cores()) as threads:
        model = build(implementation, 1, threads)
        native = model._network.as_native(frames)
        return growth_point(seconds, lambda: model(native), peak, model.synchronize)


@pytest.mark.parametrize(
    "implementation", [one for one in IMPLEMENTATIONS if one.on("network") != "cpu"], ids=str
)
def test_eight_folds(
    implementation: Implementation, record_bench: BenchRecorder, rounds: int, benchmark: Any
) -> None:
    """On a GPU."""
    if implementation == _MLX and _mlx_is_slow():
        pytest.skip("MLX without Metal: minutes for a few rounds")
    row = paired_row(implementation, 8, sure_rounds(rounds), benchmark, note="the ensemble")
    record_bench(row)
    assert row.agrees, f"{implementation}: {row.agreement}"


def test_an_hour(record_bench: BenchRecorder, rounds: int) -> None:
    """Folds of the ensemble on 60 minutes, in under 4 GB: what one leaves is used by the next."""
    if is_brief(rounds):
        pytest.skip(f"{rounds} rounds: an hour takes minutes; a thorough run has it")
    frames = random_spectrogram(_AN_HOUR * 100)
    implementation = Implementation("fused", "exact", "cpu")
    threads = usable_cores()
    peak, elapsed = _in_a_fresh_process(implementation, frames, _FOLDS_OF_AN_HOUR)
    fits = peak < _MOST_FOR_AN_HOUR
    record_bench(
        BenchRecord(
            stage="network",
            backend="fused",
            variant=f"{_FOLDS_OF_AN_HOUR} folds, an hour",
            track="random spectrogram",
            audio_seconds=_AN_HOUR,
            threads=threads,
            seconds=[elapsed],
            peak_memory_bytes=peak,
            figures={
                "gflops": _FOLDS_OF_AN_HOUR * arithmetic(checkpoints()[0].configuration, frames.shape[1]),
                "note": "one run in a fresh process, with the packing of the weights, compared with nothing; "
                f"{'under' if fits else 'OVER'} the "
                f"{_MOST_FOR_AN_HOUR / 1e9:.0f} GB that an hour is held to",
            },
        )
    )
    assert fits, f"{peak / 1e9:.2f} GB"
