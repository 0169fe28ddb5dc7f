"""Functional structure: sections from probabilities, by local maxima, peaks among them, and labels between peaks.

Only the local maxima touch every frame with a wide window, so only they have backends (numpy, torch, MLX); what follows
looks at the few frames that are left. An analysis finds them on the host, with numpy: a song's take it 0.2 ms, and on a
device they would keep it from the next song for as long.
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
