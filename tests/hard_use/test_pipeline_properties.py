"""What must be true of a result whatever the music: laws of the stages that hold through all of them.

With the shared weights where they are here, and with a small network of random ones, whose reach is known.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core import AnalysisResult, Analyzer
from allin1_core.audio.types import STEM_NAMES
from hard_use.networks import REACH, checkpoint
from hard_use.reporting import recorded_trials
from parity.material import read_stems, shared_folder
from parity.reports.records import ParityRecorder

HOP = 441
FPS = 100
# A boundary is judged by 12 s on either side, so that much silence and the network's reach keep it from the ends.
SILENCE = 1200 + 2 * REACH
# Of networks whose answer to silence lies below this threshold, also at the ends of the track, and to music above it.
NETWORKS = {16: 0.43, 6: 0.57, 36: 0.48}


@pytest.fixture(scope="module")
def random_models(small_model: str, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Paths of checkpoints with three blocks of random parameters."""
    folder = tmp_path_factory.mktemp("random")
    text = Path(small_model).with_suffix(".yaml").read_text(encoding="utf-8")
    old = "best_threshold_downbeat: 0.0"
    assert old in text
    paths = []
    for seed, threshold in NETWORKS.items():
        path = folder / f"random{seed}.npz"
        np.savez(path, **checkpoint(seed=seed).parameters)
        path.with_suffix(".yaml").write_text(text.replace(old, f"best_threshold_downbeat: {threshold}"))
        paths.append(str(path))
    return paths


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, and music for it: stems ``int16 (4, num_samples)``."""

    options: dict[str, Any]
    music: np.ndarray


@pytest.fixture(params=["random", "harmonix-fold0"])
def case(request: pytest.FixtureRequest, random_models: list[str], stems: np.ndarray) -> Case:
    if request.param == "random":
        return Case({"model": random_models[0], "device": "cpu"}, stems)
    shared = shared_folder()
    if shared is None:
        pytest.skip("the shared reference material is not here (set ALLIN1_SHARED to its folder)")
    options = {"model": request.param, "device": "cpu", "weights_dir": shared / "weights"}
    return Case(options, read_stems("falcon69"))


@pytest.fixture
def written(tmp_path: Path) -> Callable[[np.ndarray], Path]:
    """Write stems, ``(4, num_samples)``, to a folder, and return it."""
    numbers = itertools.count()

    def write(samples: np.ndarray) -> Path:
        folder = tmp_path / f"track{next(numbers)}"
        folder.mkdir()
        for stem, values in zip(STEM_NAMES, samples, strict=True):
            subtype = "PCM_16" if values.dtype == np.int16 else "FLOAT"
            soundfile.write(folder / f"{stem}.wav", values, 44100, subtype=subtype)
        return folder

    return write


def frames(seconds: list[float]) -> list[int]:
    return [round(second * FPS) for second in seconds]


def boundaries(result: AnalysisResult) -> list[int]:
    """Frames at which a section begins, without the first."""
    return frames([segment.start for segment in result.segments[1:]])


def same_music(one: AnalysisResult, other: AnalysisResult) -> None:
    """All that is said about the music is the same, to the bit of the network's probabilities."""
    for name in ("bpm", "beats", "downbeats", "beat_positions", "segments"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.activations is not None
    assert other.activations is not None
    for name, values in one.activations.items():
        np.testing.assert_array_equal(values, other.activations[name], err_msg=name)


def law(record_parity: ParityRecorder, name: str, bound: str, backend: str = "") -> Any:
    return recorded_trials(record_parity, "properties", f"analyze: {name}", bound, backend=backend)


def test_silence_before_the_music_delays_beats_and_boundaries(
    random_models: list[str], stems: np.ndarray, written: Callable, record_parity: ParityRecorder
) -> None:
    """Silence is below the threshold, so only the music is decoded; far from the ends no frame knows where it is."""
    long = np.concatenate([stems, np.roll(stems, 30_000, axis=1)[:, : 3 * 44100]], axis=1)
    last = SILENCE + long.shape[1] // HOP

    def padded(more: int) -> np.ndarray:
        return np.pad(long, ((0, 0), ((SILENCE + more) * HOP, SILENCE * HOP)))

    found_beats = found_boundaries = 0
    with law(
        record_parity, "delay of whole hops", "by as many frames; probabilities bit-identical"
    ) as trials:
        for model in random_models:
            analyzer = Analyzer(model=model, device="cpu")
            one = analyzer(written(padded(0)), include_activations=True)
            near = [frame for frame in boundaries(one) if SILENCE - REACH <= frame <= last + REACH]
            found_beats += len(one.beats)
            found_boundaries += len(near)
            for hops in (1, 7, 250):
                trials.tried += 1
                later = analyzer(written(padded(hops)), include_activations=True)
                assert frames(later.beats) == [frame + hops for frame in frames(one.beats)]
                assert later.beat_positions == one.beat_positions
                moved = [frame - hops for frame in boundaries(later)]
                assert [frame for frame in moved if SILENCE - REACH <= frame <= last + REACH] == near
                assert one.activations is not None
                assert later.activations is not None
                for name, values in one.activations.items():
                    moved_values = later.activations[name][..., REACH + hops : -REACH]
                    np.testing.assert_array_equal(moved_values, values[..., REACH:-REACH], err_msg=name)
        assert found_beats > 3 * len(random_models)
        assert found_boundaries > 0


def test_repetition_and_number_of_threads(
    case: Case, written: Callable, record_parity: ParityRecorder
) -> None:
    folder, other = written(case.music), written(case.music[::-1, : 44100 * 3])
    analyzer = Analyzer(**case.options, num_threads=1)
    with law(record_parity, "repetition, whatever ran between; 1 and 2 threads", "identical JSON") as trials:
        expected = analyzer(folder).to_json()
        analyzer(other)
        others = {
            "again": analyzer,
            "another analyzer": Analyzer(**case.options, num_threads=1),
            "2 threads": Analyzer(**case.options, num_threads=2),
            "as many threads as by default": Analyzer(**case.options),
        }
        for what, repeated in others.items():
            trials.tried += 1
            assert repeated(folder).to_json() == expected, what


@pytest.mark.parametrize("seconds", [0.01, 2.0, 30.0])
def test_silence(case: Case, seconds: float, written: Callable, record_parity: ParityRecorder) -> None:
    """Nothing is above the threshold, so there is no beat; sections cover the track; and a zero has no sample type."""
    analyzer = Analyzer(**case.options)
    with law(record_parity, "silence", "no beats; sections cover it; int16 and float32 alike") as trials:
        one, other = (
            analyzer(written(np.zeros((4, round(seconds * 44100)), dtype)), include_activations=True)
            for dtype in (np.int16, np.float32)
        )
        trials.tried += 2
        same_music(one, other)
        assert one.beats == one.downbeats == one.beat_positions == []
        assert one.bpm is None
        assert one.segments[0].start == 0
        assert one.segments[-1].end == pytest.approx(seconds, abs=1e-9)
        assert all(a.end == b.start for a, b in itertools.pairwise(one.segments))
