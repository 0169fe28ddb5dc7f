"""Sonification of a result: clicks on beats and downbeats, a falling tone where a section starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np

from allin1_core.audio.types import check_sample_rate
from allin1_core.audio.writing import write_wav
from allin1_core.errors import AudioError
from allin1_core.files.writing import expand_user, make_folder
from allin1_core.results.result import AnalysisResult
from allin1_core.results.validation import check_of_several, check_outputs, with_mix
from allin1_core.separation.inputs import Input, PathLike, is_one_input

SOUND_SUFFIX = ".sonif.wav"

_BEAT_HZ, _DOWNBEAT_HZ = 1500.0, 3000.0
_CLICK_SECONDS = 0.1
_SECTION_HZ = (4000.0, 40.0)
_SECTION_SECONDS = 0.5
_CLICK_LEVEL = 0.5


def click_track(result: AnalysisResult, num_samples: int, sample_rate: int) -> np.ndarray:
    """Clicks on the beats (higher on downbeats) and falling tones at section starts.

    Parameters
    ----------
    result : AnalysisResult
        That is valid; see `allin1_core.results.validation`.
    num_samples, sample_rate : int

    Returns
    -------
    float32 (num_samples,)
        Peak of a click 0.5.

    Raises
    ------
    AudioError
        If the sample rate is none that audio has.
    """
    check_sample_rate(sample_rate, AudioError)
    clicks = np.zeros(num_samples, np.float32)
    for time, position in zip(result.beats, result.beat_positions, strict=True):
        _add(clicks, time, _click(_DOWNBEAT_HZ if position == 1 else _BEAT_HZ, sample_rate), sample_rate)
    for segment in result.segments[1:]:
        _add(clicks, segment.start, _falling_tone(sample_rate), sample_rate)
    return clicks


def _add(track: np.ndarray, time: float, sound: np.ndarray, sample_rate: int) -> None:
    start = round(time * sample_rate)
    room = len(track) - start
    if room > 0:
        track[start : start + len(sound)] += sound[:room]


def _click(frequency: float, sample_rate: int) -> np.ndarray:
    time = np.arange(int(_CLICK_SECONDS * sample_rate)) / sample_rate
    decay = np.exp(-time / (_CLICK_SECONDS / 7))
    return (_CLICK_LEVEL * decay * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def _falling_tone(sample_rate: int) -> np.ndarray:
    frequency = np.geomspace(*_SECTION_HZ, int(_SECTION_SECONDS * sample_rate))
    decay = np.geomspace(1, 1 / 16, len(frequency))
    return (_CLICK_LEVEL * decay * np.sin(2 * np.pi * np.cumsum(frequency) / sample_rate)).astype(np.float32)


@overload
def sonify(
    results: AnalysisResult,
    out_dir: PathLike | None = ...,
    *,
    name: str | None = ...,
    stems_dir: PathLike | None = ...,
    audio: Input | None = ...,
) -> tuple[np.ndarray, int]: ...
@overload
def sonify(
    results: Sequence[AnalysisResult], out_dir: PathLike | None = ..., *, stems_dir: PathLike | None = ...
) -> list[tuple[np.ndarray, int]]: ...
def sonify(
    results: AnalysisResult | Sequence[AnalysisResult],
    out_dir: PathLike | None = None,
    *,
    name: str | None = None,
    stems_dir: PathLike | None = None,
    audio: Input | None = None,
) -> tuple[np.ndarray, int] | list[tuple[np.ndarray, int]]:
    """A track with clicks mixed in.

    Parameters
    ----------
    results, name, stems_dir, audio
        As in `allin1_core.visualize`.
    out_dir : path-like, optional
        Folder for ``NAME.sonif.wav`` (16 bit).

    Returns
    -------
    float32 (num_samples, num_channels), int, or list of them
        Samples in [-1, 1] and their rate.

    Raises
    ------
    ResultError
        If a result is not valid; see `allin1_core.results.validation`. If the audio at its path is not that which was
        analysed.
    AudioError, StemsError
        If the track cannot be read.
    OptionError
        If the file would be written over the track.
    OutputError
        If the file cannot be written.
    """
    if not (isinstance(results, AnalysisResult) or is_one_input(results)):
        check_of_several(name=name, audio=audio)
        return [sonify(result, out_dir, stems_dir=stems_dir) for result in results]
    result, mix = with_mix(results, stems_dir, audio)
    clicks = click_track(result, len(mix.samples), mix.sample_rate)
    # Room for the clicks, so that the sum rarely clips.
    mixed = np.clip(0.7 * mix.samples + 0.6 * clicks[:, np.newaxis], -1, 1).astype(np.float32)
    if out_dir is not None:
        path = make_folder(expand_user(out_dir)) / f"{name or result.path.stem}{SOUND_SUFFIX}"
        check_outputs(result, [path], audio)
        write_wav(path, mixed, mix.sample_rate, "PCM_16")
    return mixed, mix.sample_rate
