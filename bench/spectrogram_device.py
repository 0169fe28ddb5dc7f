"""The torch log spectrogram on one device, compared and timed: ``python -m bench.spectrogram_device --device cuda``.

For a machine with a GPU and without madmom: the reference is the numpy backend in ``exact``, which the parity suite
holds to madmom bit for bit. Input is noise in the shape of music (a beat, four loudnesses), so no file is needed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from allin1_core import backends
from allin1_core.spectrogram import select
from bench.measure.paired import paired_times
from parity.agreement import compare
from parity.implementations import Implementation


def beating_noise(seconds: float) -> npt.NDArray[np.int16]:
    """Four stems of noise that decays twice a second, each quieter than the one before."""
    times = np.arange(int(seconds * 44100)) / 44100
    noise = np.random.default_rng(0).uniform(-32767, 32767, (4, times.size))
    noise *= np.exp(-8 * (times % 0.5)) * np.array([[1.0], [0.3], [0.1], [0.03]])
    return noise.astype(np.int16)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print agreement and times per precision; 1 if one is outside its declared bound."""
    parser = argparse.ArgumentParser(prog="python -m bench.spectrogram_device", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=195.0, help="length of the four stems")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    stems = beating_noise(options.seconds)
    reference = select("numpy")
    passed = True
    for precision in backends.PRECISIONS:
        compute = select("torch", device=options.device, precision=precision)

        def native(compute: Any = compute) -> Any:
            return compute(stems, return_native=True)

        times = paired_times(
            native, lambda: reference(stems), rounds=options.rounds, synchronize=_synchronize
        )
        bound = Implementation("torch", precision).bound
        found = times.candidate_output.cpu().numpy()
        agreement = compare(found, times.reference_output, allowed=bound.anything)
        passed = passed and agreement.passed
        print(
            f"torch {compute.choice.library_version}, {options.device}, {precision}: {agreement}, "
            f"{'within' if agreement.passed else 'NOT WITHIN'} {bound.anything:.2g}; "
            f"{1000 * np.median(times.candidate):.1f} ms, {times.ratio} numpy exact"
        )
    return 0 if passed else 1


def _synchronize(output: Any) -> None:
    import torch

    if output.device.type == "cuda":
        torch.cuda.synchronize(output.device)
    elif output.device.type == "mps":
        torch.mps.synchronize()


if __name__ == "__main__":
    sys.exit(main())
