"""Spectrogram, network and whole pipeline on every shared track, or on any folder of tracks.

    python -m parity.full.tracks [FOLDER] [--model NAME] [--weights-dir DIR]

A track is a folder with four stems, as ``allin1-core analyze`` takes it; folders without audio are passed over. For
each, every spectrogram backend is held to madmom's spectrogram; the fused network to the plain one in torch, on
madmom's spectrogram; and the whole pipeline, as ``analyze`` runs it, to the same pipeline made of madmom's
spectrogram, the plain network and madmom's decoder. The result goes into the report that `parity.reports.accuracy`
writes.

A finished track's row is kept and taken again as long as its audio, the weights, the code and the libraries are the
same, so that a run that was stopped goes on where it was. A track that cannot be compared fails, and is named.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import functools
import hashlib
import json
import multiprocessing
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from allin1_core.errors import Allin1Error
from allin1_core.files.writing import write_text
from allin1_core.network import load_checkpoints
from allin1_core.separation.folder import AUDIO_SUFFIXES
from allin1_core.separation.track import AudioFiles, Track
from allin1_core.threads import usable_cores
from parity.environment import machine_key, source_digest, versions
from parity.full.track_agreement import Comparison
from parity.material import shared_folder
from parity.oracles import madmom_dbn
from parity.reports import accuracy
from parity.reports.publish import dump_json

COMMAND = "python -m parity.full.tracks"
MODEL = "harmonix-all"
# Threads of the network in each of several processes; the rest of a track is mostly one thread's work.
_THREADS = 2

_load = functools.cache(Comparison.load)


def track_folders(folder: Path) -> list[Path]:
    """The folders below one that hold audio; a line is printed for each other.

    Raises
    ------
    SystemExit
        If there is none.
    """
    folders = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    found = []
    for path in folders:
        if any(file.suffix.lower() in AUDIO_SUFFIXES for file in path.iterdir()):
            found.append(path)
        else:
            print(f"{path}: no audio files in it; passed over")
    if not found:
        raise SystemExit(f"{folder}: no folders of audio in it; expected one for each track, with four stems")
    return found


def common_key(model: str, weights_dir: Path | None) -> str:
    """Digest of all but the audio that a row depends on: weights, code of both sides, libraries, machine, oracle."""
    weights = [checkpoint.sha256 for checkpoint in load_checkpoints(model, weights_dir=weights_dir)]
    own = Path(__file__).parents[1]
    code = {
        str(path.relative_to(own)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(own.rglob("*.py"))
        if "reports" not in path.parts
    }
    parts = [weights, source_digest(), code, versions(), machine_key(), madmom_dbn.oracle_name()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def compare_track(
    path: Path, model: str, weights_dir: Path | None, num_threads: int | None, common: str, kept: Path
) -> dict[str, Any]:
    """A track's row, from the folder of kept ones if it is there; with an ``error`` if it could not be made."""
    try:
        digests = AudioFiles(Track(path, path.name), None).digests
        key = hashlib.sha256(json.dumps([common, sorted(digests.items())]).encode()).hexdigest()
        file = kept / f"{key}.json"
        if file.exists():
            return {**json.loads(file.read_text(encoding="utf-8")), "track": path.name}
        row = _load(model, weights_dir, num_threads).compare(path)
        write_text(file, dump_json(row))
        return row
    except ImportError:
        raise  # an oracle or a library is missing, whatever the track
    except Exception as error:  # whatever it is, the row says it
        text = str(error) if isinstance(error, Allin1Error) else f"{type(error).__name__}: {error}"
        return {"track": path.name, "error": text.replace(str(path), path.name)}


def compare_tracks(tracks: Sequence[Path], processes: int, **keywords: Any) -> Iterator[dict[str, Any]]:
    """Rows of all tracks, as they are finished."""
    if processes == 1:
        for path in tracks:
            yield compare_track(path, num_threads=None, **keywords)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        futures = [pool.submit(compare_track, path, num_threads=_THREADS, **keywords) for path in tracks]
        for future in concurrent.futures.as_completed(futures):
            yield future.result()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", help="a folder of track folders (default: the shared)")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--weights-dir", help="default: the shared weights, else the model's own place")
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    parser.add_argument("--work", type=Path, default=Path("build/parity-full/tracks"), help="finished rows")
    parser.add_argument("--processes", type=int, default=max(1, usable_cores() // _THREADS))
    options = parser.parse_args(arguments)
    shared = shared_folder()
    if options.folder is None and shared is None:
        print("the shared reference material is not here; name a folder of tracks to compare on")
        return 0
    folder = Path(options.folder or Path(shared or "") / "audio")
    weights = Path(options.weights_dir) if options.weights_dir else shared / "weights" if shared else None
    tracks = track_folders(folder)
    options.work.mkdir(parents=True, exist_ok=True)
    keywords = {
        "model": options.model,
        "weights_dir": weights,
        "common": common_key(options.model, weights),
        "kept": options.work,
    }
    finished = compare_tracks(tracks, min(options.processes, len(tracks)), **keywords)
    rows = sorted(
        tqdm(finished, total=len(tracks), desc="tracks", unit="track"), key=lambda row: row["track"]
    )
    failed = [row for row in rows if not passed(row)]
    print(f"{len(rows) - len(failed)} of {len(rows)} tracks agree")
    for row in failed:
        print(f"{row['track']}: {row.get('error', 'does not')}")
    content = {
        "command": command(options),
        "oracle": madmom_dbn.oracle_name(),
        "model": options.model,
        "folds": len(load_checkpoints(options.model, weights_dir=weights)),
        "rows": rows,
    }
    # A folder of the user's own stands beside the shared tracks in the report.
    accuracy.update(options.reports, "tracks" if options.folder is None else "tracks_of_a_folder", content)
    return 1 if failed else 0


def command(options: argparse.Namespace) -> str:
    """What gives the same rows again, its paths as they were given."""
    words = [] if options.folder is None else [options.folder]
    words += [] if options.model == MODEL else ["--model", options.model]
    words += [] if options.weights_dir is None else ["--weights-dir", options.weights_dir]
    return " ".join([COMMAND, shlex.join(words)]).strip()


def passed(row: dict[str, Any]) -> bool:
    """Whether a row's track could be compared, and agrees in every stage."""
    if "error" in row:
        return False
    return all(part["passed"] for part in (*row["spectrogram"], row["network"], row["pipeline"]))


if __name__ == "__main__":
    raise SystemExit(main())
