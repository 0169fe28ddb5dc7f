"""The pipeline in memory and on disk: many tracks, names, resuming, byproducts, silence."""

from __future__ import annotations

import concurrent.futures
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import allin1_core
from allin1_core import Analyzer, analysis, analyze, load_result
from allin1_core.dbn.metrical import fitted_tempo
from allin1_core.errors import BatchError
from allin1_core.results.result import AnalysisResult
from allin1_core.structure import LABELS
from allin1_core.timings.recorder import Timings
from allin1_core.timings.schema import read_timings

# The small network and the fastest spectrogram that needs no library; which backends agree is for the parity suite.
OPTIONS: dict[str, Any] = {"device": "cpu", "spec_backend": "numpy"}


@pytest.fixture
def options(small_model: str) -> dict[str, Any]:
    return {**OPTIONS, "model": small_model}


def assert_valid(result: AnalysisResult, seconds: float) -> None:
    """What every result keeps, whatever the music."""
    frames = int(np.ceil(seconds * 100 - 1e-9))
    assert result.segments[0].start == 0
    assert result.segments[-1].end == frames / 100
    for one, two in zip(result.segments[:-1], result.segments[1:], strict=True):
        assert one.end == two.start
    assert all(segment.start < segment.end and segment.label in LABELS for segment in result.segments)
    assert len(result.beats) == len(result.beat_positions)
    assert result.beats == sorted(result.beats)
    assert result.downbeats == [t for t, p in zip(result.beats, result.beat_positions, strict=True) if p == 1]
    assert (result.bpm is None) == (len(result.beats) < 2)
    tempo = fitted_tempo(result.beats)
    assert (result.tempo, result.tempo_spread) == ((tempo.bpm, tempo.spread) if tempo else (None, None))


def test_one_path_gives_one_result_and_several_a_list_in_their_order(
    write_stems: Callable[..., Path], options: dict[str, Any]
) -> None:
    b, a = write_stems("b"), write_stems("a")
    single = analyze(a, **options)
    assert isinstance(single, AnalysisResult)
    assert_valid(single, 5.0)
    several = analyze([b, str(a)], **options)
    assert [result.path for result in several] == [b, a]
    assert several[1].beats == single.beats
    assert len(single.beats) > 2


