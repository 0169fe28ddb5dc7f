"""Times of a list of songs on a device, beside what the device alone takes: `rows` for the report.

In a list the next songs are read, and the last ones decoded and written, while the device computes. Its own rate is
that of log spectrogram and network from samples that are in memory, as they are read, one song after another.
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
from allin1_core.backends.devices import allocator_for
from allin1_core.batch import run_batch
from allin1_core.batch.side_by_side import number_of_jobs
from allin1_core.separation import read_stems_folder
from allin1_core.settings import Outputs
from allin1_core.timings.schema import StageTiming, read_timings
from bench.device.timing import times_by_turns
from parity.material import default_track, shared_folder, tracks, write_stems

# Of the device's own rate.
_MUST = 0.9
# Excerpts of the shared material are no songs.
_SHORTEST = 60.0
# What the device computes, or copies to it and from it.
_ON_DEVICE = ("spectrogram", "transfer", "nn", "functional_probs")
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
    """Measure lists of songs from four files of stems to JSON files.

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
        whether each has the beats that it has alone; of `songs` that run as by default, ``must_seconds``, the time at
        which the share is 90 %.
    """
    shared = shared_folder()
    weights = None if shared is None else shared / "weights"
    common: dict[str, object] = {"device": device}
    analyzer = Analyzer(device=device, weights_dir=weights)
    session = analyzer.session
    with tempfile.TemporaryDirectory() as name:
        flac = _sources(Path(name), seconds)
        stems = [read_stems_folder(each, allocator_for(device)) for each in flac]
        # Read in a small part of FLAC's time: where their share is the larger one, reading was the limit.
        wav = [write_stems(Path(name, f"wav{i}"), each.samples, "wav") for i, each in enumerate(stems)]
        expected = [analyzer(path).beats for path in flac]  # the first loads, and compiles
        own = statistics.mean(_own_seconds(analyzer, each) for each in stems)
        yield {**common, "name": "the device alone: spectrogram and network", "seconds": own}
        for kind, sources, jobs, number in (
            ("FLAC", flac, 1, alone),
            ("FLAC", flac, _FEWER, songs),
            ("FLAC", flac, None, songs),
            ("FLAC", flac, None, more),
            ("WAV", wav, None, songs),
            ("WAV", wav, None, more),
        ):
            session.settings = dataclasses.replace(session.settings, jobs=jobs)
            out = Path(name, f"{kind}-{jobs}-{number}")
            listed = _links(out, sources, number)
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
                "name": f"{len(listed)} songs, {kind}, {how}",
                "seconds": taken,
                "share": own / taken,
                **_of_stages(read_timings(out / "timings.jsonl")),
                "cores at work": worked / whole,
                "agrees": all(agrees),
                **({"must_seconds": own / _MUST} if (jobs, number) == (None, songs) else {}),
            }


def _sources(folder: Path, seconds: float | None) -> list[Path]:
    """Folders of FLAC stems: the shared songs, or one of so many seconds, made."""
    shared = shared_folder()
    if shared is None or seconds is not None:
        track = default_track().lasting(seconds)
        return [write_stems(folder / track.name, track.stems)]
    found = [shared / "audio" / name for name in tracks()]
    return [each for each in found if soundfile.info(each / "bass.flac").duration >= _SHORTEST]


def _links(folder: Path, sources: list[Path], number: int) -> list[Path]:
    """So many links to those folders by turns, in a folder that is made."""
    folder.mkdir()
    links = [folder / f"song{index:03d}" for index in range(number)]
    for link, source in zip(links, itertools.cycle(sources), strict=False):
        link.symlink_to(source, target_is_directory=True)
    return links


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
