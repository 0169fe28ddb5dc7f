"""The whole pipeline, from stems or a mix on disk to a result, against the one that it replaces.

The latter is `parity.oracles.pipeline`, before it demucs-infer where there is a mix to separate.

With the shared reference material it runs the published ensemble of eight folds, and its results are compared with
the goldens too. Without, one fold of made-up weights takes its place; times are then those of one fold.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core import Analyzer, backends
from allin1_core.network import load_checkpoints
from allin1_core.results.result import AnalysisResult
from allin1_core.timings.recorder import Timings
from allin1_core.timings.schema import StageTiming
from bench import bench_network
from bench.measure.calls import analyse, analyse_as_before
from bench.measure.load import pinned_threads
from bench.measure.memory import peak_memory_bytes
from bench.measure.paired import is_brief, paired_times, sure_rounds
from bench.report.records import BenchRecord, BenchRecorder
from parity.environment import usable_cores
from parity.implementations import Implementation
from parity.inputs import separation
from parity.inputs.networks import random_checkpoint
from parity.material import SAMPLE_RATE, default_track, shared_folder, write_stems
from parity.oracles import demucs_apply, pipeline

# Of the mix: the separation takes more than half of a track's length on two cores.
_MIX_SECONDS = 10
# Of the published network, in the release's names.
_CONFIGURATION = """\
{model: allin1, double_attention: true, instrument_attention: true, qkv_bias: true, act_conv: elu,
 act_transformer: gelu, dim_input: 81, dim_embed: 24, depth: 11, num_heads: 2, kernel_size: 5, dilation_factor: 2,
 dilation_max: 3200, mlp_ratio: 4, layer_norm_eps: 1.0e-05, data: {num_instruments: 4, num_labels: 10},
 best_threshold_beat: 0.2, best_threshold_downbeat: 0.2}
"""


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is analysed with what: a folder of stems, a model, and the golden if there is one."""

    folder: Path
    track: str
    seconds: float
    model: str
    weights_dir: Path | None
    golden: pipeline.Expected | None

    @property
    def variant(self) -> str:
        return "8 folds" if self.golden else "1 fold of made-up weights"

    def agreement(self, result: AnalysisResult, expected: pipeline.Expected) -> tuple[str, bool]:
        """Of a result with the reference's of the same run, and with the golden."""
        different = pipeline.difference_in_words(pipeline.compare_results(result, expected))
        if different:
            return f"{different} differ", False
        if self.golden is None:
            return "same beats, positions and sections", True
        beside_golden = pipeline.compare_results(result, self.golden)
        if pipeline.passed(beside_golden) and beside_golden["boundaries"].max_difference == 0:
            return "same beats, positions and sections, also as the golden", True
        return "differs from the golden", False


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """The default track as FLAC files, as an analysis finds it."""
    track = default_track()
    shared = shared_folder()
    if shared is not None:
        golden = pipeline.read_golden(shared, track.name)
        folder = shared / "audio" / track.name
        return Setting(folder, track.name, track.seconds, "harmonix-all", shared / "weights", golden)
    folder = write_stems(tmp_path_factory.mktemp("stems") / track.name, track.stems)
    checkpoint = tmp_path_factory.mktemp("weights") / "made_up.npz"
    np.savez(checkpoint, allow_pickle=False, **random_checkpoint(0).parameters)
    checkpoint.with_suffix(".yaml").write_text(_CONFIGURATION, encoding="utf-8")
    return Setting(folder, track.name, track.seconds, str(checkpoint), None, None)


def _seconds_of(lines: list[StageTiming], stages: Collection[str]) -> float:
    return sum(line.duration for line in lines if line.stage in stages and line.thread == "main")


def _rounds_of_the_whole(setting: Setting, rounds: int) -> int:
    """With eight folds the reference takes half a minute: one round in a short run, a figure without an interval."""
    if is_brief(rounds):
        return 1
    return 3 if setting.golden else sure_rounds(rounds)


def _with_one_fold(setting: Setting) -> Setting:
    return dataclasses.replace(setting, model="harmonix-fold0") if setting.golden else setting


