"""The definitions of continuous integration call the make targets that there are, and keep what those write."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))


def jobs(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))["jobs"]
    return found


def targets(steps: list[dict[str, Any]]) -> set[str]:
    return {name for step in steps for name in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_targets_exist_and_what_they_write_is_kept_even_where_they_fail(path: Path) -> None:
    for name, job in jobs(path).items():
        called = targets(job["steps"])
        assert called <= TARGETS, name
        if called:
            last = job["steps"][-1]
            assert last["uses"].startswith("actions/upload-artifact@"), name
            assert last["if"] == "always()", name
            assert last["with"]["path"].startswith("reports/"), name


def test_every_change_is_held_to_the_gate_and_every_week_to_the_long_checks() -> None:
    by_name = {path.stem: jobs(path) for path in WORKFLOWS}
    assert targets(by_name["ci"]["test"]["steps"]) == {"parity", "bench", "gate"}
    assert {target for job in by_name["weekly"].values() for target in targets(job["steps"])} == {
        "parity-full",
        "sanitize",
    }
    # YAML reads the key `on` as true.
    weekly = yaml.safe_load((ROOT / ".github" / "workflows" / "weekly.yml").read_text(encoding="utf-8"))
    assert weekly[True]["schedule"] == [{"cron": "17 3 * * 1"}]


def test_the_same_pythons_are_declared_tested_and_built_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = re.findall(r"Python :: (3\.\d+)", "\n".join(project["project"]["classifiers"]))
    tested = jobs(ROOT / ".github" / "workflows" / "ci.yml")["test"]["strategy"]["matrix"]["python"]
    built = project["tool"]["cibuildwheel"]["build"]
    assert declared == tested == ["3.11", "3.12", "3.13", "3.14"]
    assert built == [f"cp{python.replace('.', '')}-*" for python in declared]
    assert project["project"]["requires-python"] == f">={declared[0]}"
    assert project["tool"]["mypy"]["python_version"] == declared[0]


def test_both_processors_are_tested_and_built_for() -> None:
    runners = ["ubuntu-latest", "ubuntu-24.04-arm", "macos-15"]  # the last one is on Arm, with Metal
    for workflow, job in (("ci", "test"), ("wheels", "wheels")):
        definition = jobs(ROOT / ".github" / "workflows" / f"{workflow}.yml")[job]
        assert definition["strategy"]["matrix"]["runner"] == runners
    [builder] = [step["uses"] for step in definition["steps"] if "cibuildwheel" in step.get("uses", "")]
    major, minor = re.match(r"pypa/cibuildwheel@v(\d+)\.(\d+)", builder).groups()  # type: ignore[union-attr]
    assert (int(major), int(minor)) >= (3, 1)  # the first that builds for Python 3.14 unasked


def test_help_and_phony_name_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    [phony] = re.findall(r"^\.PHONY: (.*)", makefile, flags=re.MULTILINE)
    assert set(phony.split()) == TARGETS
    assert set(re.findall(r'@echo "make ([a-z-]+)', makefile)) == TARGETS - {"help"}


def test_what_check_leaves_out_is_there() -> None:
    """pytest says nothing of a name to deselect that no test has."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    [slow] = re.findall(r"^SLOW := (.*)", makefile, flags=re.MULTILINE)
    for beginning in slow.split():
        path, _, name = beginning.partition("::")
        found = list(ROOT.glob(f"{path}*"))
        assert found, beginning
        assert not name or f"\ndef {name}" in found[0].read_text(encoding="utf-8"), beginning


def test_every_module_that_a_target_runs_has_a_command() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    modules = re.findall(r"-m ((?:bench|parity)(?:\.\w+)*)[ \n;]", makefile)
    assert {"bench.gate", "bench.report.baseline", "parity.full.tracks"} <= set(modules)
    for module in modules:
        path = ROOT.joinpath(*module.split("."))
        source = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert 'if __name__ == "__main__":' in source.read_text(encoding="utf-8"), module
