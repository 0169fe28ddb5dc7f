"""The checks of mixing, of reading, and of the doctor's stored values."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import self_test
from parity import test_audio_madmom
from parity.meta_tests.faults import FAULTS
from parity.reports.records import ParityRecorder


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_mix_fails(
    fault: str, dtype: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, record = test_audio_madmom.remix_to_mono, ParityRecorder()
    test_audio_madmom.test_mixing_to_mono(2, dtype, record)
    monkeypatch.setattr(test_audio_madmom, "remix_to_mono", lambda samples: FAULTS[fault](right(samples)))
    with pytest.raises(AssertionError, match="a difference of inf"):
        test_audio_madmom.test_mixing_to_mono(2, dtype, record)
    with pytest.raises(AssertionError, match="a difference of inf"):
        test_audio_madmom.test_reading_a_16_bit_file(2, 44100, tmp_path, record)
    assert [entry.passed for entry in record.records] == [True, False, False]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["spectrogram", "decoder"])
def test_a_fault_of_a_stored_value_fails(name: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stored: dict[str, Any] = dict(self_test.stored_values())
    stored[name] = FAULTS[fault](stored[name])
    monkeypatch.setattr(self_test, "stored_values", lambda: stored)
    record = ParityRecorder()
    with pytest.raises(AssertionError, match="a difference of inf"):
        test_audio_madmom.test_the_doctors_stored_values_are_madmoms(record)
    assert record.records[-1].passed is False