def test_patterns_stand_for_their_matches(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    for name in ("c", "a", "x[1]"):
        write_stems(f"in/{name}")
    assert [result.path.name for result in analyze(tmp_path / "in" / "*", **options)] == ["a", "c", "x[1]"]
    assert [result.path.name for result in analyze(str(tmp_path / "in" / "a*"), **options)] == ["a"]
    assert analyze(tmp_path / "in" / "x[1]", **options).path.name == "x[1]"


def test_a_session_loads_once_and_gives_what_analyze_gives(
    write_stems: Callable[..., Path], options: dict[str, Any]
) -> None:
    a, b = write_stems("a"), write_stems("b", ".flac")
    analyzer = Analyzer(**options)
    first, second = analyzer(a), analyzer(b)
    model = analyzer.session.model
    assert analyzer(a).to_json() == first.to_json() == analyze(a, **options).to_json()
    assert first.beats == second.beats
    assert analyzer.session.model is model


def test_activations_and_embeddings_on_request(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    folder, out = write_stems("song"), tmp_path / "out"
    bare = analyze(folder, out_dir=out, **options)
    assert bare.activations is None
    assert not list(out.glob("*.npz"))
    # The result that is there lacks what is asked for now, so it is made again.
    full = analyze(folder, out_dir=out, include_activations=True, include_embeddings=True, **options)
    assert full.activations is not None
    assert {name: values.shape for name, values in full.activations.items()} == {
        "beat": (500,),
        "downbeat": (500,),
        "segment": (500,),
        "label": (10, 500),
    }
    assert full.embeddings is not None
    assert full.embeddings.shape == (4, 500, 24)
    loaded = load_result(out / "song.json")
    assert loaded.activations is not None
    np.testing.assert_array_equal(loaded.activations["label"], full.activations["label"])
    np.testing.assert_array_equal(loaded.embeddings, full.embeddings)
    assert loaded.to_json() == bare.to_json() == full.to_json()


def test_stems_dir_replaces_separation(
    write_stems: Callable[..., Path],
    write_mix: Callable[[str], Path],
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    folder, mix = write_stems("stems/song"), write_mix("song.mp3")
    result = analyze(mix, stems_dir=tmp_path / "stems", **options)
    assert result.path == mix
    assert result.beats == analyze(folder, **options).beats
    assert result.provenance["stages"]["demix"] == {"backend": "stems", "reason": "ready stems were given"}


def test_results_that_are_there_are_not_made_again(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    folders, out = [write_stems("a"), write_stems("b")], tmp_path / "out"
    analyze(folders[0], out_dir=out, timings_path=tmp_path / "1.jsonl", **options)
    before = (out / "a.json").stat().st_mtime_ns
    results = analyze(folders, out_dir=out, timings_path=tmp_path / "2.jsonl", **options)
    assert [result.path.name for result in results] == ["a", "b"]
    assert (out / "a.json").stat().st_mtime_ns == before
    assert {line.track for line in read_timings(tmp_path / "2.jsonl")} == {None, "b"}
    analyze(folders, out_dir=out, overwrite=True, **options)
    assert (out / "a.json").stat().st_mtime_ns > before


def test_results_of_all_in_one_itself_count_as_there(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    folder, out = write_stems("a"), tmp_path / "out"
    out.mkdir()
    fields = {
        "path": str(folder),
        "bpm": 77,
        "beats": [],
        "downbeats": [],
        "beat_positions": [],
        "segments": [{"start": 0.0, "end": 5.0, "label": "verse"}],
    }
    (out / "a.json").write_text(json.dumps(fields))
    assert analyze(folder, out_dir=out, **options).bpm == 77


def test_tracks_of_one_name_keep_their_own_files(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    first, second, third = write_stems("x/song"), write_stems("y/song"), write_stems("z/SONG")
    out = tmp_path / "out"
    analyze([first, second], out_dir=out, **options)
    names = sorted(path.stem for path in out.iterdir())
    assert names[0] == "song"
    assert len(names) == 2
    assert names[1].startswith("song-")
    assert load_result(out / "song.json").path == first
    assert load_result(out / f"{names[1]}.json").path == second
    # In another call and another order the names are the same, and nothing is made again.
    stamps = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    results = analyze([third, second, first], out_dir=out, **options)
    assert [result.path for result in results] == [third, second, first]
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir() if path.name in stamps} == stamps
    assert {load_result(path).path for path in out.iterdir()} == {first, second, third}


def test_a_path_given_twice_is_analysed_once(
    write_stems: Callable[..., Path], options: dict[str, Any]
) -> None:
    folder = write_stems("a")
    assert len(analyze([folder, folder], **options)) == 1


def test_a_track_that_fails_does_not_stop_the_others(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    good, late = write_stems("a"), write_stems("c")
    (tmp_path / "b").mkdir()
    with pytest.raises(
        BatchError, match=r"1 of 3 tracks failed, the others are done:\n.*/b: .*no file for the stem"
    ) as caught:
        analyze([good, tmp_path / "b", late], out_dir=tmp_path / "out", **options)
    assert [path for path, _ in caught.value.failures] == [tmp_path / "b"]
    assert [result and result.path for result in caught.value.results] == [good, None, late]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.json", "c.json"]


@pytest.mark.parametrize("value", [0, 1])
def test_silence_and_direct_current_give_a_valid_result(
    write_stems: Callable[..., Path], options: dict[str, Any], value: int
) -> None:
    result = analyze(write_stems("a", samples=np.full((4, 44100), value, np.int16)), **options)
    assert_valid(result, 1.0)


@pytest.mark.parametrize("seconds", [120, pytest.param(600, marks=pytest.mark.full)])
def test_minutes_of_silence(seconds: int, write_stems: Callable[..., Path], options: dict[str, Any]) -> None:
    result = analyze(write_stems("a", ".flac", samples=np.zeros((4, seconds * 44100), np.int16)), **options)
    assert_valid(result, float(seconds))
    assert len(result.segments) <= seconds // 10


def test_a_track_without_beats(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    """A threshold that nothing reaches leaves the decoder nothing to decode."""
    model = Path(options["model"])
    deaf = tmp_path / "deaf.npz"
    deaf.write_bytes(model.read_bytes())
    text = (
        model.with_suffix(".yaml").read_text().replace("threshold_downbeat: 0.0", "threshold_downbeat: 1.0")
    )
    deaf.with_suffix(".yaml").write_text(text)
    result = analyze(write_stems("a"), out_dir=tmp_path / "out", **{**options, "model": str(deaf)})
    assert_valid(result, 5.0)
    assert result.beats == result.downbeats == result.beat_positions == []
    assert result.bpm is None
    assert load_result(tmp_path / "out" / "a.json").bpm is None


def test_a_run_that_was_killed_goes_on_where_it_was(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    folders, out = [write_stems(name) for name in ("a", "b", "c")], tmp_path / "out"
    (tmp_path / "deadly.py").write_text(
        "import os, signal, sys\n"
        "from allin1_core import cli\n"
        "from allin1_core.spectrogram import numpy_backend\n"
        "log_spectrogram, calls = numpy_backend.log_spectrogram, 0\n"
        "def second_call_kills(stems, sample_rate, **options):\n"
        "    global calls\n"
        "    calls += 1\n"
        "    if calls == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return log_spectrogram(stems, sample_rate, **options)\n"
        "numpy_backend.log_spectrogram = second_call_kills\n"
        "cli.main(sys.argv[1:])\n"
    )
    command = [sys.executable, str(tmp_path / "deadly.py"), "analyze", *map(str, folders), "-o", str(out)]
    command += ["-q", "-m", options["model"], "-d", "cpu", "--spec-backend", "numpy"]
    killed = subprocess.run(command, check=False)
    assert killed.returncode == -signal.SIGKILL
    # Hidden files that mark names as taken may be left; results are whole or not there.
    assert [path.name for path in out.iterdir() if not path.name.startswith(".")] == ["a.json"]
    stamp = (out / "a.json").stat().st_mtime_ns
    results = analyze(folders, out_dir=out, **options)
    assert [result.path for result in results] == folders
    assert (out / "a.json").stat().st_mtime_ns == stamp
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "b.json", "c.json"]


def test_one_sample(write_stems: Callable[..., Path], options: dict[str, Any]) -> None:
    result = analyze(write_stems("a", samples=np.ones((4, 1), np.int16)), **options)
    assert_valid(result, 0.01)
    assert result.bpm is None


def test_separation_in_memory_and_through_kept_files_gives_the_same_json(
    write_mix: Callable[[str], Path], options: dict[str, Any], separation_repository: Path, tmp_path: Path
) -> None:
    mix = write_mix("song.wav", 0.5)
    options |= {"demix_model": "small", "demix_repository": separation_repository}
    kept = {
        **options,
        "keep_byproducts": True,
        "demix_dir": tmp_path / "demix",
        "spec_dir": tmp_path / "spec",
        "timings_path": tmp_path / "t.jsonl",
    }
    in_memory = analyze(mix, **options).to_json()
    making = analyze(mix, **kept).to_json()
    using = analyze(mix, **kept).to_json()
    assert in_memory == making == using
    assert sorted(path.name for path in (tmp_path / "demix" / "small" / "song").glob("*.wav")) == [
        "bass.wav",
        "drums.wav",
        "other.wav",
        "vocals.wav",
    ]
    assert soundfile.info(tmp_path / "demix" / "small" / "song" / "bass.wav").subtype == "PCM_16"
    assert np.load(tmp_path / "spec" / "song.npy").shape == (4, 50, 81)
    runs: dict[str, list[str]] = {}
    for line in read_timings(tmp_path / "t.jsonl"):
        if line.stage in ("demix", "spectrogram", "spec_load"):
            runs.setdefault(line.run_id, []).append(f"{line.stage}{' cached' if line.cached else ''}")
    assert list(runs.values()) == [["demix", "spectrogram"], ["demix cached", "spec_load cached"]]


def test_kept_stems_of_another_song_with_the_same_name_are_not_used(
    write_mix: Callable[[str], Path], options: dict[str, Any], separation_repository: Path, tmp_path: Path
) -> None:
    options |= {
        "demix_model": "small",
        "demix_repository": separation_repository,
        "keep_byproducts": True,
        "demix_dir": tmp_path / "demix",
        "spec_dir": tmp_path / "spec",
    }
    analyze(write_mix("x/song.wav", 0.3), **options)
    analyze(write_mix("y/song.wav", 0.6), **options)
    assert soundfile.info(tmp_path / "demix" / "small" / "song" / "bass.wav").frames == int(0.6 * 44100)
    # A seed that differs makes other stems.
    before = (tmp_path / "demix" / "small" / "song" / "bass.wav").read_bytes()
    analyze(tmp_path / "y" / "song.wav", demix_seed=1, **options)
    assert (tmp_path / "demix" / "small" / "song" / "bass.wav").read_bytes() != before
    # So does a model that was trained further, whatever its name.
    import torch

    own = tmp_path / "own"
    own.mkdir()
    package = torch.load(separation_repository / "small.th", weights_only=False)
    package["state"] = {name: values * 1.01 for name, values in package["state"].items()}
    torch.save(package, own / "small.th")
    before = (tmp_path / "demix" / "small" / "song" / "bass.wav").read_bytes()
    analyze(tmp_path / "y" / "song.wav", **{**options, "demix_seed": 1, "demix_repository": own})
    assert (tmp_path / "demix" / "small" / "song" / "bass.wav").read_bytes() != before


def test_a_custom_spectrogram_backend_is_called_and_recorded(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_spectrogram.py").write_text(
        "import numpy as np\n"
        "def constant(stems, sample_rate, *, precision, device, return_native):\n"
        "    return np.full((len(stems), -(-stems.shape[1] // 441), 81), 0.5, np.float32)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = analyze(write_stems("a"), **{**options, "spec_backend": "my_spectrogram:constant"})
    choice = result.provenance["stages"]["spectrogram"]
    assert choice["backend"] == "my_spectrogram:constant"
    assert choice["reason"] == "backend 'my_spectrogram:constant' and device 'cpu' were asked for"
    assert result.beats != analyze(tmp_path / "a", **options).beats


def test_provenance_says_what_ran_and_why(write_stems: Callable[..., Path], options: dict[str, Any]) -> None:
    provenance = analyze(write_stems("a"), **options).provenance
    assert provenance["allin1_core_version"] == allin1_core.__version__
    assert len(provenance["model"]["weights"][0]["sha256"]) == 64
    for stage in ("spectrogram", "nn", "metrical_dbn", "functional_local_maxima"):
        choice = provenance["stages"][stage]
        assert choice["backend"]
        assert choice["library_version"]
        assert choice["device"] == "cpu"
        assert choice["precision"] == "exact"
        assert choice["reason"]
    assert provenance["stages"]["spectrogram"]["backend"] == "numpy"


def test_the_model_loads_in_a_thread_of_its_own(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    analyze([write_stems("a"), write_stems("b")], timings_path=tmp_path / "t.jsonl", **options)
    lines = read_timings(tmp_path / "t.jsonl")
    loads = [line for line in lines if line.stage == "model_load"]
    assert [(line.details["what"], line.thread == "main") for line in loads] == [
        ("weights", False),
        ("build", True),
    ]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("model_load")]


@pytest.mark.parametrize("has_recorder", [False, True])
def test_a_call_from_a_worker_thread_is_timed_as_one_from_the_main_thread(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path, has_recorder: bool
) -> None:
    folders, path = [write_stems("a"), write_stems("b")], tmp_path / "t.jsonl"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        if has_recorder:
            analyzer, timings = Analyzer(**options), Timings(path)
            for folder in folders:
                pool.submit(analyzer, folder, timings=timings).result()
        else:
            pool.submit(analyze, folders, timings_path=path, **options).result()
    beside = [line.details["what"] for line in read_timings(path) if line.thread != "main"]
    assert beside == ["weights"]


def test_every_stage_of_every_track_is_timed(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    analyze(
        [write_stems("a"), write_stems("b")], out_dir=tmp_path, timings_path=tmp_path / "t.jsonl", **options
    )
    lines = read_timings(tmp_path / "t.jsonl")
    for track in ("a", "b"):
        of_track = [line for line in lines if line.track == track]
        assert [line.stage for line in of_track] == [
            "audio_read",
            "spectrogram",
            "nn",
            "metrical_prep",
            "metrical_dbn",
            "functional_probs",
            "functional_local_maxima",
            "functional_boundaries",
            "postprocess",
            "save",
        ]
        inside = [line for line in of_track if line.parent == "postprocess"]
        whole = next(line for line in of_track if line.stage == "postprocess")
        assert len(inside) == 5
        assert whole.start <= inside[0].start
        assert inside[-1].end <= whole.end
        for line in of_track:
            assert line.end - line.start == pytest.approx(line.duration, abs=1e-9)
        assert {line.audio_seconds for line in of_track if line.stage not in ("save",)} == {5.0}
    assert len({line.run_id for line in lines}) == 1


@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_neighbours_hand_each_other_their_own_arrays(
    write_stems: Callable[..., Path], small_model: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From spectrogram to network nothing goes through numpy; to the host come only the probabilities."""
    pytest.importorskip({"mlx": "mlx.core"}.get(backend, backend))
    to_host, moved = analysis.to_host, []

    def watched(array: Any) -> np.ndarray:
        moved.append(tuple(array.shape))
        return to_host(array)

    monkeypatch.setattr(analysis, "to_host", watched)
    timings = Timings()
    analyzer = Analyzer(model=small_model, nn_backend=backend, spec_backend=backend)
    analyzer(write_stems("a"), timings=timings)
    assert set(moved) == {(500,), (10, 500)}
    assert "transfer" not in {line.stage for line in timings.records}
    used = {line.stage: line.backend for line in timings.records if line.backend}
    assert used["spectrogram"] == used["nn"] == backend


def test_a_move_between_libraries_is_a_stage(write_stems: Callable[..., Path], small_model: str) -> None:
    pytest.importorskip("mlx.core")
    timings = Timings()
    Analyzer(model=small_model, nn_backend="fused", spec_backend="mlx")(write_stems("a"), timings=timings)
    [move] = [line for line in timings.records if line.stage == "transfer"]
    assert move.details == {"what": "spectrogram", "from": "mlx on mlx", "to": "fused on cpu"}


@pytest.mark.parametrize(
    "statement",
    [
        "import allin1_core",
        "import allin1_core; allin1_core.analyze, allin1_core.load_result, allin1_core.visualize",
    ],
)
def test_importing_loads_neither_torch_nor_mlx(statement: str) -> None:
    code = f"{statement}; import sys; print([name for name in ('torch', 'mlx', 'matplotlib') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
