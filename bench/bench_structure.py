"""The structure stage: the decoder's input from probabilities, local maxima, and sections."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.backends.devices import to_host
from allin1_core.dbn.metrical import decoder_input
from allin1_core.structure import LOCAL_MAXIMA_WINDOW, Segment, pick_boundaries, sections
from allin1_core.structure.numpy_backend import local_maxima as numpy_local_maxima
from allin1_core.timings.recorder import synchronize
from bench.measure.paired import own_times, paired_times
from bench.report.records import BenchRecord, BenchRecorder
from parity.agreement import compare
from parity.environment import usable_cores
from parity.implementations import Implementation, implementations, native
from parity.material import DEFAULT_TRACK, shared_folder
from parity.oracles import pipeline, structure
from parity.oracles.network_golden import read_golden

_FRAMES = 19_551
# A round takes a millisecond or less.
_ROUNDS = 51


@pytest.mark.parametrize(
    "implementation", [one for one in implementations("structure") if one.precision == "exact"], ids=str
)
def test_local_maxima(implementation: Implementation, record_bench: BenchRecorder, benchmark: Any) -> None:
    """The one part of the sections that touches every frame."""
    backend, device = implementation.backend, implementation.on("structure")
    choice = backends.choose("structure", backend, device=device)[1]
    probability = np.random.default_rng(0).random(_FRAMES, dtype=np.float32)
    values = native("structure", backend, probability, device)
    local_maxima = backends.get("structure", backend).load()
    times = paired_times(
        lambda: local_maxima(values, LOCAL_MAXIMA_WINDOW),
        lambda: structure.local_maxima(probability),
        rounds=_ROUNDS,
        warmup=3,
        synchronize=lambda output: synchronize(choice, output),
        benchmark=benchmark,
    )
    same = compare(to_host(times.candidate_output), times.reference_output).passed
    record_bench(
        BenchRecord(
            stage="structure",
            backend=backend,
            device=device,
            variant="local maxima",
            reference="sliding window (numpy)",
            track="made up",
            audio_seconds=_FRAMES / 100,
            threads=usable_cores(),
            **times.as_fields,
            agreement="bit-identical" if same else "differs",
            agrees=same,
            figures={"note": "held to be faster than its definition where `auto` runs it"},
            reference_threads=1,
        )
    )
    assert same
    if backends.choose("structure", device=device)[1].backend == backend:
        assert times.ratio.median > 1


def _probabilities() -> tuple[dict[str, np.ndarray], str]:
    """Of the default track as recorded, or without the shared reference material made up; and the track's name."""
    shared = shared_folder()
    if shared is not None:
        return read_golden(shared, DEFAULT_TRACK), DEFAULT_TRACK
    rng = np.random.default_rng(0)
    made_up = {name: rng.random(_FRAMES, dtype=np.float32) for name in ("beat", "downbeat", "segment")}
    return {**made_up, "label": rng.dirichlet(np.ones(10), _FRAMES).T.astype(np.float32)}, "made up"


def test_sections(record_bench: BenchRecorder, benchmark: Any) -> None:
    """From local maxima to labelled sections."""
    probabilities, track = _probabilities()
    maxima = numpy_local_maxima(probabilities["segment"], LOCAL_MAXIMA_WINDOW)

    def run() -> list[Segment]:
        return sections(pick_boundaries(maxima), probabilities["label"])

    shared = shared_folder()
    same, agreement = True, ""
    if shared is not None:
        golden = pipeline.read_golden(shared, track).segments
        same = pipeline.passed(structure.compare_sections(run(), golden, allowed=0))
        agreement = "golden's sections" if same else "other sections than the golden"
    seconds = own_times(run, rounds=_ROUNDS, benchmark=benchmark)
    record_bench(_own_row("structure", "sections of local maxima", track, seconds, agreement, same))
    assert same


def test_decoder_input(record_bench: BenchRecorder, benchmark: Any) -> None:
    """Two disjoint activations of two probabilities."""
    probabilities, track = _probabilities()
    beat, downbeat = probabilities["beat"], probabilities["downbeat"]
    seconds = own_times(lambda: decoder_input(beat, downbeat), rounds=_ROUNDS, benchmark=benchmark)
    compared = compare(decoder_input(beat, downbeat), pipeline.decoder_input(beat, downbeat), allowed=1e-7)
    agreement = f"{compared}, beside the published formula"
    record_bench(_own_row("decoder input", "", track, seconds, agreement, compared.passed))
    assert compared.passed


def _own_row(
    stage: str, variant: str, track: str, seconds: np.ndarray, agreement: str, agrees: bool
) -> BenchRecord:
    return BenchRecord(
        stage=stage,
        backend="numpy",
        variant=variant,
        track=track,
        audio_seconds=_FRAMES / 100,
        threads=1,
        seconds=seconds.tolist(),
        agreement=agreement,
        agrees=agrees,
    )
