"""Each option is the same in `analyze`, `Analyzer`, `Settings`, `Outputs`, the command line and its documentation."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import allin1_core
from allin1_core import Analyzer, analyze
from allin1_core.cli import make_parser
from allin1_core.errors import BackendError, OptionError, StemsError, WeightsError
from allin1_core.library import analyze_library
from allin1_core.settings import Outputs, Settings, parse_overwrite

# What `analyze` is asked that is neither what runs nor what is written.
OF_A_CALL = {"paths": inspect.Parameter.empty, "stems_dir": None, "anchors": None, "progress": None}
# What the command line has other defaults for, because it writes files, or other words.
OF_THE_COMMAND: dict[str, Any] = {"out_dir": "./struct", "overwrite": "", "exports": ""}
ONLY_THE_COMMAND = {"viz_dir", "sonif_dir", "quiet", "json", "debug", "help"}


def defaults(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: one.default for name, one in inspect.signature(function).parameters.items()}


def types(function: Callable[..., Any]) -> dict[str, Any]:
    return {name: one.annotation for name, one in inspect.signature(function).parameters.items()}


def documented(target: Any) -> list[str]:
    """Names in a docstring's list of parameters."""
    text = re.split(r"\n(?:Returns|Raises)\n", (inspect.getdoc(target) or "").partition("----------\n")[2])[0]
    lists = re.findall(r"^([a-z_0-9, ]+) : ", text, flags=re.MULTILINE)
    return [name for names in lists for name in names.split(", ")]


def command_line() -> dict[str, argparse.Action]:
    [subparsers] = [one for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction)]
    return {action.dest: action for action in subparsers.choices["analyze"]._actions}


def test_analyze_has_the_options_of_settings_and_outputs() -> None:
    assert defaults(analyze) == {**OF_A_CALL, **defaults(Outputs), **defaults(Settings)}
    shared = types(Outputs) | types(Settings)
    assert {name: kind for name, kind in types(analyze).items() if name in shared} == shared


def test_analyzer_has_those_of_settings() -> None:
    assert defaults(Analyzer) == defaults(Settings)
    assert types(Analyzer) == types(Settings)
    kinds = {one.kind for one in inspect.signature(Analyzer).parameters.values()}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


def test_each_option_is_documented_once_where_it_is_declared_and_where_it_is_given() -> None:
    for carrier in (Settings, Outputs):
        assert sorted(documented(carrier)) == sorted(field.name for field in dataclasses.fields(carrier))
    assert sorted(documented(analyze)) == sorted(inspect.signature(analyze).parameters)
    assert documented(Analyzer) == documented(Settings)
    for target in (analyze, Analyzer):
        assert "<options>" not in (target.__doc__ or "")
        assert "Folder with the network's weights; see `load_model`." in (target.__doc__ or "")


def test_the_command_line_has_every_option_with_its_default_and_a_help() -> None:
    actions = command_line()
    expected = defaults(analyze)
    assert set(actions) == expected.keys() - {"progress"} | ONLY_THE_COMMAND
    for name, default in (expected | OF_THE_COMMAND).items():
        if name not in ("paths", "progress"):
            assert actions[name].default == default, name
    assert [name for name, action in actions.items() if not action.help] == []


