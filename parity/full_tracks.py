"""Spectrogram, network and whole pipeline on every shared track, or on any folder of tracks.

    python -m parity.full_tracks [FOLDER] [--weights-dir DIR]

A track is a folder with four stems, as ``allin1-core analyze`` takes it. For each, every spectrogram backend is held
to madmom's spectrogram; the fused network to the plain one in torch, on madmom's spectrogram; and the whole pipeline,
as ``analyze`` runs it, to the same pipeline made of madmom's spectrogram, the plain network and madmom's decoder. The
result goes into the report that `parity.accuracy` writes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from allin1_core import Analyzer
from allin1_core.network import load_model
from allin1_core.network.model import Model, NetworkOutput
from allin1_core.separation.folder import read_stems_folder
from allin1_core.spectrogram import select
from parity import accuracy
from parity.cases_spectrogram import own_operations, spectrogram_backends
from parity.oracles import madmom_dbn
from parity.oracles.madmom_spectrogram import backend as madmom_spectrogram
from parity.oracles.network_golden import OUTPUTS
from parity.oracles.pipeline import compare_results, from_probabilities, make_decoder
from parity.shared import STEMS, shared_folder

NETWORK_BOUND = 1e-4
COMMAND = "python -m parity.full_tracks"


def compare_spectrograms(stems: np.ndarray, sample_rate: int, expected: np.ndarray) -> list[dict[str, Any]]:
    """Largest difference from madmom for each implementation, and for each stem."""
    rows = []
    for implementation in spectrogram_backends() + own_operations():
        compute = select(
            implementation.backend, device=implementation.device, precision=implementation.precision
        )
        output = np.asarray(compute(stems, sample_rate))
        by_stem = np.abs(output.astype(np.float64) - expected).max(axis=(1, 2), initial=0)
        rows.append(
            {
                "implementation": str(implementation),
                "computed_by": compute.choice.computed_by,
                "by_stem": dict(zip(STEMS, by_stem.tolist(), strict=True)),
                "largest": float(by_stem.max()),
                "bound": implementation.bound.music,
                "passed": bool(by_stem.max() <= implementation.bound.music),
            }
        )
    return rows


def compare_networks(ours: NetworkOutput, plain: NetworkOutput) -> dict[str, Any]:
    """Largest difference of each of the network's probabilities."""
    found = {name: float(np.abs(getattr(ours, name) - getattr(plain, name)).max()) for name in OUTPUTS}
    return {
        "by_output": found,
        "largest": max(found.values()),
        "passed": max(found.values()) <= NETWORK_BOUND,
    }


def compare_track(path: Path, plain: Model, fused: Model, analyzer: Analyzer) -> dict[str, Any]:
    """One track's row of the report."""
    stems = read_stems_folder(path)
    expected = np.asarray(madmom_spectrogram(stems.samples, stems.sample_rate))
    plain_output = plain(expected).to_numpy()
    decoder = make_decoder(plain.thresholds.downbeat)
    return {
        "track": path.name,
        "seconds": stems.samples.shape[1] / stems.sample_rate,
        "spectrogram": compare_spectrograms(stems.samples, stems.sample_rate, expected),
        "network": compare_networks(fused(expected).to_numpy(), plain_output),
        "pipeline": compare_results(analyzer(path), from_probabilities(plain_output, decoder)),
    }


def track_folders(folder: Path) -> list[Path]:
    """The folders below one that hold tracks.

    Raises
    ------
    SystemExit
        If there is none.
    """
    found = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not found:
        raise SystemExit(f"{folder}: no folders in it; expected one for each track, with four stems")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m parity.full_tracks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "folder", type=Path, nargs="?", help="a folder of track folders (default: the shared)"
    )
    parser.add_argument("--model", default="harmonix-all")
    parser.add_argument(
        "--weights-dir", type=Path, help="default: the shared weights, else the model's own place"
    )
    parser.add_argument("--reports", type=Path, default=Path("reports"))
    options = parser.parse_args(arguments)
    shared = shared_folder()
    if options.folder is None and shared is None:
        print("the shared reference material is not here; name a folder of tracks to compare on")
        return 0
    folder: Path = options.folder or Path(shared or "") / "audio"
    weights = options.weights_dir or (shared / "weights" if shared else None)
    tracks = track_folders(folder)
    plain, fused = (
        load_model(options.model, backend=name, device="cpu", weights_dir=weights)
        for name in ("torch", "fused")
    )
    analyzer = Analyzer(model=options.model, device="cpu", weights_dir=weights)
    rows = [compare_track(path, plain, fused, analyzer) for path in tqdm(tracks, desc="tracks", unit="track")]
    failed = [row["track"] for row in rows if not _passed(row)]
    print(
        f"{len(rows) - len(failed)} of {len(rows)} tracks agree"
        + "".join(f"\n{name} does not" for name in failed)
    )
    named = "" if options.folder is None else f" {options.folder.name}"
    content = {
        "command": COMMAND + named,
        "oracle": madmom_dbn.oracle_name(),
        "model": options.model,
        "folds": plain.num_folds,
        "rows": rows,
    }
    # A folder of the user's own stands beside the shared tracks in the report.
    accuracy.update(options.reports, "tracks" if options.folder is None else "tracks_of_a_folder", content)
    return 1 if failed else 0


def _passed(row: dict[str, Any]) -> bool:
    parts = [*row["spectrogram"], row["network"], row["pipeline"]]
    return all(part["passed"] for part in parts)


if __name__ == "__main__":
    raise SystemExit(main())
