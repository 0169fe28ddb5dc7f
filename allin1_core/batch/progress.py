"""Progress bars: one over the tracks, one over the stages of the present track."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from allin1_core.errors import printable
from allin1_core.threads import Lock

if TYPE_CHECKING:
    from tqdm import tqdm

# The most that come up; of a track with fewer the bar is closed before its end.
_STAGES_OF_A_TRACK = 17


def is_hidden(shown: bool | None) -> bool | None:
    """What tqdm's ``disable`` is told: None hides a bar unless standard error is a terminal; it may be closed."""
    return True if sys.stderr is None else None if shown is None else not shown


class Progress:
    """Bars on standard error.

    Parameters
    ----------
    num_tracks : int
    shown : bool or None
        None shows them on a terminal only.
    side_by_side : bool
        Whether tracks run at the same time; then there is the bar of tracks alone, which counts those that are done.
    """

    def __init__(self, num_tracks: int, shown: bool | None = None, *, side_by_side: bool = False) -> None:
        from tqdm import tqdm

        self._bar = tqdm
        self._disable = is_hidden(shown)
        self._tracks = self._bar(
            total=num_tracks, desc="Tracks", unit="track", disable=True if num_tracks < 2 else self._disable
        )
        self._side_by_side = side_by_side
        self._lock = Lock()
        self._stages: tqdm | None = None
        self._stage = ""

    @contextlib.contextmanager
    def track(self, name: str) -> Iterator[None]:
        """Show the stages of a track while the block runs."""
        if not self._side_by_side:
            self._stages = self._bar(
                total=_STAGES_OF_A_TRACK,
                desc=printable(name),
                unit="stage",
                leave=False,
                disable=self._disable,
            )
        try:
            yield
        finally:
            if self._stages is not None:
                self._stages.close()
                self._stages = None
            with self._lock:
                self._tracks.update()

    def start_stage(self, name: str) -> None:
        """Say which stage runs."""
        if self._stages is not None:
            self._stage = name
            self._stages.set_postfix_str(name)
            self._stages.update()

    def show_part(self, part: float) -> None:
        """Say how much of the present stage is done, from 0 to 1."""
        if self._stages is not None:
            self._stages.set_postfix_str(f"{self._stage} {part:.0%}")

    def close(self) -> None:
        """Take the bars away."""
        self._tracks.close()
