"""Files of expectations that cannot be used are refused, by name, with what was expected."""

from __future__ import annotations

from pathlib import Path

import pytest
from timing_lines import record

from allin1_core.errors import TimingsError
from allin1_core.timings.comparison import compare


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return record(tmp_path / "before.jsonl")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[stage.spectrum]\nspeedup = [1, 2]\n", "no such stage; expected one of audio_read"),
        ("[stage.nn]\nspeedup = [2]\n", "expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = [3, 2]\n", "expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = [1, 2]\nbackends = []\n", "unknown key 'backends'"),
        ('[stage.nn]\nspeedup = [1, 2]\nbackend = "mlx"\n', "expected a list of names"),
        ("unchanged = 0.5\n", "expected a factor of at least 1"),
        ("unchanged = true\n", "unchanged is True; expected a factor"),
        ('unchanged = "2"\n', "unchanged is '2'; expected a factor"),
        ("unchanged = nan\n", "unchanged is nan; expected a factor"),
        ("unchanged = inf\n", "unchanged is inf; expected a factor"),
        (f"unchanged = 1{'0' * 400}\n", "expected a factor of at least 1"),
        (f"unchanged = 1{'0' * 5000}\n", "expected TOML"),
        ("stage = 3\n", "stage is 3; expected a table [stage.<name>]"),
        ("[[stage]]\nspeedup = [1, 2]\n", "expected a table [stage.<name>]"),
        ("[stage]\nnn = [1, 2]\n", "[stage.nn]: [1, 2]; expected a table with speedup"),
        ("[stage.nn]\n", "speedup is None; expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = 2\n", "speedup is 2; expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = [true, 2]\n", "expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = [nan, 2]\n", "expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = [1, nan]\n", "expected [lowest, highest]"),
        ('[stage.nn]\nspeedup = ["1", "2"]\n', "expected [lowest, highest]"),
        ("[stage.nn]\nspeedup = [1, 2]\ndevice = [1]\n", "expected a list of names"),
        (f"unchanged = {'[' * 5000}\n", "expected TOML"),
        ("not toml", "expected TOML"),
        (b"unchanged = 1.1 # caf\xe9\n", "expected TOML"),
        (b"\0" * (2 << 20), "expected at most"),
        (None, "is a folder; expected a file"),
    ],
)
def test_expectations_that_cannot_be_used(
    before: Path, tmp_path: Path, content: str | bytes | None, words: str
) -> None:
    path = tmp_path / "expectations.toml"
    if content is None:
        path.mkdir()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TimingsError, match=r"expectations\.toml") as raised:
        compare(before, before, path)
    assert words in str(raised.value)