def test_the_command_line_passes_every_option_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: dict[str, Any] = {}
    monkeypatch.setattr("allin1_core.batch.analyze", lambda paths, **options: called.update(options) or [])
    given = "-o o --export beats,jams -a -e --confidences --array-dir r --viz-dir f --sonif-dir l"
    given += " --timings t -m m -d cpu --demix-overlap 0.1"
    given += " --overwrite json --weights-dir w --nn-backend torch --spec-backend numpy --precision fast"
    given += " --num-threads 3 --jobs 2 --stems-dir i --demix-backend demucs-infer --demix-model d --demix-repository p"
    given += " --demix-seed 5 --float-stems -k --demix-dir x --spec-dir y -q"
    given += " --min-bpm 90 --max-bpm 180 --beats-per-bar 3,5 --meter-weights 1,.5 --meter-change-prob .001"
    given += " --anchor 1.5:2 --anchor 3"
    assert allin1_core.cli.main(["analyze", "song", *given.split()]) == 0
    assert called == {
        "out_dir": "o",
        "exports": ["beats", "jams"],
        "include_activations": True,
        "include_embeddings": True,
        "include_confidences": True,
        "array_dir": "r",
        "visualize": "f",
        "sonify": "l",
        "timings_path": "t",
        "model": "m",
        "device": "cpu",
        "overwrite": "json",
        "weights_dir": "w",
        "nn_backend": "torch",
        "spec_backend": "numpy",
        "precision": "fast",
        "num_threads": 3,
        "jobs": 2,
        "stems_dir": "i",
        "demix_backend": "demucs-infer",
        "demix_model": "d",
        "demix_repository": "p",
        "demix_seed": 5,
        "demix_overlap": 0.1,
        "stems_as_int16": False,
        "keep_byproducts": True,
        "demix_dir": "x",
        "spec_dir": "y",
        "min_bpm": 90.0,
        "max_bpm": 180.0,
        "beats_per_bar": [3, 5],
        "meter_weights": [1.0, 0.5],
        "meter_change_prob": 0.001,
        "anchors": [(1.5, 2), (3.0, 0)],
        "progress": False,
    }
    assert allin1_core.cli.main(["analyze", "song", "-v"]) == 0
    assert (called["visualize"], called["sonify"]) == (True, False)


def test_folders_are_the_documented_ones_unless_others_are_named() -> None:
    outputs = Outputs(out_dir="out", visualize="viz/mine", sonify=True, demix_dir="stems", exports=["jams"])
    assert outputs.result_path("song") == Path("out/song.json")
    assert (outputs.figures_dir, outputs.sounds_dir) == (Path("viz/mine"), Path("./sonif"))
    assert (outputs.demix_dir, outputs.spec_dir) == (Path("stems"), Path("spec"))
    assert (Outputs().figures_dir, Outputs().result_path("song"), outputs.exports) == (None, None, ("jams",))


def test_options_that_cannot_be_are_refused_before_any_folder_is_made(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="exports: mp3 unknown; expected of beats, audacity, jams"):
        analyze([], out_dir=tmp_path / "out", exports=["mp3"])
    with pytest.raises(OptionError, match="overwrite: viz unknown; expected all, or of json, demix, spec"):
        analyze([], out_dir=tmp_path / "out", overwrite="viz")
    for overlap in (-0.1, 0.95, float("nan")):
        with pytest.raises(OptionError, match=rf"demix_overlap: {overlap}; expected from 0 to 0\.9"):
            analyze([], out_dir=tmp_path / "out", demix_overlap=overlap)
    for seed in (None, 1.5, float("nan")):
        with pytest.raises(OptionError, match=f"demix_seed: {seed}; expected a whole number"):
            analyze([], out_dir=tmp_path / "out", demix_seed=seed)  # type: ignore[arg-type]
    for number, name in itertools.product((0, -1, 1.5, float("nan"), "2"), ("num_threads", "jobs")):
        with pytest.raises(OptionError, match=f"{name}: {number!r}; expected at least 1. Leave it out"):
            analyze([], out_dir=tmp_path / "out", **{name: number})
    assert list(tmp_path.iterdir()) == []


def test_what_needs_an_output_folder_is_not_passed_over_without_one() -> None:
    for name, value in (("exports", ["midi"]), ("array_dir", "arrays")):
        with pytest.raises(OptionError, match=f"{name}: given without out_dir, .* expected out_dir, too"):
            analyze([], **{name: value})
    with pytest.raises(
        OptionError, match=r"array_dir: given without arrays .* \(--activ\) or .* \(--embed\)"
    ):
        analyze([], out_dir="out", array_dir="arrays")
    Outputs(out_dir="out", array_dir="arrays", include_embeddings=True)


