"""Results: their JSON, their arrays, their other formats, and files that are whole or not there."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jams
import numpy as np
import pytest

from allin1_core.errors import ResultError
from allin1_core.plotting import new_figure
from allin1_core.results.exports import audacity_text, beats_text, export, jams_text
from allin1_core.results.result import AnalysisResult, load_result
from allin1_core.structure import Segment
from parity.oracles.network_golden import TRACKS


@pytest.fixture
def result() -> AnalysisResult:
    return AnalysisResult(
        path=Path("/music/söng.v2.wav"),
        bpm=120,
        beats=[0.27, 0.77, 1.27],
        downbeats=[0.77],
        beat_positions=[4, 1, 2],
        segments=[Segment(0.0, 1.0, "intro"), Segment(1.0, 2.04, "verse")],
        provenance={"model": {"name": "harmonix-all"}},
        activations=activations(204),
        embeddings=np.random.default_rng(1).normal(size=(4, 204, 24, 8)).astype(np.float32),
    )


def activations(num_frames: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    scalars = {name: random.random(num_frames, np.float32) for name in ("beat", "downbeat", "segment")}
    return {**scalars, "label": random.dirichlet(np.ones(10), num_frames).T.astype(np.float32)}


def test_a_result_comes_back_as_it_was_saved(tmp_path: Path, result: AnalysisResult) -> None:
    path = result.save(tmp_path / "new" / "söng.v2.json")
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "söng.v2.activ.npz",
        "söng.v2.embed.npy",
        "söng.v2.json",
    ]
    loaded = load_result(path)
    assert loaded.to_json() == result.to_json()
    assert loaded.activations is not None
    assert result.activations is not None
    for name, values in result.activations.items():
        np.testing.assert_array_equal(loaded.activations[name], values)
    np.testing.assert_array_equal(loaded.embeddings, result.embeddings)
    bare = load_result(path, load_activations=False, load_embeddings=False)
    assert bare.activations is None
    assert bare.embeddings is None


def test_readers_of_all_in_one_find_what_they_look_for(result: AnalysisResult) -> None:
    """The way `allin1.typings.AnalysisResult.from_json` takes the file apart."""
    data = json.loads(result.to_json())
    assert list(data)[:6] == ["path", "bpm", "beats", "downbeats", "beat_positions", "segments"]
    assert data["path"] == "/music/söng.v2.wav"
    assert [Segment(**segment) for segment in data["segments"]] == result.segments
    assert data["beats"] == [0.27, 0.77, 1.27]
    assert '\n  "beats": [0.27, 0.77, 1.27],\n' in result.to_json()
    result.bpm = None
    assert json.loads(result.to_json())["bpm"] is None


@pytest.mark.parametrize("track", TRACKS)
def test_what_all_in_one_gives_is_right(tmp_path: Path, shared: Path, track: str) -> None:
    """Its own output of five tracks, in the files that it writes."""
    golden = json.loads((shared / "golden" / f"{track}.json").read_text())
    beats, positions = golden["beats"], golden["beat_positions"]
    fields = {"path": f"/music/{track}.mp3", "bpm": 120, "beats": beats, "beat_positions": positions}
    fields["downbeats"] = [time for time, position in zip(beats, positions, strict=True) if position == 1]
    names = ("start", "end", "label")
    fields["segments"] = [dict(zip(names, row, strict=True)) for row in golden["segments"]]
    (tmp_path / "a.json").write_text(json.dumps({**fields, "activation_fps": 100.0}, indent=2))
    (tmp_path / "a.activ.npz").write_bytes((shared / "golden" / f"{track}.npz").read_bytes())
    result = load_result(tmp_path / "a.json")
    assert result.beats == beats
    assert [[getattr(one, name) for name in names] for one in result.segments] == golden["segments"]
    assert result.activations is not None
    assert result.activations["beat"].shape == (round(result.segments[-1].end * 100),)
    assert beats_text(result).count("\n") == len(beats)


def test_fitted_tempo_and_its_spread_come_back(tmp_path: Path, result: AnalysisResult) -> None:
    result.tempo, result.tempo_spread = 119.97, 0.12
    loaded = load_result(result.save(tmp_path / "a.json"))
    assert (loaded.bpm, loaded.tempo, loaded.tempo_spread) == (120, 119.97, 0.12)
    document = jams.load(io.StringIO(jams_text(result)), validate=True, strict=True)
    assert document.search(namespace="tempo")[0].data[0].value == 119.97


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cannot be opened \(No such file"),
        ("", "cannot be read as JSON"),
        ("[]", "not the JSON of an analysis"),
        ('{"path": "a"}', "no field 'bpm'"),
        ("\x00\xff", "cannot be read as JSON"),
        (
            '{"path": "a", "bpm": null, "beats": [], "downbeats": [], "beat_positions": [], "segments": '
            '[{"start": 0, "end": 1, "label": "intro"}], "arrays_sha256": null}',
            "arrays_sha256: found something else; expected an object",
        ),
    ],
)
def test_files_that_are_no_results(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultError, match=f"a.json: {message}"):
        load_result(path)


def as_all_in_one_writes_it(path: Path) -> None:
    """Take from a JSON file what All-In-One does not write."""
    fields = json.loads(path.read_text())
    for name in ("tempo", "tempo_spread", "provenance", "arrays_sha256"):
        fields.pop(name, None)
    path.write_text(json.dumps(fields))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_json_names_its_arrays_by_sha256(tmp_path: Path, result: AnalysisResult) -> None:
    path = result.save(tmp_path / "a.json", array_dir=tmp_path / "arrays")
    expected = {
        "activations": sha256(tmp_path / "arrays" / "a.activ.npz"),
        "embeddings": sha256(tmp_path / "arrays" / "a.embed.npy"),
    }
    assert json.loads(path.read_text())["arrays_sha256"] == expected
    result.embeddings = None
    result.save(path, array_dir=tmp_path / "arrays")
    assert json.loads(path.read_text())["arrays_sha256"] == {"activations": expected["activations"]}
    result.activations = None
    assert result.save(tmp_path / "b.json").read_text() == result.to_json()


def test_equal_results_give_equal_files(tmp_path: Path, result: AnalysisResult) -> None:
    """Whatever the order of arrays in memory, and of values in an array."""
    one, other = tmp_path / "one", tmp_path / "other"
    result.save(one / "a.json")
    loaded = load_result(one / "a.json")
    assert loaded.activations is not None
    assert loaded.embeddings is not None
    loaded.activations = dict(reversed(loaded.activations.items()))
    loaded.embeddings = np.asfortranarray(loaded.embeddings)
    loaded.save(other / "a.json")
    for name in ("a.json", "a.activ.npz", "a.embed.npy"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name
    with zipfile.ZipFile(one / "a.activ.npz") as archive:
        assert {member.date_time for member in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert not any(member.flag_bits & 8 for member in archive.infolist())  # sizes stand in the headers


def test_saving_removes_arrays_that_are_not_the_results(tmp_path: Path, result: AnalysisResult) -> None:
    for array_dir in (None, tmp_path / "arrays"):
        path = result.save(tmp_path / "a.json", array_dir)
        (tmp_path / "other.activ.npz").touch()
        bare = load_result(path, load_activations=False, load_embeddings=False)
        bare.save(path, array_dir)
        assert load_result(path, array_dir=array_dir).activations is None
        assert sorted(file.name for file in tmp_path.rglob("a.*")) == ["a.json"]
        assert (tmp_path / "other.activ.npz").exists()


@pytest.mark.parametrize(("kind", "suffix"), [("activations", ".activ.npz"), ("embeddings", ".embed.npy")])
def test_arrays_of_another_result_are_not_loaded(
    tmp_path: Path, result: AnalysisResult, kind: str, suffix: str
) -> None:
    """Good files of the right shapes, but of another run."""
    result.save(tmp_path / "other" / "a.json")
    other = (tmp_path / "other" / f"a{suffix}").read_bytes()
    assert result.activations is not None
    assert result.embeddings is not None
    result.activations["beat"] = result.activations["beat"][::-1]
    result.embeddings = -result.embeddings
    path = result.save(tmp_path / "a.json")
    (tmp_path / f"a{suffix}").write_bytes(other)
    named = json.loads(path.read_text())["arrays_sha256"][kind][:12]
    with pytest.raises(
        ResultError,
        match=rf"a{suffix}: found SHA-256 .*that with SHA-256 {named}.*a\.json names.*--overwrite json",
    ):
        load_result(path)
    # They were not asked for, so nothing is wrong with what was.
    assert load_result(path, kind != "activations", kind != "embeddings").to_json() == result.to_json()
    setattr(result, kind, None)
    result.save(path)
    (tmp_path / f"a{suffix}").write_bytes(other)
    with pytest.raises(
        ResultError, match=rf"a{suffix}: found SHA-256 .*; expected none, which .*a\.json names"
    ):
        load_result(path)


def test_arrays_beside_results_of_all_in_one_and_of_versions_before(
    tmp_path: Path, result: AnalysisResult
) -> None:
    """All-In-One's JSON has neither provenance nor SHA-256; what has the one without the other is not trusted."""
    path = result.save(tmp_path / "a.json")
    path.write_text(result.to_json())
    with pytest.raises(ResultError, match=r"a\.activ\.npz: found SHA-256 .*; expected none"):
        load_result(path)
    as_all_in_one_writes_it(path)
    loaded = load_result(path)
    assert (loaded.bpm, loaded.tempo, loaded.tempo_spread) == (120, None, None)
    assert loaded.activations is not None
    assert result.activations is not None
    np.testing.assert_array_equal(loaded.activations["beat"], result.activations["beat"])
    np.testing.assert_array_equal(loaded.embeddings, result.embeddings)
    np.save(tmp_path / "a.embed.npy", result.embeddings[:, :-1])
    with pytest.raises(
        ResultError,
        match=r"a\.embed\.npy: embeddings: found float32 \(4, 203, 24, 8\); expected float32 \(4, 204, 24, 8\)",
    ):
        load_result(path)


