"""Times of a list of songs on a device, beside what the device alone takes: `rows` for the report.

In a list the next songs are read, and the last ones decoded and written, while the device computes. Its own rate is
that of log spectrogram and network from samples that are in memory, one song after another.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile

from allin1_core import Analyzer
from allin1_core.audio.types import Stems
from allin1_core.batch import run_batch
from allin1_core.batch.side_by_side import number_of_jobs
from allin1_core.separation import read_stems_folder
from allin1_core.settings import Outputs
from allin1_core.threads import usable_cores
from allin1_core.timings.schema import StageTiming, read_timings
from bench.device.timing import times_by_turns
from parity.material import default_track, shared_folder, tracks, write_stems

# Of the device's own rate.
_MUST = 0.9
# Excerpts of the shared material are no songs.
_SHORTEST = 60.0
# What the device computes, or copies to it and from it.
_ON_DEVICE = ("spectrogram", "transfer", "nn", "functional_local_maxima")
_ROUNDS = 3
# Songs at the same time in a pass before, for comparison with what is taken by default.
_FEWER = 8


def rows(
    *,
    device: str = "cuda",
    seconds: float | None = None,
    songs: int = 50,
    alone: int = 10,
    more: int = 200,
) -> Iterator[dict[str, object]]:
    """Measure a list of songs from four files of stems to JSON files.

    Parameters
    ----------
    device : str
    seconds : float, optional
        Length of each song; by default that of the shared ones.
    songs : int
        Length of the list, of links to those songs.
    alone : int
        How many of them are analysed one after another, for comparison.
    more : int
        Length of a longer list, in which the first song's reading and the last one's decoding weigh less.

    Yields
    ------
    dict
        ``name``; ``seconds`` a song; of a list also ``share``, the part of the device's own rate, ``busy``, the part of
        the time in which the device works for a song, medians of what it computes, ``cores at work``, and ``agrees``,
        whether each has the beats that it has alone; of the first that runs as by default, ``must_seconds``, the time
        at which the share is 90 %.
    """
    shared = shared_folder()
    weights = None if shared is None else shared / "weights"
    common: dict[str, object] = {"device": device, "cores": usable_cores()}
    analyzer = Analyzer(device=device, weights_dir=weights)
    session = analyzer.session
    with tempfile.TemporaryDirectory() as name:
        paths, stems = _link_songs(Path(name), max(songs, more), seconds)
        expected = [analyzer(path).beats for path in paths[: len(stems)]]  # the first loads, and compiles
        own = statistics.mean(_own_seconds(analyzer, each) for each in stems)
        yield {**common, "name": "the device alone: spectrogram and network", "seconds": own}
        for jobs, number in ((1, alone), (_FEWER, songs), (None, songs), (None, more)):
            session.settings = dataclasses.replace(session.settings, jobs=jobs)
            listed, out = paths[:number], Path(name, f"results-{jobs}-{number}")
            out.mkdir()
            outputs = Outputs(out_dir=out, timings_path=out / "timings.jsonl")
            start, worked = time.perf_counter(), time.process_time()
            results = run_batch(dict.fromkeys(listed), analyzer, outputs, progress=False, keep_arrays=False)
            whole, worked = time.perf_counter() - start, time.process_time() - worked
            taken = whole / len(listed)
            together = number_of_jobs(session, songs)
            how = "one after another" if together == 1 else f"{together} at the same time"
            agrees = [each.beats == expected[index % len(stems)] for index, each in enumerate(results)]
            yield {
                **common,
                "name": f"{len(listed)} songs, {how}",
                "seconds": taken,
                "share": own / taken,
                **_of_stages(read_timings(out / "timings.jsonl")),
                "cores at work": worked / whole,
                "agrees": all(agrees),
                **({"must_seconds": own / _MUST} if jobs is None and number == songs else {}),
            }


def _link_songs(folder: Path, number: int, seconds: float | None) -> tuple[list[Path], list[Stems]]:
    """So many links to folders of stems, by turns to each, and the stems of each."""
    shared, found = shared_folder(), []
    if shared is not None and seconds is None:
        found = [shared / "audio" / name for name in tracks()]
        found = [each for each in found if soundfile.info(each / "bass.flac").duration >= _SHORTEST]
    else:
        track = default_track() if seconds is None else default_track().lasting(seconds)
        found = [write_stems(folder / track.name, track.stems)]
    links = []
    for index, source in zip(range(number), itertools.cycle(found), strict=False):
        links.append(folder / f"song{index:03d}")
        links[-1].symlink_to(source, target_is_directory=True)
    return links, [read_stems_folder(each) for each in found[:number]]


def _own_seconds(analyzer: Analyzer, stems: Stems) -> float:
    """Median time of log spectrogram and network, from samples in memory until the device is idle."""
    session = analyzer.session

    def run() -> Any:
        return session.model(session.log_spectrogram(stems.samples, stems.sample_rate, return_native=True))

    return times_by_turns({"": run}, session.network_choice.device, _ROUNDS, warmup=0)[""].median


def _of_stages(lines: list[StageTiming]) -> dict[str, float]:
    """Part of the time, from the first to the last line, in which stages of the device ran, and medians of two."""
    medians = {
        f"seconds_{stage}": statistics.median(line.duration for line in lines if line.stage == stage)
        for stage in ("spectrogram", "nn")
    }
    spans = sorted((line.start, line.end) for line in lines if line.stage in _ON_DEVICE)
    busy, reached = 0.0, 0.0
    for start, end in spans:
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    whole = max(line.end for line in lines) - min(line.start for line in lines)
    return {"busy": busy / whole, **medians}
