"""The pipeline in memory and on disk: many tracks, names, resuming, byproducts, silence."""

from __future__ import annotations

import concurrent.futures
import dataclasses
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
from allin1_core import Analyzer, analysis, analyze, load_result, session
from allin1_core.dbn.metrical import fitted_tempo
from allin1_core.errors import AudioError
from allin1_core.network import model
from allin1_core.results.result import AnalysisResult
from allin1_core.separation import track as reading
from allin1_core.structure import LABELS
from allin1_core.timings.recorder import Timings
from allin1_core.timings.schema import read_timings


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


def test_activations_and_embeddings_on_request(song: Path, options: dict[str, Any], tmp_path: Path) -> None:
    folder, out = song, tmp_path / "out"
    bare = analyze(folder, out_dir=out, **options)
    assert bare.activations is None
    assert not list(out.glob("*.npz"))
    # The result that is there lacks what is asked for now, so it is made again.
    full = analyze(folder, out_dir=out, include_activations=True, include_embeddings=True, **options)
    assert_valid(full, 5.0)
    assert len(full.beats) > 2
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


@pytest.mark.parametrize(
    ("value", "num_samples"),
    [(0, 44100), (1, 44100), (1, 1), (0, 120 * 44100), pytest.param(0, 600 * 44100, marks=pytest.mark.full)],
)
def test_silence_and_direct_current_of_any_length_give_a_valid_result(
    write_stems: Callable[..., Path], options: dict[str, Any], value: int, num_samples: int
) -> None:
    result = analyze(write_stems("a", samples=np.full((4, num_samples), value, np.int16)), **options)
    assert_valid(result, num_samples / 44100)
    assert num_samples <= 44100 or len(result.segments) <= num_samples // 441_000
    assert num_samples > 1 or result.bpm is None


@pytest.fixture
def kept(options: dict[str, Any], separation_repository: Path, tmp_path: Path) -> dict[str, Any]:
    options |= {"demix_model": "small", "demix_repository": separation_repository, "keep_byproducts": True}
    return {**options, "demix_dir": tmp_path / "demix", "spec_dir": tmp_path / "spec"}


def test_separation_in_memory_and_through_kept_files_gives_the_same_json(
    write_mix: Callable[[str], Path], kept: dict[str, Any], tmp_path: Path
) -> None:
    mix = write_mix("song.wav", 0.5)
    in_memory = analyze(mix, **{**kept, "keep_byproducts": False}).to_json()
    assert not (tmp_path / "demix").exists()
    making, using = (analyze(mix, timings_path=tmp_path / "t.jsonl", **kept).to_json() for _ in range(2))
    assert in_memory == making == using
    files = sorted((tmp_path / "demix" / "small" / "song").glob("*.wav"))
    assert [path.stem for path in files] == ["bass", "drums", "other", "vocals"]
    assert soundfile.info(files[0]).subtype == "PCM_16"
    assert np.load(tmp_path / "spec" / "song.npy").shape == (4, 50, 81)
    runs: dict[str, list[str]] = {}
    for line in read_timings(tmp_path / "t.jsonl"):
        if line.stage in ("demix", "spectrogram", "spec_load"):
            runs.setdefault(line.run_id, []).append(f"{line.stage}{' cached' if line.cached else ''}")
    assert list(runs.values()) == [["demix", "spectrogram"], ["demix cached", "spec_load cached"]]


def test_kept_stems_of_another_overlap_are_not_used(
    write_mix: Callable[[str], Path], kept: dict[str, Any], tmp_path: Path
) -> None:
    mix = write_mix("song.wav", 0.5)
    for overlap in (0.25, 0.25, 0.5):
        analyze(mix, timings_path=tmp_path / "t.jsonl", demix_overlap=overlap, **kept)
    lines = [line for line in read_timings(tmp_path / "t.jsonl") if line.stage == "demix"]
    assert [(line.cached, line.details.get("overlap")) for line in lines] == [
        (False, 0.25),
        (True, None),
        (False, 0.5),
    ]


def test_kept_stems_of_another_song_with_the_same_name_are_not_used(
    write_mix: Callable[[str], Path], kept: dict[str, Any], separation_repository: Path, tmp_path: Path
) -> None:
    bass = tmp_path / "demix" / "small" / "song" / "bass.wav"
    analyze(write_mix("x/song.wav", 0.3), **kept)
    analyze(write_mix("y/song.wav", 0.6), **kept)
    assert soundfile.info(bass).frames == int(0.6 * 44100)
    # A seed that differs makes other stems.
    before = bass.read_bytes()
    analyze(tmp_path / "y" / "song.wav", demix_seed=1, **kept)
    assert bass.read_bytes() != before
    # So does a model that was trained further, whatever its name.
    import torch

    own = tmp_path / "own"
    own.mkdir()
    package = torch.load(separation_repository / "small.th", weights_only=False)
    package["state"] = {name: values * 1.01 for name, values in package["state"].items()}
    torch.save(package, own / "small.th")
    before = bass.read_bytes()
    analyze(tmp_path / "y" / "song.wav", **{**kept, "demix_seed": 1, "demix_repository": own})
    assert bass.read_bytes() != before


