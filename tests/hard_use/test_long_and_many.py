"""A track of an hour, a library of a thousand, and unusual names of tracks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from allin1_core import load_result
from allin1_core.audio.types import STEM_NAMES
from hard_use import many_tracks
from hard_use.libraries import command, environment, write_library
from hard_use.reporting import recorded_trials
from hard_use.test_hostile_audio import ODD_NAMES
from parity.material import read_stems
from parity.reports.records import ParityRecorder

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures memory as Linux does")

GIGABYTE = 1 << 30


@pytest.mark.parametrize(
    ("number", "growth"),
    [(40, 12 << 20), pytest.param(1000, 16 << 20, marks=[pytest.mark.full, pytest.mark.timeout(3000)])],
)
def test_many_tracks_in_flat_memory(
    tmp_path: Path,
    small_model: str,
    stems: np.ndarray,
    number: int,
    growth: int,
    record_parity: ParityRecorder,
) -> None:
    """The most that is held while a track is analysed does not grow from the first half of the run to the second.

    Activations and embeddings are written: of a thousand tracks, the second half's would be 21 MB.
    """
    paths = write_library(tmp_path / "library", stems, number, seconds=1.0)
    with recorded_trials(
        record_parity,
        "long and many",
        "short tracks in one run",
        f"second half <= {growth >> 20} MB above the first",
        backend="fused",
    ) as trials:
        trials.tried = number
        child = subprocess.run(
            [sys.executable, many_tracks.__file__, small_model, str(tmp_path / "out"), *map(str, paths)],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert child.returncode == 0, child.stderr
        peaks = json.loads(child.stdout)
        results = [load_result(tmp_path / "out" / f"{path.name}.json") for path in paths]
        assert [result.path for result in results] == paths
        assert {result.embeddings.shape for result in results if result.embeddings is not None} == {
            (4, 100, 24)
        }
        assert len(peaks) == number
        warm = number // 10
        early, late = max(peaks[warm : number // 2]), max(peaks[number // 2 :])
        trials.measures |= {
            "first_megabytes": round(peaks[warm] / 1e6, 1),
            "last_megabytes": round(peaks[-1] / 1e6, 1),
            "peak_megabytes": round(late / 1e6),
            "growth_megabytes": round((late - early) / 1e6, 2),
        }
        assert late - early <= growth


def test_tracks_with_odd_names(
    tmp_path: Path, small_model: str, stems: np.ndarray, record_parity: ParityRecorder
) -> None:
    """Each has its result under its own name, through the command and from within its folder."""
    library = tmp_path / "library"
    for name in ODD_NAMES:
        (path,) = write_library(library / "made", stems, 1, seconds=0.5)
        path.rename(library / name)
    arguments = command([], small_model, tmp_path / "out")
    arguments[arguments.index("--model") : arguments.index("--model")] = [f"./{name}" for name in ODD_NAMES]
    arguments.remove("--quiet")
    with recorded_trials(
        record_parity,
        "long and many",
        "tracks with odd names",
        "a result under its own name",
        backend="fused",
    ) as trials:
        trials.tried = len(ODD_NAMES)
        child = subprocess.run(
            arguments, env={**environment(), "PYTHONUTF8": "1"}, cwd=library, capture_output=True, check=False
        )
        if child.returncode != 0:
            trials.wrong.append(f"status {child.returncode}: {child.stderr.decode(errors='replace')[-2000:]}")
        # A pattern that is also a name means the track of that name, and none other.
        for name in ODD_NAMES:
            path = tmp_path / "out" / "struct" / f"{name}.json"
            if not path.is_file() or load_result(path).path != library / name:
                trials.wrong.append(f"{name!r}: no result of its own")
        trials.wrong += [
            f"line {line!r}"
            for line in child.stdout.decode(errors="replace").splitlines()
            if not line.isprintable()
        ]
        assert not trials.wrong, "\n".join(trials.wrong)


@pytest.mark.full
@pytest.mark.timeout(3000)
def test_an_hour_under_four_gigabytes(tmp_path: Path, shared: Path, record_parity: ParityRecorder) -> None:
    """Four stems of 60 minutes, read from files, through the ensemble of eight folds, to the result's file."""
    seconds = 3600
    folder = tmp_path / "hour"
    folder.mkdir()
    for stem, samples in zip(STEM_NAMES, read_stems("keep_on_rolling"), strict=True):
        with soundfile.SoundFile(folder / f"{stem}.wav", "w", 44100, 1, subtype="PCM_16") as file:
            while file.frames < seconds * 44100:
                file.write(samples[: seconds * 44100 - file.frames])
    cores = sorted(os.sched_getaffinity(0))[:2]
    with recorded_trials(
        record_parity,
        "long and many",
        "60 minutes, four stems, eight folds",
        f"< 4 GB on {len(cores)} cores",
    ) as trials:
        trials.tried = 1
        start = time.monotonic()
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "allin1_core.cli", "analyze", str(folder), "--quiet"),
                *("--device", "cpu", "--weights-dir", str(shared / "weights")),
                *("--out-dir", str(tmp_path / "out"), "--timings", str(tmp_path / "timings.jsonl")),
            ],
            env={name: value for name, value in environment().items() if not name.endswith("NUM_THREADS")},
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        peak = usage.ru_maxrss << 10
        trials.measures |= {
            "peak_megabytes": round(peak / 1e6),
            "seconds": round(time.monotonic() - start, 1),
        }
        assert child.returncode == 0
        result = load_result(tmp_path / "out" / "hour.json")
        trials.measures |= {"beats": len(result.beats), "segments": len(result.segments)}
        assert peak < 4 * GIGABYTE
        # Intervals are whole hundredths of a second, so 104 beats a minute are 0.57 s (105) or 0.58 s (103).
        assert result.bpm in (103, 105)
        assert result.segments[-1].end == seconds
        # 104 beats a minute, but for where the song begins anew.
        assert 0.95 * 104 * 60 < len(result.beats) < 1.05 * 104 * 60
