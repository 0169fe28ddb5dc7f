"""Times of separation on a device: `rows` for the report, ``python -m bench.device.separation`` for the terminal.

The network has the shape of the published ``htdemucs`` and seeded random weights, on which the time does not depend.
The mix is made of the stems of the benchmarks' track. `rows` runs demucs-infer's ``apply_model`` and this package's
`OverlapAdd` in alternation, each on samples that are on the host and with outputs that stay on the device.
"""

from __future__ import annotations

import functools
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from allin1_core.separation.overlap_add import OverlapAdd
from parity.inputs.separation import PUBLISHED, htdemucs, stereo_mix
from parity.material import default_track
from parity.oracles import demucs_apply

SEED, OVERLAP = 0, 0.25


def rows(
    *, device: str = "cuda", seconds: float | None = None, rounds: int = 3, shape: dict[str, Any] = PUBLISHED
) -> list[dict[str, object]]:
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

    Returns
    -------
    list of dict
        ``name``; ``seconds``, the median; ``ratio``, how many times as fast as ``apply_model``, for ``exact`` in
        float32, for ``fast`` with torch's defaults; ``difference``, the largest from ``apply_model`` in float32, of
        full scale; ``snr_db``, the lowest of the four stems against the same; ``memory_gb``, the peak on the device.
    """
    track = default_track() if seconds is None else default_track().lasting(seconds)
    samples = stereo_mix(track.stems)
    model = htdemucs(samples[:, len(samples[0]) // 4 :], **shape)
    ours = {
        precision: OverlapAdd(model, device=device, precision=precision) for precision in ("exact", "fast")
    }
    mix = torch.from_numpy(samples)
    theirs = functools.partial(demucs_apply.separate, model, mix, seed=SEED, overlap=OVERLAP, device=device)
    cases: dict[str, Callable[[], Tensor]] = {
        "demucs-infer, float32": functools.partial(theirs, tf32=False),
        "demucs-infer, TF32 as torch has it by default": functools.partial(theirs, tf32=None),
        **{
            f"allin1-core, {precision}": functools.partial(run, mix, seed=SEED, overlap=OVERLAP)
            for precision, run in ours.items()
        },
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    found: dict[str, dict[str, object]] = {}
    exact: Tensor | None = None
    for round_number in range(rounds + 1):
        for name, call in cases.items():
            if round_number == 0 and device.startswith("cuda"):
                torch.cuda.reset_peak_memory_stats()
            start = time.perf_counter()
            output = call()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if round_number:
                times[name].append(time.perf_counter() - start)
                continue
            exact = output if exact is None else exact
            found[name] = {
                "difference": float((output - exact).abs().max()),
                "snr_db": float(snr(output, exact).min()),
                "memory_gb": torch.cuda.max_memory_allocated() / 1e9 if device.startswith("cuda") else None,
            }
            del output
    medians = {name: statistics.median(values) for name, values in times.items()}
    first, default = list(medians)[:2]
    return [
        {
            "name": name,
            "seconds": median,
            "ratio": medians[default if "fast" in name else first] / median,
            **found[name],
        }
        for name, median in medians.items()
    ]


def snr(output: Tensor, reference: Tensor) -> Tensor:
    """Signal-to-noise ratio of each stem in decibels, ``(num_sources,)``."""
    signal, noise = reference.square().sum((1, 2)), (output - reference).square().sum((1, 2))
    return 10 * torch.log10(signal / noise)


if __name__ == "__main__":
    for row in rows(device=sys.argv[1] if sys.argv[1:] else "cuda"):
        print(
            "  ".join(
                f"{key} {value:.5g}" if isinstance(value, float) else str(value) for key, value in row.items()
            )
        )
