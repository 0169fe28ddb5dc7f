"""What every test and benchmark shares: the reference material, the records, and the reports they end in."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from bench.gate.baseline import BASELINE
from bench.report.progress import Progress, read_durations
from bench.report.records import BenchRecorder
from parity import implementations
from parity.material import shared_folder
from parity.oracles.madmom_import import OracleMissing
from parity.reports.records import Outcome, ParityRecorder

_PARITY = pytest.StashKey[ParityRecorder]()
_BENCH = pytest.StashKey[BenchRecorder]()
_PROGRESS = pytest.StashKey[Progress | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity-report", type=Path, help="folder that parity.md and its plots are written to")
    parser.addoption("--bench-report", type=Path, help="folder that bench.md and its plots are written to")
    parser.addoption("--rounds", type=int, default=7, help="counted rounds of each paired timing")
    parser.addoption("--backend", help="run the cases against this implementation alone: module:function")
    parser.addoption(
        "--backend-stage", default="spectrogram", choices=implementations.STAGES, help="what it implements"
    )
    parser.addoption("--full", action="store_true", help="also run the long checks (marked `full`)")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_PARITY] = ParityRecorder()
    config.stash[_BENCH] = BenchRecorder()
    config.stash[_PROGRESS] = None
    if config.getoption("--backend"):
        implementations.request(config.getoption("--backend-stage"), config.getoption("--backend"))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    named = implementations.any_requested()

    def wanted(item: pytest.Item) -> bool:
        if item.get_closest_marker("full") and not config.getoption("--full"):
            return False
        # With --backend, only what runs that implementation: the lists of backends put its name into the test's.
        return named is None or f"[{named}" in item.nodeid or f"-{named}" in item.nodeid

    config.hook.pytest_deselected(items=[item for item in items if not wanted(item)])
    items[:] = [item for item in items if wanted(item)]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Before a benchmark session: how long it will take."""
    folder = session.config.getoption("--bench-report")
    if folder is None or not session.items:
        return
    names = [item.nodeid for item in session.items]
    rounds = session.config.getoption("--rounds")
    progress = Progress(names, rounds, read_durations(folder / "bench.json", BASELINE))
    session.config.stash[_PROGRESS] = progress
    _say(session.config, f"\n{progress.announcement()}")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, object]) -> None:
    """The kept JSON describes the machine, and does not name it."""
    machine_info.pop("node", None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    progress = item.config.stash[_PROGRESS]
    if progress is None:
        return (yield)
    _say(item.config, f"\n{progress.line(item.nodeid)} ")
    result = yield
    progress.finished(item.nodeid)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup() -> Generator[None, object, object]:
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


def _say(config: pytest.Config, text: str) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        terminal.write(text, flush=True)


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


@pytest.fixture(scope="session")
def record_bench(request: pytest.FixtureRequest) -> BenchRecorder:
    """Call it with a `BenchRecord` for each timing taken."""
    return request.config.stash[_BENCH]


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int:
    """Counted rounds of each paired timing."""
    return int(request.config.getoption("--rounds"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    # A session that was interrupted or never started has measured a part; the reports stay as they were.
    if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return
    parity_folder = session.config.getoption("--parity-report")
    bench_folder = session.config.getoption("--bench-report")
    if parity_folder is not None:
        from parity.reports.report import write_parity_report

        records = session.config.stash[_PARITY].records
        full = session.config.getoption("--full")
        write_parity_report(records, parity_folder, _outcome(session.config), full=full)
    if bench_folder is not None:
        from bench.report.report import Session, write_bench_report

        progress = session.config.stash[_PROGRESS]
        outcome = _outcome(session.config)
        measured = Session(
            session.config.getoption("--rounds"),
            outcome.failed,
            progress.seconds if progress else {},
            skipped=outcome.skipped,
        )
        write_bench_report(session.config.stash[_BENCH].records, bench_folder, measured)


def _outcome(config: pytest.Config) -> Outcome:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    stats = terminal.stats if terminal else {}
    skipped = [report.longrepr[2].removeprefix("Skipped: ") for report in stats.get("skipped", ())]
    failed = [report.nodeid for report in (*stats.get("failed", ()), *stats.get("error", ()))]
    return Outcome(len(stats.get("passed", ())), tuple(failed), tuple(skipped))