@pytest.mark.parametrize("last", range(4))
def test_killed_while_a_result_replaces_another(
    tmp_path: Path, result: AnalysisResult, last: int, is_killed: Callable[[Callable[[], object], int], bool]
) -> None:
    """Killed when so many of the three files are in place: one of the two results, or an error that says so."""
    path = result.save(tmp_path / "a.json")
    old = result.to_json()
    assert result.activations is not None
    result.bpm, result.activations["beat"], result.embeddings = 99, np.zeros(204, np.float32), None
    result.embeddings = np.ones((4, 204, 24), np.float32)
    assert is_killed(lambda: result.save(path), last) == (last < 3)
    if last in (1, 2):
        with pytest.raises(ResultError, match=r"a\.activ\.npz: found SHA-256"):
            load_result(path)
    else:
        loaded = load_result(path)
        assert loaded.to_json() == (old if last == 0 else result.to_json())
        assert loaded.activations is not None
        assert loaded.activations["beat"].any() == (last == 0)


def test_beats_and_audacity_formats(result: AnalysisResult) -> None:
    assert beats_text(result) == "0.27\t4\n0.77\t1\n1.27\t2\n"
    assert audacity_text(result).splitlines() == [
        "0.000000\t1.000000\tintro",
        "1.000000\t2.040000\tverse",
        "0.270000\t0.270000\t4",
        "0.770000\t0.770000\t1",
        "1.270000\t1.270000\t2",
    ]


