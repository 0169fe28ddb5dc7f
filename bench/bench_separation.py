"""Separation of two segments by a network of the published shape, against demucs-infer's ``apply_model``.

Weights are random, on which the time does not depend. On a GPU, where segments are taken in batches, `make device`
measures it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.measure.load import pinned_threads
from bench.measure.paired import paired_times
from bench.report.records import BenchRecord, BenchRecorder
from parity.agreement import compare
from parity.environment import usable_cores
from parity.inputs import separation
from parity.material import default_track
from parity.oracles import demucs_apply

# Less than a segment of 7.8 s, but more than the 5.85 s after which the next one begins.
_SECONDS = 7
_SEED = 0


def test_two_segments(record_bench: BenchRecorder, rounds: int, benchmark: Any) -> None:
    pytest.importorskip("demucs_infer", reason="demucs-infer is not installed (extra 'demucs')")
    import torch

    from allin1_core import backends
    from allin1_core.separation.overlap_add import OverlapAdd

    track = default_track().lasting(_SECONDS)
    # The network's scale is set on a whole segment.
    network = separation.htdemucs(
        separation.stereo_mix(default_track().lasting(10).stems), **separation.PUBLISHED
    )
    mix = torch.from_numpy(separation.stereo_mix(track.stems))
    with pinned_threads(usable_cores()) as threads:
        separate = OverlapAdd(network, device="cpu", precision="exact")
        times = paired_times(
            lambda: separate(mix, seed=_SEED, overlap=0.25),
            lambda: demucs_apply.separate(network, mix, seed=_SEED, overlap=0.25, device="cpu"),
            rounds=min(rounds, 3),
            benchmark=benchmark,
        )
    found, expected = (np.asarray(output) for output in (times.candidate_output, times.reference_output))
    bound = backends.get("separation", "demucs-infer").bounds["exact"].anything
    agreement = compare(found, expected, allowed=bound)
    record_bench(
        BenchRecord(
            stage="separation",
            backend="demucs-infer",
            variant=f"htdemucs, {_SECONDS} s",
            reference=demucs_apply.ORACLE,
            track=track.name,
            audio_seconds=track.seconds,
            threads=threads,
            **times.as_fields,
            agreement=f"max {agreement.max_difference:.1e} of full scale, bound {bound:.0e}",
            agrees=agreement.passed,
            reference_threads=threads,
            figures={
                "note": "its networks as demucs-infer loads them, convolutions, linear layers, attention by oneDNN"
            },
        )
    )
    assert agreement.passed
