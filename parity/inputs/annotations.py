"""Annotated beats of pop songs (the Harmonix Set), and what kind of song each is."""

from __future__ import annotations

import dataclasses
import functools
import gzip
from pathlib import Path

import numpy as np

# A song is steady if nine in ten of its beat intervals lie within this fraction of their median: 4 % is a beat
# placed 20 ms away from where a metronome at 120 BPM would put it.
STEADY_SPREAD = 0.04


@dataclasses.dataclass(frozen=True, eq=False)
class AnnotatedSong:
    """Beats of a song.

    Attributes
    ----------
    name : str
    duration : float
        Seconds.
    times : float64 (num_beats,)
        Seconds, ascending.
    positions : int64 (num_beats,)
        Position in the bar, from 1.
    """

    name: str
    duration: float
    times: np.ndarray
    positions: np.ndarray

    @property
    def downbeats(self) -> np.ndarray:
        """Times of the first beats of the bars, in seconds."""
        return self.times[self.positions == 1]

    @property
    def interval_spread(self) -> float:
        """Range of the middle nine tenths of the beat intervals, relative to their median."""
        low, median, high = np.percentile(np.diff(self.times), [5, 50, 95])
        return float((high - low) / median)

    @property
    def tempo_kind(self) -> str:
        """``steady`` or ``changing``."""
        return "steady" if self.interval_spread <= STEADY_SPREAD else "changing"

    @property
    def meter(self) -> int:
        """Beats in most of the bars."""
        bar_lengths = np.diff(np.nonzero(self.positions == 1)[0])
        return int(np.bincount(bar_lengths).argmax()) if len(bar_lengths) else int(self.positions.max())


@functools.cache
def read_annotations(shared: Path) -> dict[str, AnnotatedSong]:
    """All annotated songs by name, in the order of the file ``annotations/harmonix_even.tsv.gz``."""
    rows: dict[str, list[tuple[float, float, int]]] = {}
    with gzip.open(shared / "annotations" / "harmonix_even.tsv.gz", "rt", encoding="utf-8") as file:
        next(file)
        for line in file:
            name, duration, time, position = line.rstrip("\n").split("\t")
            rows.setdefault(name, []).append((float(duration), float(time), int(position)))
    songs = {}
    for name, beats in rows.items():
        table = np.array(beats)
        songs[name] = AnnotatedSong(name, float(table[0, 0]), table[:, 1], table[:, 2].astype(np.int64))
    return songs


def representative_songs(shared: Path, count: int) -> list[str]:
    """Names of `count` songs spread evenly over kinds of tempo, meters and lengths."""
    songs = sorted(
        read_annotations(shared).values(),
        key=lambda song: (song.meter, song.tempo_kind, song.duration, song.name),
    )
    chosen = np.unique(np.linspace(0, len(songs) - 1, count).round().astype(int))
    return [songs[index].name for index in chosen]
