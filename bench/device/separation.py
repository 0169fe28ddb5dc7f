"""Separation on a device: `rows` for the report of ``make device``, ``python -m bench.device.separation`` alone.

The network has the shape of the published ``htdemucs`` and seeded random weights, on which the time does not depend.
Mixes are made of the stems of tracks. demucs-infer's ``apply_model`` and this package's `OverlapAdd` take turns, each
on samples that are on the host and with outputs that stay on the device.

What ``fast`` does to beats and sections cannot be asked of stems that random weights make. So its error, ``fast`` minus
``exact``, is added to the real stems of a track, as loud beside each as it is beside the separated one.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from allin1_core import AnalysisResult, Analyzer, Stems, backends
from allin1_core.audio.types import STEM_NAMES
from allin1_core.separation.overlap_add import OverlapAdd
from bench.device.timing import times_by_turns
from parity.agreement import compare
from parity.inputs.separation import PUBLISHED, htdemucs, signal_to_noise, stereo_mix
from parity.material import default_track, read_stems, shared_folder
from parity.oracles import demucs_apply
from parity.oracles.pipeline import ONE_FRAME, passed
from parity.oracles.structure import compare_sections

SEED, OVERLAP = 0, 0.25
_FLOAT32 = "demucs-infer, float32"
_DEFAULTS = "demucs-infer, with torch's defaults (convolutions in TF32)"


def rows(
    *, device: str = "cuda", seconds: float | None = None, rounds: int = 3, shape: dict[str, Any] = PUBLISHED
) -> Iterator[dict[str, object]]:
    """Measure demucs-infer and this package on a device.

    Parameters
    ----------
    device : str
        ``cuda``, ``cuda:N`` or ``cpu``.
    seconds : float, optional
        Length of the mix; by default that of the track.
    rounds : int
        Calls of each, after one that is not timed.
    shape : dict
        Options of the network.

    Yields
    ------
    dict
        As `bench.device.timing.Times.as_row`, with the ratio to ``apply_model``, for ``exact`` in float32, for ``fast``
        with torch's defaults; ``difference``, the largest from ``apply_model`` in float32, of full scale, and the
        ``bound`` that is declared; ``snr_db``, the lowest of the four stems against the same. Then a row for each
        track: ``beats moved`` by a frame of 0.01 s, and whether it ``agrees``: no beat or boundary moves further,
        positions and labels are the same.
    """
    track = default_track().lasting(seconds)
    samples = stereo_mix(track.stems)
    model = htdemucs(samples[:, len(samples[0]) // 4 :], **shape)
    ours = {
        precision: OverlapAdd(model, device=device, precision=precision) for precision in ("exact", "fast")
    }
    mix = torch.from_numpy(samples)
    theirs = functools.partial(demucs_apply.separate, model, mix, seed=SEED, overlap=OVERLAP, device=device)
    cases: dict[str, Callable[[], Tensor]] = {
        _FLOAT32: functools.partial(theirs, tf32=False),
        _DEFAULTS: functools.partial(theirs, tf32=None),
        **{
            f"allin1-core, {precision}": functools.partial(run, mix, seed=SEED, overlap=OVERLAP)
            for precision, run in ours.items()
        },
    }
    times = times_by_turns(cases, device, rounds, warmup=0)
    exact = times[_FLOAT32].output
    bound = backends.get("separation", "demucs-infer").bounds["exact"].anything
    for name, taken in times.items():
        yield {
            **taken.as_row(name, times[_DEFAULTS if "fast" in name else _FLOAT32]),
            "difference": float((taken.output - exact).abs().max()),
            "snr_db": least_snr(taken.output, exact),
            **({"bound": bound} if name == "allin1-core, exact" else {}),
        }
    yield from _agreement(ours["exact"], ours["fast"], device, seconds)


def least_snr(output: Tensor, reference: Tensor) -> float | None:
    """The lowest signal-to-noise ratio of the stems in decibels; None where no sample differs."""
    lowest = float(signal_to_noise(output.cpu().numpy(), reference.cpu().numpy()).min())
    return None if lowest == math.inf else lowest


def _agreement(
    exact: OverlapAdd, fast: OverlapAdd, device: str, seconds: float | None
) -> Iterator[dict[str, object]]:
    """A row for each shared track, or for an excerpt of the default one; none without the shared material."""
    shared = shared_folder()
    if shared is None:
        return
    analyze = Analyzer(device=device, weights_dir=shared / "weights")
    tracks = sorted(path.name for path in (shared / "audio").iterdir()) if seconds is None else []
    material = {name: read_stems(name) for name in tracks}
    if seconds is not None:
        material = {default_track().name: default_track().lasting(seconds).stems}
    for name, stems in material.items():
        mix = torch.from_numpy(stereo_mix(stems))
        whole, rounded = (run(mix, seed=SEED, overlap=OVERLAP) for run in (exact, fast))
        order = [exact.networks[0].sources.index(stem) for stem in STEM_NAMES]
        error, separated = ((output.mean(1)[order]).cpu().numpy() for output in (rounded - whole, whole))
        loudness = np.sqrt(np.square(stems / 32768).mean(1) / np.square(separated).mean(1))
        noisy = np.rint(stems + 32768 * loudness[:, np.newaxis] * error)
        one, other = (
            analyze(Stems(samples)) for samples in (stems, np.clip(noisy, -32768, 32767).astype(np.int16))
        )
        moved, agrees = _moved(one, other)
        yield {
            "name": f"{name}, with the error of fast on its stems",
            "snr_db": least_snr(rounded, whole),
            "beats moved": f"{moved} of {len(one.beats)}",
            "agrees": agrees,
        }


def _moved(one: AnalysisResult, other: AnalysisResult) -> tuple[int, bool]:
    """How many beats differ in their time, and whether times do so by a frame at most, positions and labels not."""
    beats = compare(np.array(other.beats), np.array(one.beats), allowed=ONE_FRAME)
    positions = compare(np.array(other.beat_positions), np.array(one.beat_positions))
    expected = [(segment.start, segment.end, segment.label) for segment in one.segments]
    sections = compare_sections(other.segments, expected, allowed=ONE_FRAME)
    return beats.different, passed({"beats": beats, "positions": positions, **sections})


if __name__ == "__main__":
    for row in rows(device=sys.argv[1] if sys.argv[1:] else "cuda"):
        words = (
            f"{key} {value:.5g}" if isinstance(value, float) else str(value) for key, value in row.items()
        )
        print("  ".join(words))