def test_a_custom_spectrogram_backend_is_called_and_recorded(
    song: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_spectrogram.py").write_text(
        "import numpy as np\n"
        "def constant(stems, sample_rate, *, precision, device, return_native):\n"
        "    return np.full((len(stems), -(-stems.shape[1] // 441), 81), 0.5, np.float32)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    result = analyze(song, **{**options, "spec_backend": "my_spectrogram:constant"})
    choice = result.provenance["stages"]["spectrogram"]
    assert choice["backend"] == "my_spectrogram:constant"
    assert choice["reason"] == "backend 'my_spectrogram:constant' and device 'cpu' were asked for"
    assert result.beats != analyze(song, **options).beats


def test_provenance_says_what_ran_and_why(song: Path, options: dict[str, Any]) -> None:
    provenance = analyze(song, **options).provenance
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


@pytest.mark.parametrize("called_by", ["the main thread", "another thread", "another thread, track by track"])
def test_the_weights_are_read_in_a_thread_of_their_own_whichever_calls(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path, called_by: str
) -> None:
    folders, path = [write_stems("a"), write_stems("b")], tmp_path / "t.jsonl"
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        if called_by == "the main thread":
            analyze(folders, timings_path=path, jobs=1, **options)
        elif called_by == "another thread":
            pool.submit(analyze, folders, timings_path=path, jobs=1, **options).result()
        else:
            analyzer, timings = Analyzer(**options), Timings(path)
            for folder in folders:
                pool.submit(analyzer, folder, timings=timings).result()
    lines = read_timings(path)
    loads = [line for line in lines if line.stage == "model_load"]
    assert [(line.details["what"], line.backend) for line in loads] == [
        ("weights", "fused"),
        ("build", "fused"),
    ]
    assert [line.details["what"] for line in lines if line.thread != "main"] == ["weights"]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("model_load")]


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
            "functional_probs",
            "metrical_prep",
            "functional_local_maxima",
            "metrical_dbn",
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


@pytest.mark.parametrize(("library", "backend"), [("torch", "torch"), ("mlx", "mlx"), ("torch", "triton")])
def test_neighbours_hand_each_other_their_own_arrays(
    song: Path, small_model: str, library: str, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From spectrogram to network nothing goes through numpy; to the host come only the probabilities."""
    module = pytest.importorskip({"mlx": "mlx.core"}.get(library, library))
    if backend == "triton" and not module.cuda.is_available():
        pytest.skip("this machine has no CUDA")
    to_host, moved = model.to_host, []

    def watched(array: Any) -> np.ndarray:
        moved.append(tuple(array.shape))
        return to_host(array)

    monkeypatch.setattr(model, "to_host", watched)
    monkeypatch.setattr(analysis, "to_host", watched)
    timings = Timings()
    analyzer = Analyzer(model=small_model, nn_backend=backend, spec_backend=library)
    analyzer(song, timings=timings)
    assert moved == [(13, 500)]
    assert "transfer" not in {line.stage for line in timings.records}
    used = {line.stage: line.backend for line in timings.records if line.backend}
    assert (used["spectrogram"], used["nn"]) == (library, backend)


def test_a_move_between_libraries_is_a_stage(song: Path, small_model: str) -> None:
    pytest.importorskip("mlx.core")
    timings = Timings()
    Analyzer(model=small_model, nn_backend="fused", spec_backend="mlx")(song, timings=timings)
    [move] = [line for line in timings.records if line.stage == "transfer"]
    assert move.details == {"what": "spectrogram", "from": "mlx on mlx", "to": "fused on cpu"}


@pytest.mark.parametrize(
    ("statement", "and_not"),
    [
        ("import allin1_core; allin1_core.analyze, allin1_core.load_result, allin1_core.visualize", set()),
        ("from allin1_core.cli import make_parser; make_parser().format_help()", {"soundfile"}),
    ],
)
def test_importing_and_help_load_no_large_library(statement: str, and_not: set[str]) -> None:
    libraries = {"torch", "mlx", "madmom", "matplotlib"} | and_not
    code = f"{statement}; import sys; print({libraries} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize("what", ["read_stems", "read_audio"])
def test_a_file_that_grows_while_it_is_read_has_no_result(
    what: str,
    song: Path,
    write_mix: Callable[[str], Path],
    kept: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A download that is under way: its SHA-256 would be that of another content than was analysed."""
    path, grows = (song, song / "drums.wav") if what == "read_stems" else (write_mix("mix.wav"),) * 2
    read = getattr(reading, what)

    def read_while_it_grows(*arguments: Any) -> Any:
        found = read(*arguments)
        with grows.open("ab") as file:
            file.write(b"more")
        return found

    monkeypatch.setattr(reading, what, read_while_it_grows)
    with pytest.raises(AudioError, match=rf"{grows.name}: changed while it was read; expected .* complete"):
        analyze(path, out_dir=tmp_path / "out", **kept | {"keep_byproducts": False})
    assert not [*(tmp_path / "out").glob("*.json")]


def test_stems_are_read_into_memory_for_the_device_that_has_the_spectrogram(
    song: Path, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []
    given: list[np.ndarray] = []

    def allocator_for(device: str) -> Callable[..., np.ndarray]:
        def allocate(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
            given.append(np.empty(shape, dtype))
            return given[-1]

        devices.append(device)
        return allocate

    analyzer = Analyzer(**options)
    expected = analyzer(song)
    monkeypatch.setattr(session, "allocator_for", allocator_for)
    transform, taken = analyzer.session.log_spectrogram, []

    def implementation(stems: np.ndarray, *arguments: Any, **keywords: Any) -> Any:
        taken.append(stems)
        return transform.implementation(stems, *arguments, **keywords)

    analyzer.session.log_spectrogram = dataclasses.replace(transform, implementation=implementation)
    assert analyzer(song) == expected
    assert devices == [transform.choice.computed_on] == ["cpu"]
    assert len(given) == len(taken) == 1
    assert taken[0].__array_interface__["data"] == given[0].__array_interface__["data"]  # and no copy
