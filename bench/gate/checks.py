"""The checks of the gate: each measures one thing and says what was measured, what was asked, and whether that holds.

Those of speed are in `bench.gate.speed`.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from allin1_core import backends
from allin1_core.backends.devices import computation, to_host
from allin1_core.dbn.viterbi import load_kernel
from bench.gate.cases import madmom_decoder, our_decoder
from bench.gate.speed import Verdict
from parity.agreement import compare, largest_difference
from parity.inputs.activations import drifting
from parity.inputs.networks import random_checkpoint, random_spectrogram
from parity.material import SAMPLE_RATE, Track, default_track


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

    What the choice says is not enough. What runs shows itself: a spectrogram or a network by the library of its arrays,
    a decoder by its kernel, compiled or not. Who computed a spectrogram shows in its last bits, which tell the kernels
    from numpy; they must be those of the backend that the table declares.
    """
    row = backends.get(stage, backend)
    choice = backends.choose(stage, backend, precision=precision)[1]
    declared = computation(stage, backend, choice.device, precision).by
    found, wanted = (
        [choice.backend, f"computed by {choice.computed_by}"],
        [backend, f"computed by {declared}"],
    )
    if stage == "spectrogram":
        chosen, library, computed_by = _spectrogram_that_runs(backend, precision)
        found += [chosen, f"arrays of {library}", f"computed by {computed_by}"]
        wanted += [backend, f"arrays of {row.arrays}", f"computed by {declared}"]
    elif stage == "network":
        network = row.load()([random_checkpoint(0)], device=choice.device, precision=precision, num_threads=1)
        found.append(f"arrays of {_library(network.as_native(random_spectrogram(1)))}")
        wanted.append(f"arrays of {row.arrays}")
    elif stage == "decoder":
        decoded_by = row.load()(beats_per_bar=4, fps=100).choice.backend
        is_python = inspect.isfunction(load_kernel(decoded_by))
        found += [decoded_by, "in Python" if is_python else "compiled"]
        wanted += [backend, "in Python" if row.instruction_set is None else "compiled"]
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
    computed_by = run.choice.backend
    for name, module in (("fused", fused_backend), ("numpy", numpy_backend)):
        if np.array_equal(to_host(native), module.log_spectrogram(noise, SAMPLE_RATE, precision=precision)):
            computed_by = name
    return run.choice.backend, _library(native), computed_by


def _library(array: object) -> str:
    return type(array).__module__.partition(".")[0]


def check_memory(row: str, mebibytes: float, at_most: float) -> Verdict:
    """Whether the peak memory of a call stays below so many MiB above its libraries and inputs."""
    measured, asked = f"{mebibytes:.0f} MiB", f"at most {at_most:.0f} MiB"
    return Verdict(row, "peak memory", measured, asked, mebibytes <= at_most)


def check_import(at_most: float, forbidden: Sequence[str]) -> list[Verdict]:
    """How long a fresh interpreter takes to import `analyze`, and what must not come along.

    The time is a ratio: CPU seconds of all that `analyze` imports beyond numpy to those of numpy itself, imported just
    before in the same interpreter; of the importing thread, since a BLAS starts others that wait busily. numpy is the
    largest thing that it stands on; what is imported besides is small, or imported where it is used. Both are imported
    as bytecode that the first interpreter left: where none may be written, an installed numpy has its own, and a
    checkout would be compiled each time.
    """
    script = (
        "import time; start = time.thread_time(); import numpy; middle = time.thread_time(); "
        "import allin1_core; allin1_core.analyze; end = time.thread_time(); "
        "import sys; print(end - middle, middle - start, *(name for name in sys.modules if '.' not in name))"
    )
    ours, numpys, modules = [], [], set()
    with tempfile.TemporaryDirectory() as bytecode:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
        for _ in range(6):
            command = [sys.executable, "-c", script]
            output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            own, reference, *names = output.stdout.split()
            ours.append(float(own))
            numpys.append(float(reference))
            modules |= set(names)
    loaded = sorted(modules & set(forbidden))
    ratio = min(ours) / min(numpys)  # anything slower is the machine's doing
    row = "import allin1_core"
    return [
        Verdict(row, "time beside numpy's", f"{ratio:.2f}x", f"at most {at_most:g}x", ratio <= at_most),
        Verdict(
            row, "does not import", ", ".join(loaded) or "none of them", ", ".join(forbidden), not loaded
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
