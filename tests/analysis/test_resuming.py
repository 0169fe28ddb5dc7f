"""Results that are there: read if they are those of this run, refused with what differs if they are not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from allin1_core import analyze
from allin1_core.batch.resuming import differences
from allin1_core.errors import AudioError, OutputError, ResultError, WeightsError
from allin1_core.results.result import AnalysisResult, load_result
from allin1_core.separation.track import AudioFiles, Track
from allin1_core.session import Session
from allin1_core.settings import Settings
from allin1_core.timings.schema import read_timings


@dataclasses.dataclass
class Run:
    """Analyses of one song into one folder; `made` is when its JSON was."""

    song: Path
    options: dict[str, Any]
    out: Path

    def __call__(self, **changed: Any) -> AnalysisResult:
        return analyze(self.song, **{**self.options, **changed})

    @property
    def made(self) -> int:
        return (self.out / "song.json").stat().st_mtime_ns


@pytest.fixture
def run(song: Path, options: dict[str, Any], tmp_path: Path) -> Run:
    return Run(song, {**options, "out_dir": tmp_path / "out"}, tmp_path / "out")


def test_the_same_call_reads_what_is_there(run: Run, tmp_path: Path) -> None:
    first = run().to_json()
    stamp = run.made
    assert run().to_json() == first
    # What `auto` chooses gives the same beats and sections.
    assert run(spec_backend="auto").to_json() == first
    # The content counts, not its date.
    (run.song / "bass.wav").touch()
    assert run().to_json() == first
    # Of several tracks only those are analysed that are not there.
    (tmp_path / "other").symlink_to(run.song)
    results = analyze([tmp_path / "other", run.song], timings_path=tmp_path / "t.jsonl", **run.options)
    assert [result.path.name for result in results] == ["other", "song"]
    assert {line.track for line in read_timings(tmp_path / "t.jsonl")} == {None, "other"}
    assert run.made == stamp
    assert run(overwrite=True).to_json() == first
    assert run.made > stamp


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"precision": "fast"}, r"made with precision 'exact', not 'fast'; choose another out_dir"),
        ({"spec_backend": "fused"}, "made with spec_backend 'numpy', not 'fused'"),
    ],
)
def test_other_settings_are_refused_and_overwritten(run: Run, changed: dict[str, str], message: str) -> None:
    run()
    stamp = run.made
    with pytest.raises(OutputError, match=rf"song\.json: the result there was {message}.*--overwrite json"):
        run(**changed)
    assert run.made == stamp
    again = run(overwrite="json", **changed)
    assert run.made > stamp
    for name, value in changed.items():
        assert again.provenance["stages"]["spectrogram"][name.removeprefix("spec_")] == value


def test_a_result_of_other_weights_is_refused(
    run: Run, tmp_path: Path, small_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = tmp_path / f"{'own' * 40}.npz"  # longer than what is shown of other values
    own.write_bytes(Path(small_model).read_bytes())
    own.with_suffix(".yaml").write_bytes(Path(small_model).with_suffix(".yaml").read_bytes())
    run(model=str(own))
    with pytest.raises(OutputError, match=rf"made with model '{own}', not '{small_model}'"):
        run()
    parameters = dict(np.load(own))
    name = sorted(parameters)[0]
    np.savez(own, **{**parameters, name: parameters[name] + np.float32(0.1)})
    with pytest.raises(OutputError, match=rf"made with other weights in {own}"):
        run(model=str(own))
    # By the path as a shell would write it.
    monkeypatch.setenv("HOME", str(tmp_path))
    run(model=f"~/{own.name}", overwrite=True)
    with pytest.raises(OutputError, match=rf"made with model '~/{own.name}', not '{own}'"):
        run(model=str(own))
    run(model=f"~/{own.name}")
    run(model=str(own), overwrite=True)
    own.unlink()
    with pytest.raises(WeightsError, match=r"own\.npz: cannot be opened"):
        run(model=str(own))


def test_audio_that_has_changed_since_is_refused_and_analysed_again(run: Run, stems: np.ndarray) -> None:
    run()
    soundfile.write(run.song / "drums.wav", np.roll(stems[1], 1), 44100)
    with pytest.raises(OutputError, match=r"made from other audio \(drums\.wav by SHA-256\)"):
        run()
    again = run(overwrite="json")
    assert again.provenance["audio_sha256"] == AudioFiles(Track(run.song, "song"), None).digests
    assert run().to_json() == again.to_json()
    (run.song / "drums.wav").unlink()
    soundfile.write(run.song / "drums.flac", np.roll(stems[1], 1), 44100)
    with pytest.raises(OutputError, match=r"made from other audio \(drums\.flac, drums\.wav by SHA-256\)"):
        run()


def array_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}


@pytest.mark.parametrize("array_dir", [None, "arrays"])
def test_arrays_of_a_run_before_are_never_those_of_this_one(
    run: Run, tmp_path: Path, array_dir: str | None
) -> None:
    """Overwritten without arrays, then asked for with them: those of the first run are gone, or not taken."""
    arrays = {"include_activations": True, "include_embeddings": True}
    folder = None if array_dir is None else tmp_path / array_dir
    before = run(array_dir=folder, **arrays)
    noise = np.random.default_rng(0).integers(-9000, 9000, 220_500, np.int16)
    soundfile.write(run.song / "drums.wav", noise, 44100)
    run(overwrite="json")
    found, fresh = run(array_dir=folder, **arrays), run(out_dir=None, **arrays)
    assert before.activations is not None
    assert found.activations is not None
    assert fresh.activations is not None
    assert not np.array_equal(before.activations["beat"], fresh.activations["beat"])
    for name, values in fresh.activations.items():
        np.testing.assert_array_equal(found.activations[name], values)
    np.testing.assert_array_equal(found.embeddings, fresh.embeddings)
    again = load_result(run.out / "song.json", array_dir=folder)
    np.testing.assert_array_equal(again.embeddings, fresh.embeddings)


def test_what_is_asked_for_later_is_made_once_and_nothing_else_is_read(run: Run) -> None:
    assert run(include_activations=True).activations is not None
    assert run().activations is None
    assert run(include_confidences=True).confidences is not None
    stamp = run.made
    assert run(include_confidences=True).confidences is not None
    assert run.made == stamp


def replace_by_another(path: Path) -> None:
    """Good arrays of the same shapes, as a run leaves them that is killed before it writes the JSON."""
    if path.suffix == ".npy":
        np.save(path, -np.load(path))
    else:
        arrays = dict(np.load(path))
        np.savez(path, **{**arrays, "beat": arrays["beat"][::-1]})


@pytest.mark.parametrize("several", [False, True])
def test_a_result_whose_arrays_are_not_those_of_its_json_is_made_again(run: Run, several: bool) -> None:
    paths = [run.song] if several else run.song
    run.options |= {"include_activations": True, "include_embeddings": True}
    run()
    expected, stamp = array_files(run.out), run.made
    assert sorted(expected) == ["song.activ.npz", "song.embed.npy"]
    analyze(paths, **run.options)
    assert run.made == stamp
    for harm in (replace_by_another, Path.unlink, lambda path: path.write_bytes(b"")):
        for name in expected:
            harm(run.out / name)
            analyze(paths, **run.options)
            assert run.made > stamp
            assert array_files(run.out) == expected
            stamp = run.made
    assert load_result(run.out / "song.json").embeddings is not None


def test_arrays_left_beside_a_result_without_any_are_cleared_away(run: Run) -> None:
    """What a run with arrays leaves that is killed before it writes its JSON, and is then run without them."""
    run(include_activations=True)
    left = array_files(run.out)["song.activ.npz"]
    bare = run(overwrite="json")
    assert array_files(run.out) == {}
    (run.out / "song.activ.npz").write_bytes(left)
    assert run().to_json() == bare.to_json()
    assert array_files(run.out) == {}
    assert load_result(run.out / "song.json").activations is None


def test_arrays_of_results_that_do_not_name_them(run: Run) -> None:
    """Of a version before: made again. Of All-In-One itself, whose JSON says nothing: taken."""
    path = run.out / "song.json"
    expected = run(include_activations=True)
    fields = json.loads(path.read_text())
    del fields["arrays_sha256"]
    path.write_text(json.dumps(fields))
    run(include_activations=True)
    assert sorted(json.loads(path.read_text())["arrays_sha256"]) == ["activations"]
    del fields["provenance"]
    path.write_text(json.dumps(fields))
    stamp = run.made
    found = run(include_activations=True)
    assert run.made == stamp
    assert found.activations is not None
    assert expected.activations is not None
    np.testing.assert_array_equal(found.activations["beat"], expected.activations["beat"])
    np.savez(path.with_name("song.activ.npz"), **{**found.activations, "beat": np.zeros(3, np.float32)})
    with pytest.raises(ResultError, match=r"song\.activ\.npz: activations\['beat'\]: found float32 \(3,\)"):
        run(include_activations=True)


def test_audio_that_is_gone_cannot_be_compared(
    run: Run, write_stems: Callable[..., Path], write_mix: Callable[[str], Path], tmp_path: Path
) -> None:
    write_stems("stems/song")
    mix = write_mix("song.wav")
    analyze(mix, stems_dir=tmp_path / "stems", **run.options)
    with pytest.raises(OutputError, match="made from ready stems, not by separation"):
        analyze(mix, **run.options)
    mix.unlink()
    with pytest.raises(AudioError, match=r"song\.wav: cannot be opened"):
        analyze(mix, **run.options)


def result(**provenance: Any) -> AnalysisResult:
    return AnalysisResult(Path("/a.wav"), None, [], [], [], [], provenance)


SEPARATED = {"backend": "demucs-infer", "model": "htdemucs", "seed": 0, "overlap": 0.25}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, []),
        ({"demix_model": "mdx"}, ["with demix_model 'htdemucs', not 'mdx'"]),
        ({"demix_seed": 3}, ["with demix_seed 0, not 3"]),
        ({"demix_overlap": 0.5}, ["with demix_overlap 0.25, not 0.5"]),
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
    for name in ("small.th", "small-1234abcd.th", "small_ft.th", "smaller-1234abcd.th", "large.th"):
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
    assert sorted(session().repository_sha256) == [
        "large.th",
        "small-1234abcd.th",
        "small.th",
        "small.yaml",
        "small_ft.th",
        "smaller-1234abcd.th",
    ]
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
