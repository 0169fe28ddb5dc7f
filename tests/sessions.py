"""Sessions of pytest in processes of their own, forked from one that has imported what takes them longest."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# None of them starts threads, or asks which implementation the session is for.
_IMPORTED = (
    "pytest",
    "hypothesis",
    "pandas",
    "matplotlib.figure",
    "allin1_core.dbn",
    "parity.reports.report",
)


def run_session(arguments: list[str], modules: Path) -> subprocess.CompletedProcess[str]:
    """``python -m pytest`` with these arguments in the checkout, with a folder of modules beside its own."""
    server = _server()
    assert server.stdin is not None
    assert server.stdout is not None
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as output:
        print(json.dumps([arguments, str(modules), output.name]), file=server.stdin, flush=True)
        return subprocess.CompletedProcess(arguments, int(server.stdout.readline()), output.read())


@functools.cache
def _server() -> subprocess.Popen[str]:
    """It ends when this process does, and with it the pipe."""
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, __file__], cwd=ROOT, stdin=pipe, stdout=pipe, text=True)


def main() -> None:
    """Fork a process for each line of standard input, and print its exit status."""
    sys.path.insert(0, str(ROOT))
    for name in _IMPORTED:
        importlib.import_module(name)
    for plugin in importlib.metadata.entry_points(group="pytest11"):
        plugin.load()
    from parity.oracles.madmom_import import OracleMissing, import_madmom

    with contextlib.suppress(OracleMissing):
        import_madmom()
        importlib.import_module("madmom.features.downbeats")
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            sys.exit(_run(*json.loads(line)))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


def _run(arguments: list[str], modules: str, output: str) -> int:
    import pytest

    sys.path.insert(0, modules)
    for descriptor in (1, 2):
        os.dup2(os.open(output, os.O_WRONLY | os.O_APPEND), descriptor)
    return int(pytest.main([*arguments, "-p", "no:cacheprovider"]))


if __name__ == "__main__":
    main()
