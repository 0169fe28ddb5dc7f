"""Results: their JSON, their arrays, their other formats, and files that are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import jams
import numpy as np
import pytest

from allin1_core.errors import OutputError, ResultError
from allin1_core.files.writing import write_text, written_whole
from allin1_core.plotting import new_figure
from allin1_core.results.exports import audacity_text, beats_text, export, jams_text
from allin1_core.results.result import AnalysisResult, load_result
from allin1_core.structure import Segment


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


def test_arrays_go_to_their_own_folder_on_request(tmp_path: Path, result: AnalysisResult) -> None:
    path = result.save(tmp_path / "a.json", array_dir=tmp_path / "arrays")
    assert sorted(file.name for file in (tmp_path / "arrays").iterdir()) == ["a.activ.npz", "a.embed.npy"]
    assert load_result(path).activations is None
    assert load_result(path, array_dir=tmp_path / "arrays").activations is not None


def test_readers_of_all_in_one_find_what_they_look_for(result: AnalysisResult) -> None:
    """The way `allin1.typings.AnalysisResult.from_json` takes the file apart."""
    data = json.loads(result.to_json())
    assert list(data)[:6] == ["path", "bpm", "beats", "downbeats", "beat_positions", "segments"]
    assert data["path"] == "/music/söng.v2.wav"
    assert [Segment(**segment) for segment in data["segments"]] == result.segments
    assert data["beats"] == [0.27, 0.77, 1.27]


def test_number_lists_stand_on_one_line(result: AnalysisResult) -> None:
    assert '\n  "beats": [0.27, 0.77, 1.27],\n' in result.to_json()


def test_no_tempo_is_null(result: AnalysisResult) -> None:
    result.bpm = None
    assert json.loads(result.to_json())["bpm"] is None


def test_fitted_tempo_and_its_spread_come_back(tmp_path: Path, result: AnalysisResult) -> None:
    result.tempo, result.tempo_spread = 119.97, 0.12
    loaded = load_result(result.save(tmp_path / "a.json"))
    assert (loaded.bpm, loaded.tempo, loaded.tempo_spread) == (120, 119.97, 0.12)
    document = jams.load(io.StringIO(jams_text(result)), validate=True, strict=True)
    assert document.search(namespace="tempo")[0].data[0].value == 119.97


def test_results_of_all_in_one_itself_have_no_fitted_tempo(tmp_path: Path, result: AnalysisResult) -> None:
    fields = json.loads(result.to_json())
    for name in ("tempo", "tempo_spread", "provenance"):
        del fields[name]
    (tmp_path / "a.json").write_text(json.dumps(fields))
    loaded = load_result(tmp_path / "a.json", load_activations=False, load_embeddings=False)
    assert loaded.bpm == 120
    assert loaded.tempo is None
    assert loaded.tempo_spread is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
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
def test_files_that_are_no_results(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ResultError, match=f"a.json: {message}"):
        load_result(path)


def test_missing_result(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"a\.json: cannot be opened \(No such file"):
        load_result(tmp_path / "a.json")


def test_damaged_arrays(tmp_path: Path, result: AnalysisResult) -> None:
    path = result.save(tmp_path / "a.json")
    (tmp_path / "a.activ.npz").write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(
        ResultError, match=r"a\.activ\.npz: found SHA-256 [0-9a-f]{12}\.\.\.; expected that with"
    ):
        load_result(path)
    as_all_in_one_writes_it(path)
    with pytest.raises(ResultError, match=r"a\.activ\.npz: cannot be read as \.npz"):
        load_result(path)


def as_all_in_one_writes_it(path: Path) -> None:
    """Take from a JSON file what All-In-One does not write."""
    fields = json.loads(path.read_text())
    path.write_text(
        json.dumps({name: fields[name] for name in fields if name not in ("provenance", "arrays_sha256")})
    )


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
def test_killed_while_a_result_replaces_another(tmp_path: Path, result: AnalysisResult, last: int) -> None:
    """Killed when so many of the three files are in place: one of the two results, or an error that says so."""
    path = result.save(tmp_path / "a.json")
    old = result.to_json()
    assert result.activations is not None
    result.bpm, result.activations["beat"], result.embeddings = 99, np.zeros(204, np.float32), None
    result.embeddings = np.ones((4, 204, 24), np.float32)
    child = os.fork()
    if child == 0:
        replace, done = os.replace, []

        def replace_or_die(*paths: Path) -> None:
            if len(done) == last:
                os.kill(os.getpid(), signal.SIGKILL)
            done.append(replace(*paths))

        os.replace = replace_or_die  # type: ignore[assignment]
        result.save(path)
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]) == (last < 3)
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


def test_formats_without_beats(result: AnalysisResult) -> None:
    empty = AnalysisResult(result.path, None, [], [], [], [Segment(0.0, 0.01, "start")])
    assert beats_text(empty) == ""
    assert jams.load(io.StringIO(jams_text(empty)), validate=True).search(namespace="tempo") == []


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
    with pytest.raises(ResultError, match="format 'midi': unknown; expected one of beats, audacity, jams"):
        export(result, tmp_path / "a.mid", "midi")


def test_a_file_replaces_another_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("before")

    def write_half() -> None:
        with written_whole(path) as file:
            file.write(b"af")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        write_half()
    assert path.read_text() == "before"
    write_text(path, "after")
    assert path.read_text() == "after"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_files_get_ordinary_permissions(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    written = write_text(tmp_path / "written", "x")
    assert stat.S_IMODE(written.stat().st_mode) == stat.S_IMODE(ordinary.stat().st_mode)


def test_unwritable_folder(tmp_path: Path, result: AnalysisResult) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be used as an output folder"):
        result.save(tmp_path / "file" / "a.json")


def test_full_disk(tmp_path: Path, result: AnalysisResult, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(
        OutputError, match=r"cannot be written \(No space left on device\); nothing was left behind"
    ):
        result.save(tmp_path / "a.json")
    assert list(tmp_path.iterdir()) == []


def test_writing_that_the_system_stops_halfway(tmp_path: Path) -> None:
    """No mock: the process may write files of at most 1,000 bytes."""
    script = f"""
import resource, signal
from allin1_core.errors import OutputError
from allin1_core.plotting import new_figure
from allin1_core.files.writing import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_text({str(tmp_path / "small")!r}, "x" * 900)
try:
    write_text({str(tmp_path / "large")!r}, "x" * 100_000)
except OutputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "large: cannot be written (File too large); nothing was left behind" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["small"]