@pytest.mark.parametrize("name", ["out_dir", "visualize", "sonify", "demix_dir", "spec_dir", "array_dir"])
def test_an_empty_path_is_not_the_working_folder(name: str) -> None:
    with pytest.raises(OptionError, match=f"{name}: found ''; expected a folder; '.' for the working folder"):
        analyze([], **{name: ""})
    with pytest.raises(OptionError, match="timings_path: found ''; expected a file"):
        Outputs(timings_path="")
    for name in ("demix_repository", "weights_dir"):
        with pytest.raises(OptionError, match=f"{name}: found ''; expected a folder; '.' for the working"):
            Settings(**{name: ""})
    for name in ("", "none"):
        with pytest.raises(StemsError, match=f"stems_dir: no folder at '{name}'; correct it or leave it out"):
            analyze([], stems_dir=name)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"demix_backend": "spleeter"},
            "separation backend 'spleeter': unknown; .* one of demucs-infer, demucs",
        ),
        ({"demix_backend": ""}, "separation backend '': unknown; .* one of demucs-infer, demucs-mlx"),
        (
            {"demix_model": "htdemucs_tf"},
            "demix_model: 'htdemucs_tf' unknown; expected one of .*htdemucs_ft, ",
        ),
        ({"demix_repository": "none"}, "none: no such folder; .* model htdemucs.safetensors or htdemucs.th"),
        ({"demix_repository": "models"}, "models: expected .* htdemucs.th; found models mine, other, small$"),
        ({"weights_dir": "none"}, "weights_dir: no folder at 'none'"),
        (
            {"model": "harmonix-fold8"},
            "weights 'harmonix-fold8': unknown; expected .*, harmonix-fold7, or the",
        ),
        ({"model": "none.npz"}, "none.npz: cannot be opened"),
        ({"nn_backend": "fussed"}, "network backend 'fussed': unknown; .* one of fused, triton"),
        ({"spec_backend": "nunpy"}, "spectrogram backend 'nunpy': unknown; .* one of fused, numpy"),
        ({"precision": "exacter"}, "precision 'exacter': unknown; expected one of exact, fast"),
        ({"demix_overlap": "0.25"}, "demix_overlap: '0.25'; expected from 0 to 0.9"),
        ({"demix_overlap": None}, "demix_overlap: None; expected from 0 to 0.9"),
        ({"device": "cdua"}, "device 'cdua': unknown; expected cpu, cuda"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_though_nothing_is_to_be_done_by_it(
    given: dict[str, Any],
    told: str,
    song: Path,
    options: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    for name in ("small-01234567.th", "other.safetensors", "mine.yaml", "htdemucs.txt"):
        Path("models", name).touch()
    for run in (analyze, analyze_library):
        with pytest.raises((BackendError, OptionError, WeightsError), match=told):
            run([song], "out", **options | given)  # stems: nothing is to be separated
    assert not list(Path("out").rglob("*.json"))
    analyze([song], "out", **options)
    with pytest.raises((BackendError, OptionError, WeightsError), match=told):
        analyze([song], "out", **options | given)


@pytest.mark.parametrize(
    ("given", "remade"),
    [
        (True, {"json", "demix", "spec"}),
        (False, set()),
        ("", set()),
        ("all", {"json", "demix", "spec"}),
        ("demix,all", {"json", "demix", "spec"}),
        (" spec , ", {"json", "spec"}),
        ("json", {"json"}),
    ],
)
def test_what_is_made_again(given: bool | str, remade: set[str]) -> None:
    """With byproducts the result, too."""
    assert parse_overwrite(given) == remade


def test_a_byproduct_that_is_not_known_is_not_made_again() -> None:
    with pytest.raises(
        OptionError, match="overwrite: stems, viz unknown; expected all, or of json, demix, sp"
    ):
        parse_overwrite("viz,json,stems")
    with pytest.raises(OptionError, match="overwrite: viz unknown"):
        parse_overwrite("all,viz")
    with pytest.raises(OptionError, match=r"overwrite: \['json'\]; expected True, False, or names such as"):
        parse_overwrite(["json"])  # type: ignore[arg-type]
