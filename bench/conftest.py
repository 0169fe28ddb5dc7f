"""What every benchmark shares: the number of rounds, the records, and the report they end in."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.report.records import BenchRecorder
from bench.report.report import Session, write_bench_report
from bench.report.summary import history_content
from parity.reports import page
from parity.reports.records import Outcome

_BENCH = pytest.StashKey[BenchRecorder]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bench-report", type=Path, help="folder that bench.md and its plots are written to")
    parser.addoption("--rounds", type=int, default=7, help="counted rounds of each paired timing")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_BENCH] = BenchRecorder()


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, object]) -> None:
    """The kept JSON describes the machine, and does not name it."""
    machine_info.pop("node", None)


@pytest.fixture(scope="session")
def record_bench(request: pytest.FixtureRequest) -> BenchRecorder:
    """Call it with a `BenchRecord` for each timing taken."""
    return request.config.stash[_BENCH]


@pytest.fixture(scope="session")
def rounds(request: pytest.FixtureRequest) -> int:
    """Counted rounds of each paired timing."""
    return int(request.config.getoption("--rounds"))


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    folder = session.config.getoption("--bench-report")
    # A session that was interrupted or never started has measured a part; the report stays as it was.
    if folder is None or exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        return
    outcome = Outcome.of(session.config)
    measured = Session(session.config.getoption("--rounds"), outcome.failed, skipped=outcome.skipped)
    records = session.config.stash[_BENCH].records
    write_bench_report(records, folder, measured)
    try:
        page.add(folder, "bench", history_content(records))
    except ValueError as error:
        pytest.exit(str(error), returncode=1)
