"""The words and the rows that the summary of a benchmark session begins with."""

from __future__ import annotations

import dataclasses

import pytest

from bench.report.records import BenchRecord
from bench.report.summary import headline_rows, reference_in_words, seconds_in_words

FUSED = BenchRecord(
    stage="spectrogram", backend="fused", reference="madmom", track="song", audio_seconds=195.5, threads=2,
    seconds=[0.1] * 9, reference_seconds=[1.2] * 9, reference_threads=1,
)  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(1.04e-5, "0.0104 ms"), (0.0931, "93.1 ms"), (0.9994, "999 ms"), (0.9996, "1 s"), (19.61, "19.6 s")],
)
def test_times_have_their_unit(seconds: float, words: str) -> None:
    assert seconds_in_words(seconds) == words
    assert reference_in_words(dataclasses.replace(FUSED, reference_seconds=[seconds])) == f"{words}, 1 thread"


def test_what_is_handed_on_and_what_has_no_audio_is_no_headline() -> None:
    """However much faster it is."""
    faster = {"reference_seconds": [9.0] * 9}
    handed_on = dataclasses.replace(FUSED, backend="torch", figures={"computed_by": "fused"}, **faster)
    made = dataclasses.replace(FUSED, variant="construction", audio_seconds=0.0, **faster)
    assert headline_rows([handed_on, FUSED, made]) == [FUSED]
    assert headline_rows([handed_on, made]) == []
