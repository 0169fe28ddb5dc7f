"""The cores that thread pools go by, and their limit."""

from __future__ import annotations

import threading

import pytest

from allin1_core.threads import limited_cores, usable_cores


def test_a_limit_holds_inside_its_block_and_nests() -> None:
    cores = usable_cores()
    with limited_cores(10 * cores):
        assert usable_cores() == cores
        with limited_cores(1):
            assert usable_cores() == 1
        assert usable_cores() == cores
    assert usable_cores() == cores


def test_a_limit_is_the_callers_own() -> None:
    seen = []
    with limited_cores(1):
        other = threading.Thread(target=lambda: seen.append(usable_cores()))
        other.start()
        other.join()
    assert seen == [usable_cores()]


def test_a_limit_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="most: 0; expected at least 1 core"), limited_cores(0):
        pass