def test_jams_is_valid_and_holds_the_same(result: AnalysisResult) -> None:
    document = jams.load(io.StringIO(jams_text(result)), validate=True, strict=True)
    assert document.file_metadata.duration == 2.04
    beats = document.search(namespace="^beat$")[0].data
    assert [(row.time, row.value) for row in beats] == [(0.27, 4), (0.77, 1), (1.27, 2)]
    positions = document.search(namespace="beat_position")[0].data
    assert [(row.value["measure"], row.value["position"]) for row in positions] == [(0, 4), (1, 1), (1, 2)]
    segments = document.search(namespace="segment_open")[0].data
    assert [(row.time, row.duration, row.value) for row in segments] == [(0, 1, "intro"), (1, 1.04, "verse")]
    assert document.search(namespace="tempo")[0].data[0].value == 120


def test_jams_has_the_length_of_each_bar(result: AnalysisResult) -> None:
    """Of bars of 3 and 4 after an upbeat to the first; the last goes on as the one before."""
    result.beat_positions = [3, 1, 2, 3, 1, 2, 3, 4, 1, 2, 3, 1]
    result.beats = [round(0.1 * number, 1) for number in range(1, 13)]
    result.downbeats = [0.2, 0.5, 0.9, 1.2]
    document = jams.load(io.StringIO(jams_text(result)), validate=True, strict=True)
    rows = [row.value for row in document.search(namespace="beat_position")[0].data]
    assert [row["num_beats"] for row in rows] == [3] * 4 + [4] * 4 + [3] * 4
    assert [row["measure"] for row in rows] == [0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 4]


