"""Activations to decode: made from annotated beats, as a network's would be, or synthetic. Seeds are fixed."""

from __future__ import annotations

import functools
import zlib

import numpy as np

from allin1_core.dbn.metrical import decoder_input
from parity.inputs.annotations import AnnotatedSong

FPS = 100


def seed_of(name: str) -> int:
    """A seed that belongs to a name."""
    return zlib.crc32(name.encode())


def from_beats(
    times: np.ndarray, positions: np.ndarray, duration: float, seed: int, fps: int = FPS
) -> np.ndarray:
    """Activations such as a network would give for these beats, with a network's faults.

    Each song draws how good its "network" is: beats are missed (up to 15 %) and invented (up to 10 %), move by a
    frame or two, downbeats are taken for beats and the other way round, bumps are 0.5 to 3 frames wide and 0.25 to
    1 high, and noise lies over all.

    Parameters
    ----------
    times, positions : (num_beats,)
        Seconds; position in the bar from 1.
    duration : float
        Seconds.
    seed : int
    fps : int
        Frames per second.

    Returns
    -------
    float32 (num_frames, 2)
        Prepared as the pipeline does.
    """
    random = np.random.default_rng(seed)
    num_frames = int(np.ceil(duration * fps))
    missing, extra, confusion = random.uniform(0, [0.15, 0.10, 0.15])
    noise, jitter = random.uniform([0.002, 0.0], [0.06, 1.5])

    kept = random.random(len(times)) >= missing
    is_downbeat = (positions == 1) ^ (random.random(len(times)) < confusion)
    between = (times[:-1] + times[1:])[random.random(len(times) - 1) < extra] / 2
    centres = np.concatenate([times[kept], between]) * fps
    centres = centres + random.normal(0, jitter, len(centres))
    downbeats = np.concatenate([is_downbeat[kept], random.random(len(between)) < 0.2])
    heights = random.uniform(0.25, 1.0, len(centres))
    widths = random.uniform(0.5, 3.0, len(centres))

    beat, downbeat = np.zeros(num_frames), np.zeros(num_frames)
    for centre, height, width, is_first in zip(centres, heights, widths, downbeats, strict=True):
        first = max(int(centre - 4 * width), 0)
        frames = np.arange(first, min(int(centre + 4 * width) + 1, num_frames))
        bump = height * np.exp(-0.5 * ((frames - centre) / width) ** 2)
        beat[frames] = np.maximum(beat[frames], bump)
        share = random.uniform(0.6, 1.0) if is_first else random.uniform(0.0, 0.2)
        downbeat[frames] = np.maximum(downbeat[frames], share * bump)
    beat = np.clip(beat + np.abs(random.normal(0, noise, num_frames)), 1e-6, 1)
    downbeat = np.clip(downbeat + np.abs(random.normal(0, noise / 3, num_frames)), 1e-6, beat)
    return decoder_input(beat.astype(np.float32), downbeat.astype(np.float32))


def from_song(song: AnnotatedSong) -> np.ndarray:
    """`from_beats` of an annotated song, seeded by its name."""
    duration = max(song.duration, float(song.times[-1]) + 0.5)
    return from_beats(song.times, song.positions, duration, seed_of(song.name))


@functools.cache
def steady(seconds: float) -> np.ndarray:
    """`from_beats` of a song in 4/4 at 104 BPM, for what times the decoder; read-only, and the same in every run."""
    times = np.arange(0.3, seconds - 0.5, 60 / 104)
    array = from_beats(times, np.arange(len(times)) % 4 + 1, seconds, seed=3)
    array.setflags(write=False)
    return array


def drifting(seconds: float, seed: int) -> np.ndarray:
    """`from_beats` of a song in 4/4 whose tempo moves from 110 BPM to 125, to 95 and back in the course of minutes."""
    beats = np.arange(int(seconds * 125 / 60))
    times = 0.2 + np.cumsum(60 / (110 + 15 * np.sin(beats / 80)))
    times = times[times < seconds - 0.5]
    return from_beats(times, np.arange(len(times)) % 4 + 1, seconds, seed)


def regular(num_frames: int, interval: int, beats_per_bar: int, dtype: type = np.float64) -> np.ndarray:
    """A metronome: 0.9 on every beat, 0.01 elsewhere."""
    activations: np.ndarray = np.full((num_frames, 2), 0.01, dtype=dtype)
    frames = np.arange(interval // 2, num_frames, interval)
    downbeat = np.arange(len(frames)) % beats_per_bar == 0
    activations[frames[~downbeat], 0] = 0.9
    activations[frames[downbeat], 1] = 0.9
    return activations
