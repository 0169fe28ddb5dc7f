"""How far a backend may be from the oracle: the declared bounds, which the parity suite holds them to.

Differences are those of the output, ``log10(1 + magnitude)``. A ``float32`` between 2 and 4, where loud frames lie,
has steps of 2.4e-7, so the bounds of ``exact`` are a few steps. Those of ``fast`` are the noise of a ``float32``
transform: it grows with the loudest bin of a frame and shows in its quietest, hence most on a full-scale sine.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Bound:
    """Largest absolute difference from the oracle.

    Attributes
    ----------
    music : float
        On recorded or rendered music.
    anything : float
        On any input with samples within full scale, adversarial ones included.
    """

    music: float
    anything: float

    @property
    def bit_identical(self) -> bool:
        """Whether no difference at all is allowed."""
        return self.anything == 0.0


DECLARED: dict[tuple[str, str], Bound] = {
    ("numpy", "exact"): Bound(0.0, 0.0),
    ("numpy", "fast"): Bound(1.5e-6, 1e-5),
    ("fused", "exact"): Bound(5e-7, 5e-7),
    ("fused", "fast"): Bound(1.5e-6, 1e-5),
    ("torch", "exact"): Bound(5e-7, 5e-7),
    ("torch", "fast"): Bound(1.5e-6, 1e-5),
    ("allin1_core.spectrogram.torch_backend:in_torch", "exact"): Bound(5e-7, 5e-7),
    ("mlx", "exact"): Bound(1e-6, 1e-6),
    ("mlx", "fast"): Bound(1.5e-6, 1e-5),
}

# What is asked of every backend, and so of one that is not in the table.
GENERAL = {"exact": Bound(1e-6, 1e-6), "fast": Bound(1.5e-6, 1e-5)}


def declared_bound(backend: str, precision: str) -> Bound:
    """The bound of a backend by name; a foreign one is held to what is asked of all."""
    return DECLARED.get((backend, precision), GENERAL[precision])
