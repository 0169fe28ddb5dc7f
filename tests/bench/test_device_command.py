"""The command of ``make device``: its parts, each in a process, and what it writes whatever becomes of them."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.device import __main__ as device
from bench.device import report

ROWS: list[dict[str, Any]] = [{"name": "a row", "seconds": 0.2}, {"name": "another", "seconds": 0.04}]


def test_the_command_writes_whole_reports(tmp_path: Path) -> None:
    options = ["--device", "cpu", "--brief", "--part", "spectrogram", "--reports", str(tmp_path / "reports")]
    options += ["--commit", "0123abc"]
    assert device.main(options) == 0
    found = json.loads((tmp_path / "reports" / "device-cpu.json").read_text(encoding="utf-8"))
    assert (found["card"], found["commit"]) == ("CPU", "0123abc")
    assert list(found["parts"]) == ["spectrogram"]
    assert len(found["parts"]["spectrogram"]["rows"]) == 7
    assert all(verdict["passed"] for verdict in found["gate"])
    text = (tmp_path / "reports" / "device-cpu.md").read_text(encoding="utf-8")
    assert "| torch, exact |" in text
    assert sorted(path.name for path in (tmp_path / "reports").iterdir()) == [
        "device-cpu.json",
        "device-cpu.md",
    ]


def of_two_parts(reports: Path) -> tuple[int, dict[str, Any], str]:
    """Exit status, JSON and page of a run of two parts."""
    status = device.main(
        ["--device", "cpu", "--reports", str(reports), "--part", "network", "--part", "stems"]
    )
    page = reports / "device-cpu.md"
    found = json.loads((reports / "device-cpu.json").read_text(encoding="utf-8"))
    return status, found, page.read_text(encoding="utf-8") if page.exists() else ""


def measured(part: str, *_: Any) -> dict[str, Any]:
    return {"error": "", "rows": copy.deepcopy(ROWS), "seconds": 1.0}


def test_a_part_that_cannot_write_costs_that_part_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_part(part: str, *_: Any) -> dict[str, Any]:
        if part == "network":
            raise OSError(28, "No space left on device")
        return measured(part)

    monkeypatch.setattr(device, "run_part", run_part)
    status, found, page = of_two_parts(tmp_path)
    assert status == 1
    assert found["parts"]["network"]["error"] == "not begun: [Errno 28] No space left on device"
    assert found["parts"]["stems"]["rows"] == ROWS
    assert "**Failed:** not begun: [Errno 28] No space left on device" in page


@pytest.mark.parametrize(("what", "error"), [("draw", "no figure"), ("render", "no report")])
def test_a_page_that_cannot_be_made_costs_no_part(
    what: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, calls = getattr(report, what), []

    def fail_once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 1:
            raise ModuleNotFoundError("No module named 'matplotlib'")
        return make(*arguments)

    monkeypatch.setattr(device, "run_part", measured)
    monkeypatch.setattr(report, what, fail_once)
    status, found, page = of_two_parts(tmp_path)
    assert status == 1
    assert found["parts"]["network"]["error"] == f"{error}: ModuleNotFoundError: No module named 'matplotlib'"
    assert [len(result["rows"]) for result in found["parts"].values()] == [2, 2]
    assert f"**Failed:** {error}" in page
    assert "## From stems to a result" in page


def test_the_rows_are_kept_where_no_page_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "run_part", measured)
    monkeypatch.setattr(report, "render", lambda *_: 1 / 0)
    status, found, page = of_two_parts(tmp_path)
    assert (status, page) == (1, "")
    assert [len(result["rows"]) for result in found["parts"].values()] == [2, 2]


def test_what_was_measured_is_kept_when_the_run_is_ended(tmp_path: Path) -> None:
    """By SIGTERM, as a machine that is taken back sends it; and no part is left behind."""
    sleeping = tmp_path / "python"
    sleeping.write_text(
        """#!/bin/sh
        while [ "$1" != --into ]; do shift; done
        echo '[{"name": "the first"}]' > "$2"
        echo $$ > "$(dirname "$0")/pid"
        sleep 0.5  # until it is waited for
        kill -TERM $PPID
        exec sleep 600
        """,
        encoding="utf-8",
    )
    sleeping.chmod(0o700)
    script = f"import runpy, sys; sys.executable = {str(sleeping)!r}; sys.argv = ['device', *sys.argv[1:]]; "
    script += "runpy.run_module('bench.device', run_name='__main__')"
    options = ["--device", "cpu", "--reports", str(tmp_path), "--part", "network", "--part", "stems"]
    done = subprocess.run([sys.executable, "-c", script, *options], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    parts = json.loads((tmp_path / "device-cpu.json").read_text(encoding="utf-8"))["parts"]
    assert (parts["network"]["rows"], parts["network"]["error"]) == ([{"name": "the first"}], "interrupted")
    assert parts["stems"]["error"] == "not begun"
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_part_that_fails_costs_that_part_alone() -> None:
    result = device.run_part("spectrogram", "nowhere", brief=True, limit=60)
    assert result["rows"] == []
    assert "device 'nowhere': unknown" in result["error"]
    assert result["error"].endswith("(exit status 1)")


@pytest.mark.parametrize(
    ("ending", "error"),
    [("exec sleep 600", "not done within 1 s"), ("echo no memory; exit 3", "no memory (exit status 3)")],
)
def test_what_a_part_had_measured_is_kept_when_it_is_ended(
    ending: str, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nobody waits for a process that it left behind, which has its output open."""
    script = tmp_path / "python"
    script.write_text(
        f"""#!/bin/sh
        sleep 600 &
        while [ "$1" != --into ]; do shift; done
        echo '[{{"name": "the first"}}]' > "$2"
        {ending}
        """.lstrip(),
        encoding="utf-8",
    )
    script.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(script))
    result = device.run_part("network", "cpu", brief=False, limit=1.0)
    assert (result["rows"], result["error"]) == ([{"name": "the first"}], error)


def test_each_row_is_written_when_it_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def rows(*given: Any) -> Iterator[dict[str, object]]:
        assert given == ("network", "cuda", False, 330.0)
        yield {"name": "the first"}
        raise RuntimeError("out of memory")

    monkeypatch.setattr(device, "rows_of", rows)
    with pytest.raises(RuntimeError, match="out of memory"):
        device.main(["--part", "network", "--into", str(tmp_path / "rows.json")])
    assert json.loads((tmp_path / "rows.json").read_text(encoding="utf-8")) == [{"name": "the first"}]


def test_parts_that_there_is_no_time_for_are_not_begun(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device", "cpu", "--brief", "--limit", "3", "--reports", str(tmp_path)]
    assert device.main(options) == 1
    found = json.loads((tmp_path / "device-cpu.json").read_text(encoding="utf-8"))
    assert {part: result["error"] for part, result in found["parts"].items()} == dict.fromkeys(
        device._PARTS, "not begun: the 3 s were over"
    )
    assert "FAILED" in capsys.readouterr().err


def test_without_such_a_device_nothing_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    assert device.main(["--device", "cuda:99", "--reports", str(tmp_path / "reports")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("device: device 'cuda:99': ")
    assert "run it with a Python whose torch sees an NVIDIA card" in error
    assert not (tmp_path / "reports").exists()


def test_a_card_goes_by_the_name_that_torch_has_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a card is another card, and the environment may have put them into another order."""
    for name, output in (
        ("python", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"),
        ("nvidia-smi", "580.159.04\n580.159.04"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\nprintf '{output}\\n'\n", encoding="utf-8")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert device.card_of("cuda:1") == ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "580.159.04")
