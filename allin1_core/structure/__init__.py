"""Functional structure: sections from probabilities, by local maxima, peaks among them, and labels between peaks.

Only the local maxima touch every frame with a wide window, so only they have backends (numpy, torch, MLX) and run
where the network's output lies; what follows looks at the few frames that are left.
"""

from allin1_core.structure.sections import (
    LABELS,
    LOCAL_MAXIMA_WINDOW,
    Segment,
    pick_boundaries,
    section_confidences,
    sections,
)

__all__ = [
    "LABELS",
    "LOCAL_MAXIMA_WINDOW",
    "Segment",
    "pick_boundaries",
    "section_confidences",
    "sections",
]