def _peak_memory(call: Callable[..., None], setting: Setting, excerpt: Path) -> int:
    options = (setting.model, setting.weights_dir)
    return peak_memory_bytes(call, setting.folder, *options, warmup=(excerpt, *options))


@pytest.fixture(scope="module")
def excerpt(setting: Setting, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds of the track, to warm up on."""
    return write_stems(tmp_path_factory.mktemp("excerpt") / setting.track, default_track().lasting(10).stems)


def test_stems_to_result(
    setting: Setting, excerpt: Path, record_bench: BenchRecorder, rounds: int, benchmark: Any
) -> None:
    """One session, many analyses: what a track costs once the weights are loaded."""
    runs: list[Timings] = []
    rests: list[float] = []
    before: list[tuple[float, pipeline.Expected]] = []

    def timed(call: Callable[[], Any]) -> tuple[Any, float]:
        start = time.perf_counter()
        return call(), time.perf_counter() - start

    def ours() -> AnalysisResult:
        runs.append(Timings())
        result, total = timed(lambda: analyzer(setting.folder, timings=runs[-1]))
        rests.append(total - _seconds_of(runs[-1].records, ("model_load", "nn")))
        return result

    def theirs() -> pipeline.Expected:
        expected, total = timed(lambda: replaced(setting.folder))
        before.append((total, expected))
        return expected

    with pinned_threads(usable_cores()) as threads:
        analyzer = Analyzer(model=setting.model, weights_dir=setting.weights_dir)
        replaced = pipeline.Pipeline(load_checkpoints(setting.model, weights_dir=setting.weights_dir))
        with_probabilities = analyzer(setting.folder, include_activations=True)
        replaced(excerpt)
        counted = _rounds_of_the_whole(setting, rounds)
        times = paired_times(ours, theirs, rounds=counted, warmup=0, benchmark=benchmark)
    agreement, agrees = setting.agreement(times.candidate_output, times.reference_output)
    choice = analyzer.session.network_choice
    middle = int(np.argsort(times.candidate)[len(times.candidate) // 2])
    row = BenchRecord(
        stage="pipeline",
        backend=f"{analyzer.session.log_spectrogram.choice.backend} + {choice.backend}",
        device=choice.device,
        precision=choice.precision,
        variant=f"stems to result, {setting.variant}",
        reference=replaced.name,
        track=setting.track,
        audio_seconds=setting.seconds,
        threads=threads,
        **times.as_fields,
        agreement=agreement,
        agrees=agrees,
        peak_memory_bytes=_peak_memory(analyse, setting, excerpt),
        reference_peak_memory_bytes=None
        if is_brief(rounds)
        else _peak_memory(analyse_as_before, _with_one_fold(setting), excerpt),
        reference_threads=threads,
        figures={
            "timings": [dataclasses.asdict(line) for line in runs[middle].records],
            "note": "both read the stems with soundfile, and keep their loaded weights from round to round; the "
            "reference's network may use all threads, its spectrogram and decoder use one; its memory is of one fold",
        },
    )
    record_bench(row)
    record_bench(
        dataclasses.replace(
            row,
            variant=f"all but the network, {setting.variant}",
            seconds=rests,
            reference_seconds=[total - expected.network_seconds for total, expected in before],
            peak_memory_bytes=None,
            reference_peak_memory_bytes=None,
            reference_threads=1,
            figures={"note": "of the same runs"},
        )
    )
    network = analyzer.session.load_model(Timings())
    agreement_of_network, network_agrees = bench_network.agreement_of(
        with_probabilities.activations, before[-1][1].probabilities, choice.backend, choice.precision
    )
    record_bench(
        dataclasses.replace(
            row,
            stage="network",
            backend=choice.backend,
            variant=setting.variant,
            reference=replaced.network_name,
            seconds=[_seconds_of(run.records, ("nn",)) for run in runs[-counted:]],
            reference_seconds=[expected.network_seconds for _, expected in before],
            agreement=agreement_of_network,
            agrees=network_agrees,
            peak_memory_bytes=None
            if is_brief(rounds)
            else bench_network.memory(
                Implementation(choice.backend, choice.precision, choice.device),
                bench_network.spectrogram(),
                len(network.checkpoints),
            ),
            reference_peak_memory_bytes=None,
            figures={
                "gflops": len(network.checkpoints)
                * bench_network.arithmetic(network.configuration, round(setting.seconds * 100)),
                "note": "of the same runs as the pipeline's",
            },
        )
    )
    assert network_agrees, agreement_of_network
    assert agrees, agreement


def test_mix_to_result(setting: Setting, record_bench: BenchRecorder, tmp_path: Path, benchmark: Any) -> None:
    """What a user waits for who has no stems: one round of an excerpt, by a separation network of random weights."""
    pytest.importorskip("demucs_infer", reason="demucs-infer is not installed (extra 'demucs')")
    track = default_track().lasting(_MIX_SECONDS)
    mix = separation.stereo_mix(track.stems)
    path = tmp_path / f"{setting.track}.wav"
    soundfile.write(path, mix.T, SAMPLE_RATE)
    model = separation.htdemucs(mix, **separation.PUBLISHED)
    separation.save(model, tmp_path / "published.th", **separation.PUBLISHED)
    runs: list[Timings] = []

    def ours() -> AnalysisResult:
        runs.append(Timings())
        return analyzer(path, timings=runs[-1])

    def theirs() -> pipeline.Expected:
        return replaced(demucs_apply.separate_file(model, path, tmp_path / "stems"))

    with pinned_threads(usable_cores()) as threads:
        analyzer = Analyzer(
            model=setting.model,
            weights_dir=setting.weights_dir,
            device="cpu",
            demix_model="published",
            demix_repository=tmp_path,
        )
        replaced = pipeline.Pipeline(load_checkpoints(setting.model, weights_dir=setting.weights_dir))
        analyzer.session.separator()
        analyzer.session.load_model(Timings())
        times = paired_times(ours, theirs, rounds=1, warmup=0, benchmark=benchmark)
    of_excerpt = dataclasses.replace(setting, golden=None)
    agreement, agrees = of_excerpt.agreement(times.candidate_output, times.reference_output)
    session = analyzer.session
    choices = (session.separation_choice, session.log_spectrogram.choice, session.network_choice)
    record_bench(
        BenchRecord(
            stage="pipeline",
            backend=" + ".join(choice.backend for choice in choices),
            device=session.network_choice.device,
            precision=session.network_choice.precision,
            variant=f"mix to result, {_MIX_SECONDS} s, {setting.variant}",
            reference=f"{demucs_apply.ORACLE} + {replaced.name}",
            track=setting.track,
            audio_seconds=track.seconds,
            threads=threads,
            **times.as_fields,
            agreement=agreement,
            agrees=agrees,
            reference_threads=threads,
            figures={
                "timings": [dataclasses.asdict(line) for line in runs[-1].records],
                "note": "the separation has the shape of the published htdemucs and random weights, on which its time "
                "does not depend",
            },
        )
    )
    assert agrees, agreement


def test_the_command(
    setting: Setting, record_bench: BenchRecorder, rounds: int, tmp_path: Path, benchmark: Any
) -> None:
    """A process of its own: interpreter, imports, weights, analysis, JSON."""
    command = [sys.executable, "-m", "allin1_core.cli", "analyze", str(setting.folder), "--quiet"]
    command += ["--model", setting.model]
    if setting.weights_dir is not None:
        command += ["--weights-dir", str(setting.weights_dir)]
    folders = [tmp_path / str(index) for index in range(min(rounds, 3))]
    unused = iter(folders)

    def into_another_folder() -> tuple[tuple[list[str]], dict[str, bool]]:
        return ([*command, "--out-dir", str(next(unused))],), {"check": True}

    benchmark.pedantic(subprocess.run, setup=into_another_folder, rounds=len(folders))
    written = [(folder / f"{setting.track}.json").read_bytes() for folder in folders]
    same = all(text == written[0] for text in written)
    record_bench(
        BenchRecord(
            stage="pipeline",
            backend="auto",
            device=backends.default_device()[0],
            variant=f"the command, {setting.variant}",
            track=setting.track,
            audio_seconds=setting.seconds,
            threads=usable_cores(),
            seconds=benchmark.stats.stats.data,
            agreement="the same JSON every time" if same else "JSON differs",
            agrees=same,
        )
    )
    assert same
