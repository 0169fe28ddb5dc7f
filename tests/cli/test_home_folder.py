"""``~`` stands for the home folder wherever a path is accepted."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import Analyzer, analyze, load_model, load_result, sonify, visualize
from allin1_core.audio.reading import read_audio
from allin1_core.cli import main
from allin1_core.errors import AudioError, WeightsError
from allin1_core.network.weights import FOLDER_VARIABLE, load_checkpoints
from allin1_core.results.exports import export
from allin1_core.results.page import write_page
from allin1_core.results.result import AnalysisResult
from allin1_core.self_test import probabilities
from allin1_core.separation import read_stems_folder
from allin1_core.structure import Segment
from allin1_core.timings.comparison import compare
from allin1_core.timings.expectations import read_expectations
from allin1_core.timings.recorder import Timings
from allin1_core.timings.schema import read_timings

ACTIVATIONS = {
    **{name: np.zeros(100, np.float32) for name in ("beat", "downbeat", "segment")},
    "label": np.zeros((10, 100), np.float32),
}
RESULT = AnalysisResult(
    Path("/song.wav"), None, [], [], [], [Segment(0.0, 1.0, "start")], activations=ACTIVATIONS
)


@dataclasses.dataclass
class Home:
    """A home folder, and what the pipeline is run with."""

    folder: Path
    options: dict[str, Any]

    def analyze(self, path: str = "~/stems/song", **options: Any) -> AnalysisResult:
        return analyze(path, **{**self.options, **options})

    def analyze_mix(self, **options: Any) -> AnalysisResult:
        separation = {"demix_model": "small", "demix_repository": "~/separation"}
        return self.analyze("~/mix.wav", **separation, **options)

    def command(self, *arguments: str) -> None:
        assert main([*arguments]) == 0


@pytest.fixture
def home(
    write_stems: Callable[..., Path],
    write_mix: Callable[..., Path],
    small_model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    separation_repository: Path,
) -> Home:
    """With a mix, stems, results, timings and models in it; the working folder is another one, which is empty."""
    folder = tmp_path / "home"
    write_stems("home/stems/song")
    write_mix("home/mix.wav", seconds=0.5)
    shutil.copytree(separation_repository, folder / "separation")
    for suffix in (".npz", ".yaml"):
        shutil.copy(Path(small_model).with_suffix(suffix), folder)
    beat, downbeat = probabilities()
    np.savez(folder / "a.npz", beat=beat, downbeat=downbeat)
    RESULT.save(folder / "song.json")
    with Timings(folder / "t.jsonl").stage("nn"):
        pass
    (folder / "e.toml").write_text("[stage.nn]\nspeedup = [0.5, 2.0]\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("HOME", str(folder))
    return Home(folder, {"device": "cpu", "spec_backend": "numpy", "model": small_model})


READS: dict[str, Callable[[Home], Any]] = {
    "path": lambda home: home.analyze(),
    "pattern": lambda home: analyze("~/stems/s*", **home.options)[0],
    "stems_dir": lambda home: home.analyze("song.wav", stems_dir="~/stems"),
    "model": lambda home: home.analyze(model="~/small.npz"),
    "demix_repository": lambda home: home.analyze_mix(),
    "Analyzer": lambda home: Analyzer(**home.options)("~/stems/song"),
    "Analyzer, stems_dir": lambda home: Analyzer(**home.options)("song.wav", stems_dir="~/stems"),
    "load_model": lambda home: load_model("~/small.npz", device="cpu"),
    "load_result": lambda home: load_result("~/song.json"),
    "load_result, array_dir": lambda home: load_result(home.folder / "song.json", array_dir="~").activations,
    "visualize, stems_dir": lambda home: visualize(RESULT, stems_dir="~/stems"),
    "sonify, stems_dir": lambda home: sonify(RESULT, stems_dir="~/stems"),
    "visualize, audio": lambda home: visualize(RESULT, audio="~/stems/song"),
    "sonify, audio": lambda home: sonify(RESULT, audio="~/mix.wav"),
    "read_audio": lambda home: read_audio("~/mix.wav"),
    "read_stems_folder": lambda home: read_stems_folder("~/stems/song"),
    "read_timings": lambda home: read_timings("~/t.jsonl"),
    "read_expectations": lambda home: read_expectations("~/e.toml")[1],
    "compare": lambda home: compare("~/t.jsonl", "~/t.jsonl", "~/e.toml"),
}


@pytest.mark.parametrize("what", READS)
def test_what_is_read(home: Home, what: str) -> None:
    assert READS[what](home) is not None
    assert list(Path().iterdir()) == []


WRITES: dict[str, tuple[Callable[[Home], Any], str]] = {
    "out_dir": (lambda home: home.analyze(out_dir="~/new"), "song.json"),
    "visualize": (lambda home: home.analyze(visualize="~/new"), "song.pdf"),
    "sonify": (lambda home: home.analyze(sonify="~/new"), "song.sonif.wav"),
    "array_dir": (
        lambda home: home.analyze(out_dir="../out", include_activations=True, array_dir="~/new"),
        "song.activ.npz",
    ),
    "timings_path": (lambda home: home.analyze(timings_path="~/new/t.jsonl"), "t.jsonl"),
    "spec_dir": (
        lambda home: home.analyze(keep_byproducts=True, spec_dir="~/new", demix_dir="../demix"),
        "song.npy",
    ),
    "demix_dir": (
        lambda home: home.analyze_mix(keep_byproducts=True, demix_dir="~/new", spec_dir="../spec"),
        "small/mix/bass.wav",
    ),
    "Timings": (lambda home: Timings("~/new/t.jsonl"), "t.jsonl"),
    "AnalysisResult.save": (lambda home: RESULT.save("~/new/a.json"), "a.json"),
    "AnalysisResult.save, array_dir": (
        lambda home: RESULT.save("../a.json", array_dir="~/new"),
        "a.activ.npz",
    ),
    "export": (lambda home: export(RESULT, "~/new/a.beats", "beats"), "a.beats"),
    "write_page": (lambda home: write_page(RESULT, "~/new/a.html"), "a.html"),
    "visualize, out_dir": (lambda home: visualize(home.analyze(), "~/new"), "song.pdf"),
    "sonify, out_dir": (lambda home: sonify(home.analyze(), "~/new"), "song.sonif.wav"),
    "decode": (lambda home: home.command("decode", "~/a.npz", "--out=~/new/a.beats"), "a.beats"),
    "spectrogram": (
        lambda home: home.command("spectrogram", "~/stems/song", "--out=~/new/a.npy"),
        "a.npy",
    ),
    "timings --plot": (lambda home: home.command("timings", "~/t.jsonl", "--plot=~/new/t.png"), "t.png"),
}


@pytest.mark.parametrize("what", WRITES)
def test_what_is_written(home: Home, what: str) -> None:
    write, name = WRITES[what]
    (home.folder / "new").mkdir()
    write(home)
    assert (home.folder / "new" / name).is_file()
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("named", ["weights_dir", FOLDER_VARIABLE])
def test_the_folder_of_the_weights(
    home: Home, named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = home.folder / "weights" / "harmonix-fold0.npz"
    weights.parent.mkdir()
    weights.write_bytes(b"no weights")
    given = "~/weights" if named == "weights_dir" else None
    if given is None:
        monkeypatch.setenv(FOLDER_VARIABLE, "~/weights")
    found = re.escape(str(weights))
    with pytest.raises(WeightsError, match=found):
        load_checkpoints("harmonix-fold0", weights_dir=given)
    with pytest.raises(WeightsError, match=found):
        home.analyze(model="harmonix-fold0", weights_dir=given)
    options = [f"--weights-dir={given}"] if given else []
    assert main(["doctor", "--no-self-test", "--json", *options]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["weights"]["harmonix-fold0"] == str(weights)
    assert report["self_test"] == []


def test_a_name_that_begins_so_and_is_no_home_folder(home: Home, tmp_path: Path) -> None:
    """There is no user of that name, so it is the name of a file; and one that a pattern finds is what it is."""
    with pytest.raises(AudioError, match=r"elsewhere/~no-such-user.wav: cannot be opened"):
        home.analyze("~no-such-user.wav")
    shutil.copytree(home.folder / "stems" / "song", "~")
    assert [result.path for result in analyze("*", **home.options)] == [tmp_path / "elsewhere" / "~"]
