"""The checks of the network and of its attention, in the suite, on random weights, and over many tracks."""

from __future__ import annotations

import copy
import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core.network import Configuration, NetworkOutput, build_model
from allin1_core.network.model import Logits
from parity import test_attention, test_network, test_network_random
from parity.full import track_agreement
from parity.implementations import Implementation
from parity.inputs.networks import random_checkpoint, random_spectrogram
from parity.meta_tests.faults import FAULTS
from parity.oracles import naive_attention, naive_network
from parity.oracles.natten_golden import AttentionCase
from parity.oracles.network_golden import OUTPUTS
from parity.reports.records import ParityRecorder

NOWHERE = Path("no shared material is read")
TRACK = "falcon69"
RIGHT, WRONG = Implementation("fused", "exact"), Implementation("torch", "exact", "cuda")


def made_up() -> NetworkOutput:
    """An output as a network gives it, of 30 frames."""
    random = np.random.default_rng(0)
    beat, downbeat, segment = random.random((3, 30), dtype=np.float32)
    label = random.random((10, 30), dtype=np.float32)
    logits = Logits(
        *(random.standard_normal(array.shape, dtype=np.float32) for array in (beat, beat, beat, label))
    )
    embeddings = random.standard_normal((4, 30, 24), dtype=np.float32)
    return NetworkOutput(beat, downbeat, segment, label, logits, embeddings)


def as_mapping(output: NetworkOutput) -> dict[str, np.ndarray]:
    return {name: getattr(output, name) for name in (*OUTPUTS, "embeddings")}


def spoilt(output: NetworkOutput, name: str, fault: str) -> NetworkOutput:
    """A copy with a fault in the array of that name, of the logits if it ends so."""
    base, _, kind = name.partition(" ")
    holder: Any = copy.copy(output.logits if kind == "logits" else output)
    # Their dataclasses are frozen.
    vars(holder)[base] = FAULTS[fault](getattr(holder, base))
    return dataclasses.replace(output, logits=holder) if kind == "logits" else holder


def assert_seen(check: Callable[[ParityRecorder], None]) -> None:
    """A parity test that a fault goes through must fail, and leave a record that says so."""
    record = ParityRecorder()
    with pytest.raises(AssertionError, match="a difference of inf"):
        check(record)
    assert [entry.passed for entry in record.records] == [False]
    measures = record.records[0].measures
    assert any(isinstance(value, float) and math.isinf(value) for value in measures.values()), measures


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_fault_fails_the_comparisons_with_recorded_probabilities_and_with_torch(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = made_up()
    monkeypatch.setattr("parity.oracles.network_golden.read_golden", lambda *_: as_mapping(right))
    outputs = {test_network.PLAIN: right, RIGHT: right, WRONG: spoilt(right, name, fault)}
    monkeypatch.setattr(test_network, "output", lambda _, implementation, __: outputs[implementation])
    tests = [
        lambda one, record: test_network.test_ensemble(one, TRACK, NOWHERE, record),
        lambda one, record: test_network.test_single_folds(one, "harmonix-fold0", NOWHERE, record),
    ]
    for test in tests:
        test(RIGHT, ParityRecorder())
        assert_seen(functools.partial(test, WRONG))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", [*OUTPUTS, *(f"{name} logits" for name in OUTPUTS), "embeddings"])
def test_a_fault_fails_the_comparison_with_the_peer(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = made_up()
    logits = {output: getattr(right.logits, output) for output in OUTPUTS}
    monkeypatch.setattr(test_network, "peer_output", lambda *_: {**logits, "embeddings": right.embeddings})
    monkeypatch.setattr("parity.oracles.allin1_infer.probabilities", lambda _: as_mapping(right))
    outputs = {RIGHT: right, WRONG: spoilt(right, name, fault)}
    monkeypatch.setattr(test_network, "output", lambda _, implementation, __: outputs[implementation])
    test_network.test_peer(RIGHT, "harmonix-fold0", NOWHERE, ParityRecorder())
    assert_seen(lambda record: test_network.test_peer(WRONG, "harmonix-fold0", NOWHERE, record))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", [*OUTPUTS, "embeddings"])
def test_a_fault_fails_the_comparison_on_random_weights(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = made_up()
    monkeypatch.setattr(test_network_random, "expected", lambda *_: as_mapping(right))
    outputs = {RIGHT: right, WRONG: spoilt(right, name, fault)}
    monkeypatch.setattr(test_network_random, "run", lambda implementation, *_: outputs[implementation])
    test_network_random.test_lengths(RIGHT, 30, ParityRecorder())
    assert_seen(lambda record: test_network_random.test_lengths(WRONG, 30, record))
    if name in OUTPUTS:
        monkeypatch.setattr(test_network_random, "run", lambda *_: outputs[WRONG])
        with pytest.raises(AssertionError, match="a difference of inf"):
            test_network_random.test_fused_seams(30)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", OUTPUTS)
def test_a_fault_fails_a_row_of_the_track_comparison(name: str, fault: str) -> None:
    right = made_up()
    assert track_agreement.compare_networks(right, right)["passed"]
    row = track_agreement.compare_networks(spoilt(right, name, fault), right)
    assert row["passed"] is False
    assert row["largest"] == row["by_output"][name] == math.inf


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_the_comparison_with_natten(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    queries, keys, values = random.standard_normal((3, 1, 2, 9, 12), dtype=np.float32)
    bias = random.standard_normal((2, 9), dtype=np.float32)
    right = naive_attention.naive_attention(queries, keys, values, bias, 5, 1)
    golden = AttentionCase(5, 1, queries, keys, values, bias, right)
    monkeypatch.setattr("parity.oracles.natten_golden.read_case", lambda *_: golden)
    outputs = {RIGHT: right, WRONG: FAULTS[fault](right)}
    monkeypatch.setattr(
        test_attention, "attention_of", lambda implementation: lambda *_, **__: outputs[implementation]
    )
    test_attention.test_natten("1d/0", RIGHT, NOWHERE, ParityRecorder())
    assert_seen(lambda record: test_attention.test_natten("1d/0", WRONG, NOWHERE, record))
    monkeypatch.setattr(test_attention, "_random_case", lambda *_: ((queries, keys, values, bias), right))
    test_attention.test_definition(None, 9, 5, 1, RIGHT)
    with pytest.raises(AssertionError, match="a difference of inf"):
        test_attention.test_definition(None, 9, 5, 1, WRONG)


@pytest.mark.parametrize(
    "changed", [{"dilation_factor": 3}, {"dilation_max": 4}, {"layer_norm_epsilon": 0.1}]
)
def test_a_changed_constant_of_the_network_fails(changed: dict[str, Any]) -> None:
    """The oracle has constants of its own, and asks the code under test for none."""
    few_blocks: dict[str, Any] = {"num_blocks": 4}
    checkpoint = random_checkpoint(1, Configuration(**few_blocks))
    reference = naive_network.run(checkpoint.parameters, random_spectrogram(60))
    for configuration, passes in ((few_blocks, True), ({**few_blocks, **changed}, False)):
        other = dataclasses.replace(checkpoint, configuration=Configuration(**configuration))
        found = build_model([other], backend="fused", device="cpu")(random_spectrogram(60)).to_numpy()
        agreements = test_network.differences(found, reference)
        assert all(agreement.passed for agreement in agreements.values()) is passes
