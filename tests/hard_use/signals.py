"""Seeded signals for property tests: what hypothesis draws is small, what is computed from it is not."""

from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

KINDS = ("noise", "tones", "impulses", "square", "clipped", "quiet", "silence")


@dataclasses.dataclass(frozen=True)
class Signal:
    """A recipe: which kind of signal, from which seed, how long, in which type."""

    kind: str
    seed: int
    num_samples: int
    dtype: str

    def stems(self, num_stems: int = 4) -> np.ndarray:
        """Stems ``(num_stems, num_samples)`` that differ from one another; -32768 does not occur."""
        random = np.random.default_rng(self.seed)
        shape = (num_stems, self.num_samples)
        time = np.arange(self.num_samples) / 44100
        if self.kind == "noise":
            values = random.uniform(-0.9, 0.9, shape)
        elif self.kind == "tones":
            frequencies = random.uniform(30, 17000, (num_stems, 5, 1))
            values = 0.18 * np.sin(2 * np.pi * frequencies * time).sum(1)
        elif self.kind == "impulses":
            values = np.where(random.random(shape) < 0.001, random.choice([-1.0, 1.0], shape), 0)
        elif self.kind == "square":
            values = np.sign(np.sin(2 * np.pi * random.uniform(50, 2000, (num_stems, 1)) * time))
        elif self.kind == "clipped":
            values = np.clip(3 * random.standard_normal(shape), -1, 1)
        elif self.kind == "quiet":
            values = random.uniform(-1e-3, 1e-3, shape)
        else:
            values = np.zeros(shape)
        if self.dtype == "int16":
            return np.round(values * 32767).astype(np.int16)
        return values.astype(np.float32)


def signals(most_samples: int = 12_000) -> st.SearchStrategy[Signal]:
    """Signals of up to so many samples."""
    return st.builds(
        Signal,
        kind=st.sampled_from(KINDS),
        seed=st.integers(0, 2**32 - 1),
        num_samples=st.one_of(st.integers(1, 3000), st.integers(1, most_samples)),
        dtype=st.sampled_from(["int16", "float32"]),
    )


def examples(number: int) -> settings:
    """So many examples, the same in every run, however long each takes."""
    return settings(
        max_examples=number,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
