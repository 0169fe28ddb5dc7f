"""Results that are there: read if they are those of this run, refused with what differs if they are not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core import Analyzer, analyze
from allin1_core.batch.resuming import differences
from allin1_core.errors import AudioError, OutputError, ResultError, WeightsError
from allin1_core.results.result import AnalysisResult, load_result
from allin1_core.separation.track import Track, audio_digests, find_ready_stems
from allin1_core.session import Session
from allin1_core.settings import Settings


@pytest.fixture
def options(small_model: str, tmp_path: Path) -> dict[str, Any]:
    return {"model": small_model, "device": "cpu", "spec_backend": "numpy", "out_dir": tmp_path / "out"}


def made(tmp_path: Path) -> int:
    return (tmp_path / "out" / "song.json").stat().st_mtime_ns


def test_the_same_call_reads_what_is_there(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    song = write_stems("song")
    first = analyze(song, **options).to_json()
    stamp = made(tmp_path)
    assert analyze(song, **options).to_json() == first
    # What `auto` chooses gives the same beats and sections.
    assert analyze(song, **{**options, "spec_backend": "auto"}).to_json() == first
    # The content counts, not its date.
    (song / "bass.wav").touch()
    assert analyze(song, **options).to_json() == first
    assert made(tmp_path) == stamp


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"precision": "fast"}, r"made with precision 'exact', not 'fast'; choose another out_dir"),
        ({"spec_backend": "fused"}, "made with spec_backend 'numpy', not 'fused'"),
    ],
)
def test_other_settings_are_refused_and_overwritten(
    write_stems: Callable[..., Path],
    options: dict[str, Any],
    changed: dict[str, str],
    message: str,
    tmp_path: Path,
) -> None:
    song = write_stems("song")
    analyze(song, **options)
    stamp = made(tmp_path)
    with pytest.raises(OutputError, match=rf"song\.json: the result there was {message}.*--overwrite json"):
        analyze(song, **{**options, **changed})
    assert made(tmp_path) == stamp
    again = analyze(song, overwrite="json", **{**options, **changed})
    assert made(tmp_path) > stamp
    for name, value in changed.items():
        assert again.provenance["stages"]["spectrogram"][name.removeprefix("spec_")] == value


def test_a_result_of_other_weights_is_refused(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path, small_model: str
) -> None:
    song = write_stems("song")
    own = tmp_path / "own.npz"
    own.write_bytes(Path(small_model).read_bytes())
    own.with_suffix(".yaml").write_bytes(Path(small_model).with_suffix(".yaml").read_bytes())
    analyze(song, **{**options, "model": str(own)})
    with pytest.raises(OutputError, match=rf"made with model '{own}', not '{small_model}'"):
        analyze(song, **options)
    parameters = dict(np.load(own))
    name = sorted(parameters)[0]
    np.savez(own, **{**parameters, name: parameters[name] + np.float32(0.1)})
    with pytest.raises(OutputError, match=rf"made with other weights in {own}"):
        analyze(song, **{**options, "model": str(own)})
    own.unlink()
    with pytest.raises(WeightsError, match=r"own\.npz: cannot be opened"):
        analyze(song, **{**options, "model": str(own)})


def test_audio_that_has_changed_since_is_refused_and_analysed_again(
    write_stems: Callable[..., Path], options: dict[str, Any], stems: np.ndarray, tmp_path: Path
) -> None:
    song = write_stems("song")
    analyze(song, **options)
    soundfile.write(song / "drums.wav", np.roll(stems[1], 1), 44100)
    with pytest.raises(OutputError, match=r"made from other audio \(drums\.wav by SHA-256\)"):
        analyze(song, **options)
    again = analyze(song, overwrite="json", **options)
    track = Track(song, "song")
    assert again.provenance["audio_sha256"] == audio_digests(track, find_ready_stems(track, None))
    assert analyze(song, **options).to_json() == again.to_json()
    (song / "drums.wav").unlink()
    soundfile.write(song / "drums.flac", np.roll(stems[1], 1), 44100)
    with pytest.raises(OutputError, match=r"made from other audio \(drums\.flac, drums\.wav by SHA-256\)"):
        analyze(song, **options)


def array_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}


@pytest.mark.parametrize("array_dir", [None, "arrays"])
def test_arrays_of_a_run_before_are_never_those_of_this_one(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path, array_dir: str | None
) -> None:
    """Overwritten without arrays, then asked for with them: those of the first run are gone, or not taken."""
    song = write_stems("song")
    with_arrays = {**options, "include_activations": True, "include_embeddings": True}
    if array_dir is not None:
        with_arrays["array_dir"] = tmp_path / array_dir
    before = analyze(song, **with_arrays)
    soundfile.write(
        song / "drums.wav", np.random.default_rng(0).integers(-9000, 9000, 220_500, np.int16), 44100
    )
    analyze(song, overwrite="json", **options)
    found = analyze(song, **with_arrays)
    fresh = Analyzer(model=options["model"], device="cpu", spec_backend="numpy")(
        song, include_activations=True, include_embeddings=True
    )
    assert before.activations is not None
    assert found.activations is not None
    assert fresh.activations is not None
    assert not np.array_equal(before.activations["beat"], fresh.activations["beat"])
    for name, values in fresh.activations.items():
        np.testing.assert_array_equal(found.activations[name], values)
    np.testing.assert_array_equal(found.embeddings, fresh.embeddings)
    again = load_result(tmp_path / "out" / "song.json", array_dir=with_arrays.get("array_dir"))
    np.testing.assert_array_equal(again.embeddings, fresh.embeddings)


def replace_by_another(path: Path) -> None:
    """Good arrays of the same shapes, as a run leaves them that is killed before it writes the JSON."""
    if path.suffix == ".npy":
        np.save(path, -np.load(path))
    else:
        arrays = dict(np.load(path))
        np.savez(path, **{**arrays, "beat": arrays["beat"][::-1]})


@pytest.mark.parametrize("harm", [replace_by_another, Path.unlink, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("name", ["song.activ.npz", "song.embed.npy"])
@pytest.mark.parametrize("several", [False, True])
def test_a_result_whose_arrays_are_not_those_of_its_json_is_made_again(
    write_stems: Callable[..., Path],
    options: dict[str, Any],
    tmp_path: Path,
    harm: Callable[[Path], None],
    name: str,
    several: bool,
) -> None:
    song = write_stems("song")
    options |= {"include_activations": True, "include_embeddings": True}
    analyze(song, **options)
    expected, stamp = array_files(tmp_path / "out"), made(tmp_path)
    assert sorted(expected) == ["song.activ.npz", "song.embed.npy"]
    analyze([song] if several else song, **options)
    assert made(tmp_path) == stamp
    harm(tmp_path / "out" / name)
    analyze([song] if several else song, **options)
    assert made(tmp_path) > stamp
    assert array_files(tmp_path / "out") == expected
    assert load_result(tmp_path / "out" / "song.json").embeddings is not None


def test_arrays_left_beside_a_result_without_any_are_cleared_away(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    """What a run with arrays leaves that is killed before it writes its JSON, and is then run without them."""
    song = write_stems("song")
    analyze(song, include_activations=True, **options)
    left = array_files(tmp_path / "out")["song.activ.npz"]
    bare = analyze(song, overwrite="json", **options)
    assert array_files(tmp_path / "out") == {}
    (tmp_path / "out" / "song.activ.npz").write_bytes(left)
    assert analyze(song, **options).to_json() == bare.to_json()
    assert array_files(tmp_path / "out") == {}
    assert load_result(tmp_path / "out" / "song.json").activations is None


def test_arrays_of_results_that_do_not_name_them(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    """Of a version before: made again. Of All-In-One itself, whose JSON says nothing: taken."""
    song, path = write_stems("song"), tmp_path / "out" / "song.json"
    expected = analyze(song, include_activations=True, **options)
    fields = json.loads(path.read_text())
    del fields["arrays_sha256"]
    path.write_text(json.dumps(fields))
    analyze(song, include_activations=True, **options)
    assert sorted(json.loads(path.read_text())["arrays_sha256"]) == ["activations"]
    del fields["provenance"]
    path.write_text(json.dumps(fields))
    stamp = made(tmp_path)
    found = analyze(song, include_activations=True, **options)
    assert made(tmp_path) == stamp
    assert found.activations is not None
    assert expected.activations is not None
    np.testing.assert_array_equal(found.activations["beat"], expected.activations["beat"])
    np.savez(path.with_name("song.activ.npz"), **{**found.activations, "beat": np.zeros(3, np.float32)})
    with pytest.raises(ResultError, match=r"song\.activ\.npz: activations\['beat'\]: found float32 \(3,\)"):
        analyze(song, include_activations=True, **options)


def test_audio_that_is_gone_cannot_be_compared(
    write_stems: Callable[..., Path],
    write_mix: Callable[[str], Path],
    options: dict[str, Any],
    tmp_path: Path,
) -> None:
    write_stems("stems/song")
    mix = write_mix("song.wav")
    analyze(mix, stems_dir=tmp_path / "stems", **options)
    with pytest.raises(OutputError, match="made from ready stems, not by separation"):
        analyze(mix, **options)
    mix.unlink()
    with pytest.raises(AudioError, match=r"song\.wav: cannot be opened"):
        analyze(mix, **options)


def result(**provenance: Any) -> AnalysisResult:
    return AnalysisResult(Path("/a.wav"), None, [], [], [], [], provenance)


SEPARATED = {"backend": "demucs-infer", "model": "htdemucs", "seed": 0}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"demix_model": "mdx"}, ["with demix_model 'htdemucs', not 'mdx'"]),
        ({"demix_seed": 3}, ["with demix_seed 0, not 3"]),
        ({"stems_as_int16": False}, ["with stems_as_int16 True, not False"]),
        ({"demix_backend": "demucs-infer"}, []),
        ({"demix_backend": "demucs-mlx"}, ["with demix_backend 'demucs-infer', not 'demucs-mlx'"]),
        (
            {"demix_seed": 3, "model": "harmonix-fold0"},
            ["with model 'harmonix-all', not 'harmonix-fold0'", "with demix_seed 0, not 3"],
        ),
    ],
)
def test_how_stems_were_separated_is_compared(changed: dict[str, Any], expected: list[str]) -> None:
    session = Session(Settings(device="cpu", **changed))
    found = result(
        model={"name": "harmonix-all"},
        stems_as_int16=True,
        stages={"demix": SEPARATED},
        audio_sha256={"a": "1"},
    )
    assert differences(found, session, {"a": "1"}, is_separated=True) == expected
    # Ready stems do not depend on how others are separated.
    found.provenance["stages"]["demix"] = {"backend": "stems"}
    of_model = [text for text in expected if "with model" in text]
    assert differences(found, session, {"a": "1"}, is_separated=False) == of_model
    assert differences(found, session, {"a": "1"}, is_separated=True) == [
        "from ready stems, not by separation",
        *of_model,
    ]


def test_separation_weights_of_ones_own_are_compared_by_their_content(tmp_path: Path) -> None:
    for name in ("small.th", "small-1234abcd.th", "large.th"):
        (tmp_path / name).write_bytes(name.encode())

    def session() -> Session:
        return Session(Settings(device="cpu", demix_model="small", demix_repository=tmp_path))

    assert sorted(session().repository_sha256) == ["small-1234abcd.th", "small.th"]
    found = result(stages={"demix": {**SEPARATED, "model": "small", "repository_sha256": {}}})
    other_weights = ["with other separation weights of 'small' (demix_repository)"]
    assert differences(found, session(), {}, is_separated=True) == other_weights
    found.provenance["stages"]["demix"]["repository_sha256"] = session().repository_sha256
    assert differences(found, session(), {}, is_separated=True) == []
    (tmp_path / "large.th").write_bytes(b"another")
    assert differences(found, session(), {}, is_separated=True) == []
    (tmp_path / "small.th").write_bytes(b"trained further")
    assert differences(found, session(), {}, is_separated=True) == other_weights
    # A bag may be made of any model there.
    (tmp_path / "small.yaml").write_text("models: [large]")
    assert sorted(session().repository_sha256) == ["large.th", "small-1234abcd.th", "small.th", "small.yaml"]
    assert Session(Settings(device="cpu")).repository_sha256 == {}


def test_what_a_result_does_not_say_is_not_compared() -> None:
    session = Session(Settings(device="cpu", precision="fast", demix_seed=4))
    for provenance in ({}, {"stages": {}}, {"stages": {"nn": {}, "spectrogram": {}, "demix": {}}}):
        assert differences(result(**provenance), session, {"a": "1"}, is_separated=True) == []


@pytest.mark.parametrize(
    ("requested", "recorded", "same"),
    [
        ("auto", "numpy", True),
        ("auto", "torch", True),
        ("auto", "my_module:spectrogram", False),
        ("numpy", "numpy", True),
        ("numpy", "fused", False),
    ],
)
def test_backends_are_compared_where_their_results_may_differ(
    requested: str, recorded: str, same: bool
) -> None:
    session = Session(Settings(device="cpu", spec_backend=requested))
    found = result(stages={"spectrogram": {"backend": recorded}})
    assert (differences(found, session, {}, is_separated=True) == []) == same


def test_the_networks_backend_is_compared_too() -> None:
    found = result(stages={"nn": {"backend": "torch", "precision": "fast"}})
    assert differences(found, Session(Settings(device="cpu", nn_backend="fused")), {}, is_separated=True) == [
        "with nn_backend 'torch', not 'fused'",
        "with precision 'fast', not 'exact'",
    ]


def test_messages_do_not_grow_with_what_they_quote() -> None:
    found = result(
        model={"name": "x" * 10_000},
        audio_sha256={f"{index}{'y' * 1000}": "" for index in range(1000)},
        stages={"demix": SEPARATED},
    )
    text = str(differences(found, Session(Settings(device="cpu")), {"a": "1"}, is_separated=True))
    assert len(text) < 1000


@pytest.mark.parametrize(
    "provenance",
    [
        None,
        "x",
        {"model": "x"},
        {"model": None},
        {"model": {"name": "x", "weights": 3}},
        {"model": {"weights": ["x"]}},
        {"stages": []},
        {"stages": {"nn": "x"}},
        {"audio_sha256": ["x"]},
    ],
)
def test_a_result_with_provenance_of_another_kind_is_one_error(
    write_stems: Callable[..., Path], options: dict[str, Any], provenance: Any, tmp_path: Path
) -> None:
    song = write_stems("song")
    fields = {
        "path": str(song),
        "bpm": None,
        **{name: [] for name in ("beats", "downbeats", "beat_positions")},
        "segments": [{"start": 0.0, "end": 5.0, "label": "intro"}],
    }
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "song.json").write_text(json.dumps({**fields, "provenance": provenance}))
    with pytest.raises(ResultError, match=r"song\.json: provenance[a-z0-9_.\[\]]*: found .*; expected a"):
        analyze(song, **options)


def test_results_in_memory_say_what_audio_they_were_made_from(
    write_stems: Callable[..., Path], small_model: str
) -> None:
    song = write_stems("song")
    found = Analyzer(model=small_model, device="cpu")(song).provenance["audio_sha256"]
    assert sorted(found) == ["bass.wav", "drums.wav", "other.wav", "vocals.wav"]
    assert {len(sha256) for sha256 in found.values()} == {64}
