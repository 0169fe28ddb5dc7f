"""The decoders against madmom's on activations of every annotated song: ``python -m parity.full.decoder``.

They are beats and bars of whole songs (DBNDownBeatTrackingProcessor), beats online (DBNBeatTrackingProcessor), and bars
on the annotated beats (DBNBarTrackingProcessor). Songs run in parallel, one process for each core. What madmom found is
kept, song by song, and reused as long as the song's activations and the machine are the same, so that a run that was
stopped goes on where it was; ours is decoded anew in every run. The result goes into the report
`parity.reports.accuracy` writes.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import hashlib
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from allin1_core.dbn import (
    DBNBarTrackingProcessor,
    DBNBeatTrackingProcessor,
    DBNDownBeatTrackingProcessor,
    activations_at_beats,
)
from allin1_core.files.writing import written_whole
from allin1_core.threads import usable_cores
from parity.decoder_agreement import (
    DecoderAgreement,
    Paths,
    against_annotations,
    compare_decodings,
    decode_all,
)
from parity.environment import machine_key
from parity.inputs.activations import FPS, from_song
from parity.inputs.annotations import read_annotations
from parity.material import shared_folder
from parity.oracles import madmom_dbn
from parity.reports import accuracy

BEATS_PER_BAR = [3, 4]
COMMAND = "python -m parity.full.decoder"
# madmom keeps the probabilities of all frames of a call: 1 GB of a song.
_FRAMES_ONLINE = 500


class Found(NamedTuple):
    """What one side decoded of a song."""

    beats: np.ndarray
    paths: Paths
    online: np.ndarray
    bars: np.ndarray


@functools.cache
def _decoders() -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Ours and madmom's: of whole songs, online, and of bars on given beats."""
    parameters: dict[str, Any] = {"beats_per_bar": BEATS_PER_BAR, "fps": FPS}
    ours = (
        DBNDownBeatTrackingProcessor(**parameters),
        DBNBeatTrackingProcessor(fps=FPS, online=True),
        DBNBarTrackingProcessor(),
    )
    oracle = (
        madmom_dbn.make_decoder(**parameters),
        madmom_dbn.make_online_decoder(fps=FPS),
        madmom_dbn.track_bars,
    )
    return ours, oracle


def _decode(decoders: tuple[Any, ...], activations: np.ndarray, at_beats: np.ndarray) -> Found:
    whole, online, bars = decoders
    beat = np.minimum(activations.sum(axis=1), 1)
    starts = range(0, len(beat), _FRAMES_ONLINE)
    pieces = [online(beat[start : start + _FRAMES_ONLINE], reset=start == 0) for start in starts]
    return Found(*decode_all(whole, activations), np.concatenate(pieces), bars(at_beats))


def _oracle(activations: np.ndarray, at_beats: np.ndarray, kept: Path) -> Found:
    """What madmom decodes; from the file if it was made from these activations."""
    # numpy's logarithms, and so madmom's log probabilities, are those of a machine and a version.
    made_by = [madmom_dbn.oracle_name(), np.__version__, machine_key()]
    content = activations.tobytes() + at_beats.tobytes() + "".join(made_by).encode()
    key = hashlib.sha256(content).hexdigest()
    if kept.exists():
        with np.load(kept, allow_pickle=False) as stored:
            if str(stored["key"]) == key:
                paths = [
                    # Stored as differences, which compress: most are 1.
                    (np.cumsum(stored[f"path_{index}"]).astype(np.uint32), float(log))
                    for index, log in enumerate(stored["log_probabilities"])
                ]
                return Found(stored["beats"], paths, stored["online"], stored["bars"])
    found = _decode(_decoders()[1], activations, at_beats)
    arrays: dict[str, Any] = {
        f"path_{index}": np.diff(path.astype(np.int64), prepend=0)
        for index, (path, _) in enumerate(found.paths)
    }
    arrays |= {"beats": found.beats, "online": found.online, "bars": found.bars}
    with written_whole(kept) as file:
        np.savez_compressed(file, key=key, log_probabilities=[log for _, log in found.paths], **arrays)
    return found


def compare_song(shared: Path, folder: Path, name: str) -> dict[str, Any]:
    """One song's row of the report."""
    song = read_annotations(shared)[name]
    activations = from_song(song)
    at_beats = activations_at_beats(song.times, activations[:, 1], FPS)
    oracle = _oracle(activations, at_beats, folder / f"{name}.npz")
    ours = _decode(_decoders()[0], activations, at_beats)
    compared = {
        "agreement": compare_decodings(ours.paths, ours.beats, oracle.paths, oracle.beats),
        "online": compare_decodings([], ours.online, [], oracle.online),
        "bars": compare_decodings([], ours.bars, [], oracle.bars),
    }
    return {
        "song": name,
        "duration": song.duration,
        "tempo": song.tempo_kind,
        "interval_spread": song.interval_spread,
        "meter": song.meter,
        **{kind: agreement.measures() for kind, agreement in compared.items()},
        "ours": against_annotations(song.times, song.downbeats, ours.beats),
        "oracle": against_annotations(song.times, song.downbeats, oracle.beats),
    }


def run(
    compare: Callable[[str], dict[str, Any]], processes: int, names: list[str], title: str
) -> list[dict[str, Any]]:
    """Rows of all songs, in their order."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {pool.submit(compare, name): name for name in names}
        finished = concurrent.futures.as_completed(futures)
        for future in tqdm(finished, total=len(names), unit="song", desc=title):
            if error := future.exception():
                pool.shutdown(cancel_futures=True)
                raise RuntimeError(f"song {futures[future]}: {error}") from error
        rows = {futures[future]: future.result() for future in futures}
    return [rows[name] for name in names]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m parity.full.decoder", description=__doc__)
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    parser.add_argument(
        "--work", type=Path, default=Path("build/parity-full/decoder"), help="madmom's results"
    )
    parser.add_argument("--processes", type=int, default=usable_cores())
    parser.add_argument("--songs", type=int, help="only the first so many, and no report")
    options = parser.parse_args(arguments)
    shared = shared_folder()
    if shared is None:
        print(
            "the shared reference material is not here (set ALLIN1_SHARED to its folder): nothing to compare"
        )
        return 0
    names = list(read_annotations(shared))[: options.songs]
    options.work.mkdir(parents=True, exist_ok=True)
    compare = functools.partial(compare_song, shared, options.work)
    rows = run(compare, options.processes, names, "decoder")
    kinds = ("agreement", "online", "bars")
    same, online, bars = (sum(DecoderAgreement(**row[kind]).identical for row in rows) for kind in kinds)
    print(
        f"decoder: of {len(rows)} songs {same} with identical paths, log probabilities and beats, {online} with "
        f"identical beats online, {bars} with identical bars on the annotated beats"
    )
    if options.songs is None:
        accuracy.update(
            options.reports, "decoder", {"command": COMMAND, "oracle": madmom_dbn.oracle_name(), "rows": rows}
        )
    return 0 if same == online == bars == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
