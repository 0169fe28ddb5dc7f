"""The decoder against madmom on activations of every annotated song: ``python -m parity.full.decoder``.

Songs run in parallel, one process for each core. What madmom found is kept, song by song, and reused as long as
the song's activations and the machine are the same, so that a run that was stopped goes on where it was; ours is
decoded anew in every run. The result goes into the report `parity.reports.accuracy` writes.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import hashlib
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from allin1_core.dbn import DBNDownBeatTrackingProcessor
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


@functools.cache
def _decoders() -> tuple[Any, Any]:
    parameters: dict[str, Any] = {"beats_per_bar": BEATS_PER_BAR, "fps": FPS}
    return DBNDownBeatTrackingProcessor(**parameters), madmom_dbn.make_decoder(**parameters)


def _oracle(activations: np.ndarray, kept: Path) -> tuple[np.ndarray, Paths]:
    """Beats and paths of madmom; from the file if it was made from these activations."""
    # numpy's logarithms, and so madmom's log probabilities, are those of a machine and a version.
    made_by = [madmom_dbn.oracle_name(), np.__version__, machine_key()]
    key = hashlib.sha256(activations.tobytes() + "".join(made_by).encode()).hexdigest()
    if kept.exists():
        with np.load(kept, allow_pickle=False) as stored:
            if str(stored["key"]) == key:
                logs = stored["log_probabilities"]
                paths = [
                    # Stored as differences, which compress: most are 1.
                    (np.cumsum(stored[f"path_{index}"]).astype(np.uint32), float(log))
                    for index, log in enumerate(logs)
                ]
                return stored["beats"], paths
    beats, paths = decode_all(_decoders()[1], activations)
    arrays: dict[str, Any] = {
        f"path_{index}": np.diff(path.astype(np.int64), prepend=0) for index, (path, _) in enumerate(paths)
    }
    unfinished = kept.with_suffix(f".{os.getpid()}.tmp")
    with unfinished.open("wb") as file:
        logs = np.array([log for _, log in paths])
        np.savez_compressed(file, key=key, beats=beats, log_probabilities=logs, **arrays)
    os.replace(unfinished, kept)
    return beats, paths


def compare_song(shared: Path, name: str, folder: Path) -> dict[str, Any]:
    """One song's row of the report."""
    song = read_annotations(shared)[name]
    activations = from_song(song)
    oracle_beats, oracle_paths = _oracle(activations, folder / f"{name}.npz")
    beats, paths = decode_all(_decoders()[0], activations)
    return {
        "song": name,
        "duration": song.duration,
        "tempo": song.tempo_kind,
        "interval_spread": song.interval_spread,
        "meter": song.meter,
        "agreement": compare_decodings(paths, beats, oracle_paths, oracle_beats).measures(),
        "ours": against_annotations(song.times, song.downbeats, beats),
        "oracle": against_annotations(song.times, song.downbeats, oracle_beats),
    }


def run(shared: Path, folder: Path, processes: int, names: list[str]) -> list[dict[str, Any]]:
    """Rows of all songs, in their order."""
    folder.mkdir(parents=True, exist_ok=True)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = {pool.submit(compare_song, shared, name, folder): name for name in names}
        finished = concurrent.futures.as_completed(futures)
        for future in tqdm(finished, total=len(names), unit="song", desc="decoder"):
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
    parser.add_argument(
        "--processes",
        type=int,
        default=usable_cores(),
    )
    parser.add_argument("--songs", type=int, help="only the first so many, and no report")
    options = parser.parse_args(arguments)
    shared = shared_folder()
    if shared is None:
        print(
            "the shared reference material is not here (set ALLIN1_SHARED to its folder): nothing to compare"
        )
        return 0
    names = list(read_annotations(shared))[: options.songs]
    rows = run(shared, options.work, options.processes, names)
    same = sum(DecoderAgreement(**row["agreement"]).identical for row in rows)
    print(f"decoder: {same} of {len(rows)} songs with identical paths, log probabilities and beats")
    if options.songs is None:
        accuracy.update(
            options.reports, "decoder", {"command": COMMAND, "oracle": madmom_dbn.oracle_name(), "rows": rows}
        )
    return 0 if same == len(rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
