"""The cores that thread pools go by, and their limit."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from allin1_core import log_spectrogram
from allin1_core.cores import limited_cores, usable_cores
from allin1_core.spectrogram import fused_backend, numpy_backend, threads


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


@pytest.mark.parametrize("backend", ["fused", "numpy"])
def test_the_spectrogram_has_as_many_threads_as_cores(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = []

    class Recorded(ThreadPoolExecutor):
        def __init__(self, most: int, **options: Any) -> None:
            pools.append(most)
            super().__init__(most, **options)

    monkeypatch.setattr(threads, "ThreadPoolExecutor", Recorded)
    assert fused_backend.thread_pool is numpy_backend.thread_pool is threads.thread_pool
    stems = np.zeros((2, 44_100), np.int16)
    log_spectrogram(stems, backend=backend)
    with limited_cores(1):
        log_spectrogram(stems, backend=backend)
    assert pools == [usable_cores(), 1]