def test_formats_without_beats(result: AnalysisResult) -> None:
    empty = AnalysisResult(result.path, None, [], [], [], [Segment(0.0, 0.01, "start")])
    assert beats_text(empty) == ""
    assert jams.load(io.StringIO(jams_text(empty)), validate=True).search(namespace="tempo") == []


def test_results_are_compared_with_their_arrays(result: AnalysisResult, tmp_path: Path) -> None:
    """What carries arrays could not be compared: numpy's == has no single answer."""
    same = load_result(result.save(tmp_path / "a.json"))
    assert same == result
    assert "harmonix-all" not in repr(same)  # three screens of provenance
    beat = activations(204)["beat"]
    different: tuple[dict[str, Any], ...] = (
        {"activations": None},
        {"activations": activations(204) | {"beat": beat * np.float32(0.9)}},
        {"activations": activations(204) | {"beat": beat.astype(np.float64)}},
        {"embeddings": None},
        {"bpm": 1},
        {"provenance": {}},
    )
    for fields in different:
        assert dataclasses.replace(same, **fields) != result
    assert result != "a.json"


def test_formats_and_figures_whose_package_is_missing(
    result: AnalysisResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("jams", "matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ResultError, match=r"needs the package 'jams'; pip install 'allin1-core\[jams\]'"):
        jams_text(result)
    with pytest.raises(
        ResultError, match=r"need the package 'matplotlib'; pip install 'allin1-core\[figures\]'"
    ):
        new_figure(1, 1)


def test_unknown_format(tmp_path: Path, result: AnalysisResult) -> None:
    with pytest.raises(
        ResultError,
        match="format 'abc': unknown; expected one of beats, audacity, jams, midi, reaper, rekordbox",
    ):
        export(result, tmp_path / "a.abc", "abc")


def test_lists_are_no_arrays(tmp_path: Path, result: AnalysisResult) -> None:
    assert isinstance(result.activations, dict)
    for wrong, message in (
        ([1], "activations: found a value of type list; expected a dict of arrays"),
        (
            result.activations | {"beat": [0.5]},
            r"activations\['beat'\]: found a value of type list; expected fl",
        ),
    ):
        result.activations = wrong  # type: ignore[assignment]
        with pytest.raises(ResultError, match=message):
            result.save(tmp_path / "a.json")
