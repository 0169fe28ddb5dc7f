"""The checks of the gate: each measures one thing and says what was measured, what was asked, and whether that holds.

Speed is judged by ratios only, and more than once before it fails. Against the committed baseline a backend is timed
on one thread and in CPU seconds, in many short rounds, by those that nothing disturbed.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from allin1_core import backends
from allin1_core.computation import computation
from bench.gate_cases import Case, largest_difference, madmom_decoder, our_decoder
from bench.machine import OtherLoad, pinned_threads, usable_cores
from bench.paired import Ratio, bootstrap_ratio, paired_times
from bench.tracks import SAMPLE_RATE, Track, default_track
from parity.activations import drifting
from parity.agreement import compare

_SYSTEM_LOAD = 0.15


@dataclasses.dataclass(frozen=True)
class Verdict:
    """One line of the gate's table; `passed` is None where nothing can be said, and `measured` says why."""

    row: str
    check: str
    measured: str
    asked: str
    passed: bool | None

    def __str__(self) -> str:
        return f"{self.row}: {self.check} measured {self.measured}, asked {self.asked}"


@dataclasses.dataclass(frozen=True)
class Timing:
    """A case timed.

    Attributes
    ----------
    candidate, reference : float64 (rounds,)
        Seconds of each side in each round.
    difference : float
        Of the outputs of the last round.
    busy_elsewhere : float
        Cores that other processes kept busy meanwhile.
    """

    candidate: np.ndarray
    reference: np.ndarray
    difference: float = 0.0
    busy_elsewhere: float = 0.0

    @functools.cached_property
    def ratio(self) -> Ratio:
        """How many times faster the candidate is."""
        return bootstrap_ratio(self.candidate, self.reference)

    @property
    def undisturbed(self) -> float:
        """How many times faster the candidate is in undisturbed rounds: the ratio of the fifth percentiles.

        What shares a core, its cache or its memory with the measurement adds time, to one side more than to the other
        and to most rounds while it lasts; the shortest rounds it hardly touches. The very shortest is one value alone.
        """
        return float(np.percentile(self.reference, 5) / np.percentile(self.candidate, 5))


def time_case(case: Case, rounds: int) -> Timing:
    """Time a case with its threads pinned, and compare what its last round returned.

    One thread is timed by the CPU seconds of the process, which do not grow while somebody else has the core; several
    threads by the clock on the wall, since only that shows whether they ran side by side.
    """
    clock = time.process_time if case.threads == 1 else time.perf_counter
    with pinned_threads(case.threads), OtherLoad() as others:
        times = paired_times(
            case.candidate, case.reference, rounds=rounds, clock=clock, candidate_calls=case.calls
        )
    difference = case.difference(times.candidate_output, times.reference_output)
    return Timing(times.candidate, times.reference, difference, others.cores)


def check_ratio(
    case: Case, at_least: float, *, rounds: int, check: str, first: Timing | None = None
) -> Verdict:
    """Whether the lower end of the ratio's interval reaches a bar; measured again once before it fails.

    Parameters
    ----------
    case : Case
    at_least : float
    rounds : int
    check : str
        What the bar is, for the table.
    first : Timing, optional
        A measurement of this case that was already made.
    """
    seen: list[Timing] = []
    for attempt in range(2):
        seen.append(first if attempt == 0 and first is not None else time_case(case, rounds))
        if seen[-1].ratio.low >= at_least:
            break
    passed: bool | None = seen[-1].ratio.low >= at_least
    measured = ", then ".join(str(timing.ratio) for timing in seen)
    if not passed and all(_starved(case, timing) or _undecided(timing, at_least) for timing in seen):
        measured += _busy(seen)
        passed = None
    return Verdict(case.key, check, measured, f"at least {at_least:.3g}x at the lower end", passed)


