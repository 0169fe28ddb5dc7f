"""Self-test of an installation: every stage on five seconds of input, compared with stored values.

Inputs come from integer arithmetic, so that they are the same on every machine and with every version of numpy. The
expected outputs lie in ``data/self_test.npz``, as one machine computed them; the last bits of a spectrogram depend on
the processor. The test suite holds them to the oracles, and each backend that is installed is held to them, within
bounds.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from importlib import resources

import numpy as np

from allin1_core import backends
from allin1_core.backends.devices import devices_here
from allin1_core.dbn.metrical import BEATS_PER_BAR, FRAMES_PER_SECOND, decoder_input
from allin1_core.network.configuration import Configuration, Thresholds

_SECONDS = 5
_SAMPLE_RATE = 44100
# Enough blocks for every kind of layer and three dilations, few enough for half a second.
_CONFIGURATION = Configuration(num_blocks=3)

SPECTROGRAM_BOUND = 1e-6
# Tighter than the published network is held to: three blocks round less than eleven.
NETWORK_BOUND = 1e-5


@dataclasses.dataclass(frozen=True)
class Check:
    """What one backend gave.

    Attributes
    ----------
    stage, backend, device : str
    difference : float or None
        Largest absolute difference from the stored values; None if nothing came out.
    bound : float
        What it is held to; 0 for identical.
    seconds : float
    error : str or None
        Why nothing came out.
    computed_by : str or None
        The backend whose code did the arithmetic, as in `Choice`; None if the backend could not be chosen.
    """

    stage: str
    backend: str
    device: str
    difference: float | None
    bound: float
    seconds: float
    error: str | None = None
    computed_by: str | None = None

    @property
    def passed(self) -> bool:
        """Whether the difference is within the bound."""
        return self.difference is not None and self.difference <= self.bound


def stems() -> np.ndarray:
    """Four chirps with clicks of different rate, ``int16 (4, 220500)``."""
    n = np.arange(_SECONDS * _SAMPLE_RATE, dtype=np.int64)
    voices = []
    for index, (rate, period) in enumerate([(3, 22050), (7, 11025), (13, 44100), (29, 16537)]):
        chirp = ((n * n * rate) >> 12) % 32768 - 16384
        clicks = np.where(n % period < 64, 12000, 0)
        voices.append((chirp >> (index + 1)) + clicks)
    return np.stack(voices).astype(np.int16)


def probabilities() -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of beats at 120 BPM and of a downbeat on every third, ``float32 (500,)`` each."""
    n = np.arange(_SECONDS * FRAMES_PER_SECOND, dtype=np.int64)
    noise = ((n * 2654435761) % 4294967296 >> 16).astype(np.float32) / np.float32(65536 * 20)
    beat = np.where(n % 50 == 7, np.float32(0.8), noise)
    downbeat = np.where(n % 150 == 57, np.float32(0.7), noise / 2)
    return beat.astype(np.float32), downbeat.astype(np.float32)


def parameters() -> dict[str, np.ndarray]:
    """Parameters of a small network, between -1 and 1 and scaled by their fan-in."""
    made = {}
    offset = 1
    for name, shape in _CONFIGURATION.parameter_shapes().items():
        size = int(np.prod(shape))
        # The upper half of a multiplicative hash; its lower bits are too regular.
        integers = ((np.arange(offset, offset + size, dtype=np.uint64) * 2654435761) % 4294967296) >> 8
        values = integers.astype(np.float32) / np.float32(1 << 23) - 1
        fan_in = max(1, size // shape[0]) if len(shape) > 1 else 4
        values *= np.float32(2.5) / np.sqrt(np.float32(fan_in))
        if len(shape) == 1 and name.endswith("weight"):
            values += 1  # of a normalisation
        made[name] = values.reshape(shape).astype(np.float32)
        offset += size
    return made


def stored_values() -> dict[str, np.ndarray]:
    """What should come out: one array for each stage of the test."""
    with (
        resources.files("allin1_core").joinpath("data/self_test.npz").open("rb") as file,
        np.load(file) as arrays,
    ):
        return {name: arrays[name] for name in arrays.files}


def spectrogram(backend: str, device: str | None = None) -> np.ndarray:
    """Log spectrogram of `stems`, every 25th frame: ``float32 (4, 20, 81)``."""
    from allin1_core.spectrogram import select

    return np.asarray(select(backend, device=device)(stems()))[:, ::25]


def beats(backend: str, device: str | None = None) -> np.ndarray:
    """Beats decoded from `probabilities`, ``float64 (num_beats, 2)``."""
    from allin1_core.dbn import DBNDownBeatTrackingProcessor

    decode = DBNDownBeatTrackingProcessor(
        beats_per_bar=list(BEATS_PER_BAR), fps=FRAMES_PER_SECOND, backend=backend
    )
    return decode(decoder_input(*probabilities()))


def network(backend: str, device: str | None = None) -> np.ndarray:
    """Probabilities of a small network for the stored spectrogram, ``float32 (13, 20)``."""
    from allin1_core.network.model import build_model
    from allin1_core.network.weights import Checkpoint

    checkpoint = Checkpoint("self-test", _CONFIGURATION, Thresholds(0.2, 0.2), parameters())
    output = build_model([checkpoint], backend=backend, device=device)(
        stored_values()["spectrogram"]
    ).to_numpy()
    return np.concatenate([np.stack([output.beat, output.downbeat, output.segment]), output.label])


_TESTS: dict[str, tuple[Callable[[str, str | None], np.ndarray], float]] = {
    "spectrogram": (spectrogram, SPECTROGRAM_BOUND),
    "network": (network, NETWORK_BOUND),
    "decoder": (beats, 0.0),
}


def run_self_test() -> Iterator[Check]:
    """Every installed backend of the spectrogram, the network and the decoder that has a device here."""
    expected = stored_values()
    for stage, (compute, bound) in _TESTS.items():
        for name, backend in backends.backends(stage).items():
            if not (backend.installed and backend.automatic and devices_here(backend)):
                continue
            start = time.perf_counter()
            difference, error, device, computed_by = None, None, backend.devices[0], None
            try:
                choice = backends.choose(stage, name)[1]
                device, computed_by = choice.device, choice.computed_by
                found = compute(name, device)
                difference = _difference(found, expected[stage])
            # A broken installation may raise anything; the doctor's task is to say what.
            except Exception as failure:
                error = f"{type(failure).__name__}: {failure}"
            seconds = time.perf_counter() - start
            yield Check(stage, name, device, difference, bound, seconds, error, computed_by)


def _difference(found: np.ndarray, expected: np.ndarray) -> float:
    if found.shape != expected.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(np.asarray(found, dtype=np.float64) - expected).max())
