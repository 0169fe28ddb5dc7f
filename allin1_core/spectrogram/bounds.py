"""Declared bounds of the spectrogram backends: the largest difference from the oracle that the parity suite allows.

They hold for samples within full scale: ``int16``, or ``float32`` from -1 to 1. Louder ``float32`` is computed too, but
its output has coarser steps, and no bound is declared for it.

Differences are those of the output, ``log10(1 + magnitude)``. A ``float32`` between 2 and 4, where loud frames lie,
has steps of 2.4e-7, so the bounds of ``exact`` are a few steps. Those of ``fast`` are the noise of a ``float32``
transform: it grows with the loudest bin of a frame and shows in its quietest, hence most on a full-scale sine.

numpy's ``exact`` has the oracle's bits as long as a signal is multiplied with the filterbank in one product, as the
oracle does: up to `numpy_backend.PRODUCT_FRAMES`, 33 minutes. A longer one is cut, and BLAS sums some of its bands in
another order: `longer` bounds what that makes.
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
    longer : float, optional
        On signals of more than 33 minutes, where that differs from the other two.
    """

    music: float
    anything: float
    longer: float | None = None

    @property
    def bit_identical(self) -> bool:
        """Whether no difference at all is allowed, up to 33 minutes."""
        return self.anything == 0.0


DECLARED: dict[tuple[str, str], Bound] = {
    ("numpy", "exact"): Bound(0.0, 0.0, longer=5e-7),
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