class SlowdownCheck:
    """Whether a backend is as fast as the baseline has it, by the undisturbed rounds of all measurements together.

    A spell that spares no round ends: what falls short is measured again, best at some other time. It may slow the
    reference down as well, and hide a loss: what holds by less than half the room is measured again too.

    Parameters
    ----------
    case : Case
    before : float
        `Timing.undisturbed` of the baseline.
    at_most : float
        How many times slower it may have become.
    rounds : int
        Of each measurement.
    """

    def __init__(self, case: Case, before: float, at_most: float, rounds: int) -> None:
        self._case, self._before, self._bar, self._rounds = case, before, before / at_most, rounds
        self._clear = before / math.sqrt(at_most)
        self._seen: list[Timing] = []

    @property
    def is_clear(self) -> bool:
        """Whether what was measured until now leaves no doubt that the backend is as fast."""
        return bool(self._seen) and self._together.undisturbed >= self._clear

    @property
    def _together(self) -> Timing:
        return Timing(
            np.concatenate([timing.candidate for timing in self._seen]),
            np.concatenate([timing.reference for timing in self._seen]),
        )

    def measure(self) -> Verdict:
        """Time the case, and judge by all rounds since the check was made."""
        self._seen.append(time_case(self._case, self._rounds))
        together = self._together
        measured = f"{together.undisturbed:.2f}x in {together.candidate.size} rounds"
        passed: bool | None = together.undisturbed >= self._bar
        if not passed and all(_starved(self._case, timing) for timing in self._seen):
            measured += _busy(self._seen)
            passed = None
        return Verdict(
            self._case.key,
            f"ratio, {self._before:.3g}x in the baseline",
            measured,
            f"at least {self._bar:.3g}x",
            passed,
        )

    def measure_until_clear(self, times: int = 3) -> Verdict:
        """Up to so many measurements one after the other, for who cannot wait."""
        for _ in range(times):
            verdict = self.measure()
            if self.is_clear:
                break
        return verdict


def _busy(seen: Sequence[Timing]) -> str:
    return f"; other processes kept {max(timing.busy_elsewhere for timing in seen):.1f} cores busy"


def _starved(case: Case, timing: Timing) -> bool:
    """Whether fewer cores were free than the case needs, leaving out what the system itself takes."""
    return usable_cores() - timing.busy_elsewhere < case.threads - _SYSTEM_LOAD


def _undecided(timing: Timing, at_least: float) -> bool:
    """Whether the interval is too wide to judge by and holds the bar: no loss was shown, only noise."""
    return timing.ratio.too_noisy and timing.ratio.high >= at_least


def check_difference(row: str, difference: float, at_most: float) -> Verdict:
    """Whether outputs are as close to the oracle's as they have to be."""
    asked = "bit-identical" if at_most == 0 else f"at most {at_most:.2g}"
    measured = "bit-identical" if difference == 0 else f"{difference:.3g}"
    return Verdict(row, "difference from the oracle", measured, asked, difference <= at_most)


def check_spectrogram_difference(
    backend: str, precision: str, at_most: float, compute: Callable[[np.ndarray], np.ndarray] | None = None
) -> Verdict:
    """Largest difference from madmom over music, silence, noise and full-scale signals.

    Parameters
    ----------
    backend, precision : str
    at_most : float
    compute : callable, optional
        Stands in for the backend where a test wants to break it.
    """
    from allin1_core.spectrogram import select
    from parity.oracles.madmom_spectrogram import madmom_spectrogram

    selected = select(backend, precision=precision)
    worst = 0.0
    for stems in _signals(default_track()):
        output = compute(stems) if compute else selected(stems, SAMPLE_RATE)
        expected = np.stack([madmom_spectrogram(stem, SAMPLE_RATE) for stem in stems])
        worst = max(worst, largest_difference(output, expected))
    return check_difference(f"spectrogram/{backend}/{precision}", worst, at_most)


def _signals(track: Track) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    num_samples = 5 * SAMPLE_RATE
    time = np.arange(num_samples) / SAMPLE_RATE
    sine = np.sin(2 * np.pi * 440 * time)
    synthetic = [sine, np.sign(sine), generator.uniform(-1, 1, num_samples), np.zeros(num_samples)]
    scaled = np.stack(synthetic) * 32767
    return [track.lasting(10).stems, scaled.astype(np.int16), np.stack(synthetic).astype(np.float32)]


def check_decoder(backend: str, decode: Callable[[np.ndarray], np.ndarray] | None = None) -> Verdict:
    """Share of activations that are decoded to exactly madmom's beats and positions.

    Parameters
    ----------
    backend : str
    decode : callable, optional
        Stands in for ours where a test wants to break it.
    """
    ours = decode or our_decoder(backend)
    madmom = madmom_decoder()
    inputs = [drifting(15 + seed, seed) for seed in range(8)]
    same = [compare(ours(one), madmom(one)).passed for one in inputs]
    measured = f"{sum(same)} of {len(same)} ({np.mean(same):.0%})"
    return Verdict(f"decoder/{backend}", "identical beats and positions", measured, "100%", all(same))


