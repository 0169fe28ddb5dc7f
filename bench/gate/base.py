"""The base commit, built beside this tree: what the gate compares times and instructions with.

It is the last commit on this branch that accepted a baseline (`bench.report.baseline`), or the one that is named. Both
trees are laid out in folders whose paths are of equal length, since a process starts with its paths in memory, and
where its stack begins shows in its times.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Collection
from pathlib import Path

from bench.report.baseline import BASELINE
from parity.environment import KERNEL_SOURCES, SOURCES, source_digest

ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("allin1_core", "parity")


class BaseMissingError(Exception):
    """There is no commit to compare with here; says why."""


def _git(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise BaseMissingError("git is not installed") from error
    except subprocess.CalledProcessError as error:
        words = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise BaseMissingError(f"git {arguments[0]}: {' '.join(words) or error.returncode}") from error


def base_commit() -> str:
    """The commit that the committed baseline came with.

    Raises
    ------
    BaseMissingError
        If this is no clone, or one whose history was cut off, where the oldest commit seems to have brought all files.
    """
    if _git("rev-parse", "--is-shallow-repository").strip() == b"true":
        raise BaseMissingError("the clone is shallow: git fetch --unshallow")
    path = str(BASELINE.relative_to(ROOT))
    if _git("status", "--porcelain", "--", path):
        return "HEAD"  # being accepted just now
    found = _git("log", "-1", "--first-parent", "-m", "--format=%H", "--", path).decode().strip()
    if not found:
        raise BaseMissingError(f"no commit has {path}")
    return found


def lay_out(commit: str | None, folder: Path | None = None) -> tuple[Path, Path]:
    """This tree and a commit, built, in folders of their own.

    Kernels whose sources and flags are those of this tree are not built again.

    Parameters
    ----------
    commit : str, optional
        None stands for this tree once more.
    folder : Path, optional
        Emptied first; by default build/gate.

    Returns
    -------
    tree, base : Path

    Raises
    ------
    BaseMissingError
        If there is no such commit.
    RuntimeError
        If it cannot be built.
    """
    folder = folder or ROOT / "build" / "gate"
    shutil.rmtree(folder, ignore_errors=True)
    tree, base = folder / "tree", folder / "base"
    for package in _PACKAGES:
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    if commit is None:
        shutil.copytree(tree, base)
        return tree, base
    with tarfile.open(fileobj=io.BytesIO(_git("archive", commit))) as archive:
        archive.extractall(base, filter="data")
    if _are_equal(tree, base, KERNEL_SOURCES):
        for library in (*tree.rglob("*.so"), *tree.rglob("*.pyd")):
            shutil.copy(library, base / library.relative_to(tree))
        return tree, base
    command = [
        sys.executable,
        "-c",
        "from setuptools import setup; setup()",
        "build_ext",
        "--inplace",
        "--quiet",
    ]
    built = subprocess.run(command, cwd=base, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        raise RuntimeError(f"{commit} cannot be built: {built.stderr[-1000:]}")
    return tree, base


def is_the_same(tree: Path, base: Path) -> bool:
    """Whether two trees have the same sources of allin1_core and the same flags: then nothing can have changed."""
    return _are_equal(tree, base, SOURCES)


def _are_equal(tree: Path, base: Path, suffixes: Collection[str]) -> bool:
    """Whether two trees have the same flags, and the same sources of these kinds."""

    def state(folder: Path) -> tuple[object, str]:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        flags = project["tool"]["setuptools"]["ext-modules"]
        return flags, source_digest(folder / "allin1_core", suffixes)

    return state(tree) == state(base)
