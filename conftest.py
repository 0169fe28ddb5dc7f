"""What every test and benchmark shares: the reference material, the records of parity, and the report they end in."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from parity import implementations
from parity.material import shared_folder
from parity.oracles.madmom_import import OracleMissing
from parity.reports.records import NOT_REACHED, Outcome, ParityRecord, ParityRecorder

_PARITY = pytest.StashKey[ParityRecorder]()  # what the test that runs has recorded
_START = pytest.StashKey[float]()
_BY_FILE = pytest.StashKey[dict[str, list[ParityRecord]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-report", type=Path, help="folder that parity.md and its plots are written to")
    parser.addoption("--backend", help="run the cases against this implementation alone: module:function")
    parser.addoption(
        "--backend-stage", default="spectrogram", choices=implementations.STAGES, help="what it implements"
    )
    parser.addoption("--full", action="store_true", help="also run the long checks (marked `full`)")
    parser.addoption("--within", type=float, help="skip what is not begun after so many seconds")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_PARITY] = ParityRecorder()
    config.stash[_BY_FILE] = {}
    config.stash[_START] = time.monotonic()
    if config.getoption("--backend"):
        implementations.request(config.getoption("--backend-stage"), config.getoption("--backend"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    named = implementations.any_requested()

    def wanted(item: pytest.Item) -> bool:
        if item.get_closest_marker("full") and not config.getoption("--full"):
            return False
        # With --backend, only what runs that implementation: the lists of backends put its name into the test's.
        return named is None or f"[{named}" in item.nodeid or f"-{named}" in item.nodeid

    # A list of implementations or cases that has become empty would prove nothing, and pass.
    collapsed = [
        item.nodeid for item in items if "[NOTSET" in item.nodeid and item.nodeid.startswith("parity/")
    ]
    if collapsed and named is None:
        raise pytest.UsageError(f"no parameters: {', '.join(collapsed)}")
    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = [item for item in items if wanted(item)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, object, object]:
    within = item.config.getoption("--within")
    if within is not None and time.monotonic() - item.config.stash[_START] > within:
        pytest.skip(f"{NOT_REACHED} {within:.0f} s")
    return (yield from _skipped_without_oracle())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    return (yield from _skipped_without_oracle())


def _skipped_without_oracle() -> Generator[None, object, object]:
    """What needs madmom is skipped where madmom is not installed, for there is no wheel of it for every Python.

    Nothing is asked beforehand: the oracle itself says that it is missing, so that no test needs a mark and none is
    skipped where it is there.
    """
    try:
        return (yield)
    except OracleMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared reference material; the test is skipped, with this line, where it is absent."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("the shared reference material is not here (set ALLIN1_SHARED to its folder)")
    return folder


@pytest.fixture(scope="session")
def record_parity(request: pytest.FixtureRequest) -> ParityRecorder:
    """Call it with a `ParityRecord` for each comparison made."""
    return request.config.stash[_PARITY]


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    recorder = item.config.stash[_PARITY]
    item.config.stash[_BY_FILE].setdefault(item.location[0], []).extend(recorder.records)
    recorder.records.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of pytest-xdist recorded."""
    found = json.loads(getattr(node, "workeroutput", {}).get("parity", "{}"))
    for file, rows in found.items():
        node.config.stash[_BY_FILE].setdefault(file, []).extend(ParityRecord(**row) for row in rows)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    by_file = session.config.stash[_BY_FILE]
    if hasattr(session.config, "workeroutput"):
        rows = {file: [dataclasses.asdict(record) for record in by_file[file]] for file in by_file}
        session.config.workeroutput["parity"] = json.dumps(rows)
        return
    folder = session.config.getoption("--parity-report")
    # A session that was interrupted or never started has measured a part; the report stays as it was.
    if folder is None or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return
    from parity.reports import history, page
    from parity.reports.report import write_parity_report

    records = [record for file in sorted(by_file) for record in by_file[file]]
    outcome = Outcome.of(session.config)
    write_parity_report(records, folder, outcome, full=session.config.getoption("--full"))
    try:
        page.add(folder, "parity", history.parity_content(records, outcome))
    except ValueError as error:
        pytest.exit(str(error), returncode=1)