def check_what_runs(stage: str, backend: str, precision: str = "exact") -> Verdict:
    """Whether a backend that is asked for by name is the one that runs, and whether who computes is what is declared.

    What the choice says is not enough: the implementation must come from the module that the table names, and a
    spectrogram must be an array of the library that it stands for. Who computed it shows in its last bits, which tell
    the kernels from numpy; they must be those of the backend that `allin1_core.computation` declares.
    """
    _, choice = backends.choose(stage, backend, precision=precision)
    declared = computation(stage, backend, choice.device, precision).by
    found, wanted = (
        [choice.backend, f"computed by {choice.computed_by}"],
        [backend, f"computed by {declared}"],
    )
    if stage == "spectrogram":
        chosen, library, computed_by = _spectrogram_that_runs(backend, precision)
        found += [chosen, f"arrays of {library}", f"computed by {computed_by}"]
        wanted += [backend, f"arrays of {_LIBRARIES.get(backend, backend)}", f"computed by {declared}"]
    elif stage == "decoder":
        found.append(our_decoder(backend).choice.backend)
        wanted.append(backend)
    expected = _OWN_MODULES.get((stage, backend))
    if expected is not None:
        found.append(backends.get(stage, backend).target.partition(":")[0])
        wanted.append(expected)
    measured = ", ".join(dict.fromkeys(found))
    asked = ", ".join(dict.fromkeys(wanted))
    return Verdict(
        f"{stage}/{backend}/{precision}", "what runs when asked for by name", measured, asked, found == wanted
    )


def _spectrogram_that_runs(backend: str, precision: str) -> tuple[str, str, str]:
    """The backend that was selected, the library of its arrays, and whose last bits they have, if not its own."""
    from allin1_core.spectrogram import fused_backend, numpy_backend, select

    run = select(backend, precision=precision)
    noise = np.random.default_rng(0).integers(-20000, 20000, (1, SAMPLE_RATE), dtype=np.int16)
    native = run(noise, SAMPLE_RATE, return_native=True)
    host = np.asarray(native.cpu() if hasattr(native, "cpu") else native)
    computed_by = run.choice.backend
    for name, module in (("fused", fused_backend), ("numpy", numpy_backend)):
        if np.array_equal(host, module.log_spectrogram(noise, SAMPLE_RATE, precision=precision)):
            computed_by = name
    return run.choice.backend, type(native).__module__.partition(".")[0], computed_by


# The library whose arrays a spectrogram backend returns, where that is not its name.
_LIBRARIES = {"fused": "numpy"}

# Where each implementation has its home: a table row that points elsewhere runs something else under its name.
_OWN_MODULES = {
    ("spectrogram", "fused"): "allin1_core.spectrogram.fused_backend",
    ("spectrogram", "numpy"): "allin1_core.spectrogram.numpy_backend",
    ("spectrogram", "torch"): "allin1_core.spectrogram.torch_backend",
    ("spectrogram", "mlx"): "allin1_core.spectrogram.mlx_backend",
    ("network", "torch"): "allin1_core.network.torch_model",
    ("network", "fused"): "allin1_core.network.fused",
    ("network", "mlx"): "allin1_core.network.mlx_model",
    ("decoder", "cython"): "allin1_core.dbn._viterbi",
    ("decoder", "numpy"): "allin1_core.dbn.viterbi_numpy",
}


def check_memory(row: str, mebibytes: float, at_most: float) -> Verdict:
    """Whether the peak memory of a call stays below so many MiB above its libraries and inputs."""
    measured, asked = f"{mebibytes:.0f} MiB", f"at most {at_most:.0f} MiB"
    return Verdict(row, "peak memory", measured, asked, mebibytes <= at_most)


def check_import(at_most: float, forbidden: Sequence[str]) -> list[Verdict]:
    """How long it takes a fresh interpreter to import `analyze`, in CPU seconds, and what must not come along."""
    script = (
        "import time; start = time.process_time(); import allin1_core; allin1_core.analyze; "
        "took = time.process_time() - start; "
        "import sys; print(took, *sorted(name for name in sys.modules if '.' not in name))"
    )
    seconds, modules = [], set()
    for _ in range(5):
        output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
        took, *names = output.stdout.split()
        seconds.append(float(took))
        modules |= set(names)
    loaded = sorted(modules & set(forbidden))
    fastest = min(seconds)  # anything slower is the machine's doing, not the package's
    return [
        Verdict(
            "import allin1_core", "time", f"{fastest:.3f} s", f"at most {at_most:g} s", fastest <= at_most
        ),
        Verdict(
            "import allin1_core",
            "does not import",
            ", ".join(loaded) or "none of them",
            ", ".join(forbidden),
            not loaded,
        ),
    ]


def check_f_measures(
    measured: Mapping[str, Mapping[str, float]], asked: Mapping[str, Mapping[str, float]]
) -> list[Verdict]:
    """Whether beats and downbeats match the scores as well as they have to; tracks as keys."""
    verdicts = []
    for track, bars in asked.items():
        for name, bar in bars.items():
            value = measured.get(track, {}).get(name)
            text = "not measured" if value is None else f"{value:.3f}"
            passed = value is not None and value >= bar
            verdicts.append(
                Verdict(f"pipeline/{track}", f"F-measure of {name}", text, f"at least {bar:g}", passed)
            )
    return verdicts
