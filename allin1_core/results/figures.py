"""Figures of a result: the overview All-In-One draws, and a page of activations with the beats decoded from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from allin1_core.audio.types import Audio
from allin1_core.dbn.metrical import FRAMES_PER_SECOND
from allin1_core.errors import ResultError, printable
from allin1_core.files.writing import check_names, expand_user, make_folder
from allin1_core.plotting import new_figure, save
from allin1_core.results.result import AnalysisResult
from allin1_core.results.summary import COLOURS
from allin1_core.results.validation import check_of_several, check_outputs, with_mix
from allin1_core.separation.inputs import Input, PathLike, is_one_input
from allin1_core.structure import LABELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Of the overview, and of the activations where the result carries them.
FIGURE_SUFFIXES = (".pdf", ".activations.pdf")
_LOUDNESS_FRAME, _LOUDNESS_HOP = 4096, 1024
_SILENCE_DB = -60.0
_SECONDS_A_ROW = 30.0


def loudness(audio: Audio) -> tuple[np.ndarray, np.ndarray]:
    """Level of a track over time.

    Parameters
    ----------
    audio : Audio
        float32 samples in [-1, 1].

    Returns
    -------
    times, level : float64 (num_frames,)
        Seconds at the middle of a frame of 4,096 samples; root mean square over its samples and all channels, in
        decibels relative to full scale, not below -60.
    """
    power = np.mean(np.square(audio.samples, dtype=np.float64), axis=1)
    total = np.concatenate([[0.0], np.cumsum(power)])
    starts = np.arange(0, max(len(power) - _LOUDNESS_FRAME, 0) + 1, _LOUDNESS_HOP)
    ends = np.minimum(starts + _LOUDNESS_FRAME, len(power))
    mean = np.maximum(total[ends] - total[starts], 0) / (ends - starts)
    level = 10 * np.log10(np.maximum(mean, 10 ** (_SILENCE_DB / 10)))
    return (starts + ends) / 2 / audio.sample_rate, level


@overload
def visualize(
    results: AnalysisResult,
    out_dir: PathLike | None = ...,
    *,
    name: str | None = ...,
    stems_dir: PathLike | None = ...,
    audio: Input | None = ...,
) -> Figure: ...


@overload
def visualize(
    results: Sequence[AnalysisResult], out_dir: PathLike | None = ..., *, stems_dir: PathLike | None = ...
) -> list[Figure]: ...


def visualize(
    results: AnalysisResult | Sequence[AnalysisResult],
    out_dir: PathLike | None = None,
    *,
    name: str | None = None,
    stems_dir: PathLike | None = None,
    audio: Input | None = None,
) -> Figure | list[Figure]:
    """Draw a track's loudness, its labelled sections, and its beats.

    Parameters
    ----------
    results : AnalysisResult or sequence of them
        Their `path` is read again.
    out_dir : path-like, optional
        Folder for ``NAME.pdf``; where the result carries activations, also ``NAME.activations.pdf``.
    name : str, optional
        Of a single result; by default the name of the track's file.
    stems_dir : path-like, optional
        Where the stems are, as in `analyze`; needed if `path` is not there.
    audio : path-like, Audio, Stems or binary file object, optional
        Of a single result; what is read instead of its `path`, as where it was made from samples or a file object.

    Raises
    ------
    ResultError
        If a result is not valid (see `allin1_core.results.validation`), matplotlib is not installed, or `name` or
        `audio` is given with several.
    AudioError, StemsError
        If the track cannot be read.
    OptionError
        If a figure would be written over the track.
    OutputError
        If a file cannot be written.
    """
    if not (isinstance(results, AnalysisResult) or is_one_input(results)):
        check_of_several(name=name, audio=audio)
        return [visualize(result, out_dir, stems_dir=stems_dir) for result in results]
    result, mix = with_mix(results, stems_dir, audio)
    figure = overview(result, mix)
    if out_dir is not None:
        folder = make_folder(expand_user(out_dir))
        shown = [figure] if result.activations is None else [figure, activations(result)]
        paths = [folder / f"{name or result.path.stem}{suffix}" for suffix in FIGURE_SUFFIXES[: len(shown)]]
        check_names(paths)
        check_outputs(result, paths, audio)
        for drawn, path in zip(shown, paths, strict=True):
            save(drawn, path)
    return figure


def overview(result: AnalysisResult, mix: Audio) -> Figure:
    """Loudness above beats above labelled sections, over the time of the track.

    Parameters
    ----------
    result : AnalysisResult
        That is valid; see `allin1_core.results.validation`.
    mix : Audio
        float32 samples.

    Raises
    ------
    ResultError
        If matplotlib is not installed.
    """
    figure = new_figure(12, 3.2)
    axes: Any = figure.subplots(3, 1, sharex=True, height_ratios=[4, 1, 1.4])
    level_axes, beat_axes, section_axes = axes
    tempo = "no tempo" if result.bpm is None else f"{result.bpm} BPM"
    title = f"{printable(result.path.name)}: {tempo}, {len(result.beats)} beats"
    level_axes.set_title(title, parse_math=False)

    times, level = loudness(mix)
    level_axes.plot(times, level, color="black", linewidth=0.8)
    level_axes.set_ylim(_SILENCE_DB, 0)
    level_axes.set_ylabel("Loudness\n(dB full scale)")

    positions = np.array(result.beat_positions, dtype=int)
    beats = np.array(result.beats, dtype=float)
    beat_axes.vlines(beats[positions != 1], 0, 0.5, color="0.55", linewidth=0.5, label="beat")
    beat_axes.vlines(beats[positions == 1], 0, 1, color="black", linewidth=0.8, label="downbeat")
    beat_axes.set_ylim(0, 1)
    beat_axes.set_yticks([])
    beat_axes.set_ylabel("Beats", rotation=0, ha="right", va="center")
    beat_axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")

    end = result.segments[-1].end
    _draw_sections(section_axes, result, end)
    section_axes.set_xlim(0, end)
    section_axes.set_xlabel("Time (min:s)")
    section_axes.xaxis.set_major_formatter(lambda seconds, _: f"{int(seconds // 60)}:{seconds % 60:02.0f}")
    if end >= 20:
        section_axes.set_xticks(np.arange(0, end, _tick_spacing(end)))
    return figure


def _tick_spacing(seconds: float) -> float:
    return next((spacing for spacing in (2, 5, 10, 15, 30, 60, 120, 300) if seconds / spacing <= 16), 600)


def _draw_sections(axes: Axes, result: AnalysisResult, end: float) -> None:
    written: set[str] = set()
    for segment in result.segments:
        axes.axvspan(segment.start, segment.end, color=COLOURS[segment.label], linewidth=0)
        axes.axvline(segment.start, color="black", linewidth=0.8)
        # About 115 bold characters fit across the page, and 80 lines upright; two labels share a colour, so that one
        # without its name could be either.
        share = (segment.end - segment.start) / end
        lies = share > (len(segment.label) + 0.5) / 115
        if lies or share > 1 / 80:
            form: dict[str, Any] = {} if lies else {"rotation": "vertical", "size": 7}
            middle = (segment.start + segment.end) / 2
            axes.text(middle, 0.5, segment.label, ha="center", va="center", weight="bold", **form)
            written.add(segment.label)
    for label in sorted({segment.label for segment in result.segments} - written):
        axes.fill_between([], [], color=COLOURS[label], label=label)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize="small")
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    axes.set_ylabel("Sections", rotation=0, ha="right", va="center")


def activations(result: AnalysisResult) -> Figure:
    """The network's probabilities with what was decoded from them, 30 seconds a row.

    Parameters
    ----------
    result : AnalysisResult
        That is valid, with activations.

    Raises
    ------
    ResultError
        If the result carries no activations, or matplotlib is not installed.
    """
    if result.activations is None:
        raise ResultError(
            f"{result.path.name}: the result carries no activations; analyse with include_activations=True"
        )
    beat, downbeat = result.activations["beat"], result.activations["downbeat"]
    segment, label = result.activations["segment"], result.activations["label"]
    seconds = len(beat) / FRAMES_PER_SECOND
    rows = max(1, int(np.ceil(seconds / _SECONDS_A_ROW)))
    figure = new_figure(14, 1.2 + 3.2 * rows)
    grid = figure.subplots(2 * rows, 1, squeeze=False, height_ratios=[2, 1.3] * rows)[:, 0]
    frames = np.arange(len(beat)) / FRAMES_PER_SECOND
    positions = np.array(result.beat_positions, dtype=int)
    times = np.array(result.beats, dtype=float)
    for row in range(rows):
        start = row * _SECONDS_A_ROW
        curves, functions = grid[2 * row], grid[2 * row + 1]
        shown = slice(int(start * FRAMES_PER_SECOND), int((start + _SECONDS_A_ROW) * FRAMES_PER_SECOND) + 1)
        curves.plot(frames[shown], beat[shown], color="#0072B2", linewidth=0.8, label="P(beat)")
        curves.plot(frames[shown], downbeat[shown], color="#D55E00", linewidth=0.8, label="P(downbeat)")
        curves.plot(frames[shown], segment[shown], color="#009E73", linewidth=1.2, label="P(section)")
        inside = (times >= start) & (times < start + _SECONDS_A_ROW)
        for which, top, color, width, name in (
            (positions != 1, 1.08, "#0072B2", 1, "decoded beat"),
            (positions == 1, 1.16, "#D55E00", 1.6, "decoded downbeat"),
        ):
            curves.vlines(times[inside & which], 1.0, top, color=color, linewidth=width, label=name)
        curves.set_ylim(0, 1.18)
        curves.set_yticks([0, 0.5, 1])
        curves.set_ylabel("Probability")
        for axes in (curves, functions):
            axes.set_xlim(start, start + _SECONDS_A_ROW)
            for section in result.segments:
                if start < section.start < start + _SECONDS_A_ROW:
                    axes.axvline(section.start, color="black", linewidth=1, linestyle="--")
        image = functions.imshow(
            label,
            aspect="auto",
            origin="lower",
            interpolation="nearest",
            extent=(0, seconds, -0.5, len(LABELS) - 0.5),
            cmap="Greys",
            vmin=0,
            vmax=1,
        )
        functions.set_xlim(start, start + _SECONDS_A_ROW)
        functions.set_yticks(range(len(LABELS)), LABELS, fontsize=7)
        curves.tick_params(labelbottom=False)
    grid[-1].set_xlabel("Time (s); dashed: start of a section")
    figure.colorbar(image, ax=list(grid[1::2]), label="P(function)", fraction=0.02, pad=0.01)
    handles, names = grid[0].get_legend_handles_labels()
    title = printable(result.path.name).replace("$", r"\$")
    figure.legend(handles, names, loc="outside upper center", ncols=5, frameon=False, title=title)
    return figure
