"""The checks of the Triton kernels notice what is wrong: in an array, in a parameter, in a kernel's table."""

from __future__ import annotations

import numpy as np
import pytest

from parity import test_triton, triton_interpreter
from parity.meta_tests.faults import FAULTS
from parity.test_network import OUTPUTS
from parity.test_triton import _language_patched_once  # noqa: F401 (a fixture)

CASE = (5, 1, "exact")
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@pytest.mark.skipif(triton_interpreter.DEVICE != "cpu", reason="no interpreter: the kernels run on the GPU")
def test_an_interpreter_that_does_otherwise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel's run in which the language is not patched again at a call: there is nothing to save any more."""
    executor = triton_interpreter.interpreter.GridExecutor
    monkeypatch.setattr(executor, "__call__", lambda *_: None)
    with (
        pytest.raises(AssertionError, match="patches its language otherwise"),
        triton_interpreter.language_patched_once(),
    ):
        executor.__call__(object())
    monkeypatch.delattr(triton_interpreter.interpreter, "_patch_lang")
    with pytest.raises(AttributeError, match="_patch_lang"), triton_interpreter.language_patched_once():
        pass


def made_up(num_folds: int, num_tracks: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits and embeddings as a network gives them, of 5 frames."""
    random = np.random.default_rng(0)
    logits = random.standard_normal((num_tracks, 13, 5), dtype=np.float32)
    return logits, random.standard_normal((num_tracks, 4, 5, 24, num_folds), dtype=np.float32)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", [*OUTPUTS, "embeddings"])
def test_a_fault_fails_the_comparison_of_networks(
    name: str, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, embeddings = made_up(1, 1)
    right = {**test_triton.probabilities(logits[0]), "embeddings": embeddings[0, ..., 0]}
    monkeypatch.setattr(test_triton, "run", lambda *_: (logits, embeddings))
    monkeypatch.setattr(test_triton, "expected", lambda *_: right)
    test_triton.test_network(*CASE)
    monkeypatch.setattr(test_triton, "expected", lambda *_: {**right, name: FAULTS[fault](right[name])})
    with pytest.raises(AssertionError, match="a difference of inf"):
        test_triton.test_network(*CASE)


@pytest.mark.parametrize("array", ["logits", "embeddings"])
def test_another_order_of_folds_or_tracks_fails(array: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, embeddings = made_up(3, 2)

    def alone(seed: int, frames: int, num_blocks: int, track: int) -> dict[str, np.ndarray]:
        return {**test_triton.probabilities(logits[track]), "embeddings": embeddings[track, ..., seed - 1]}

    monkeypatch.setattr(test_triton, "expected", alone)
    monkeypatch.setattr(test_triton, "run", lambda *_: (logits, embeddings))
    test_triton.test_folds_and_tracks(monkeypatch)
    wrong = (logits[::-1], embeddings) if array == "logits" else (logits, embeddings[..., ::-1])
    monkeypatch.setattr(test_triton, "run", lambda *_: wrong)
    with pytest.raises(AssertionError, match="beat" if array == "logits" else "embeddings"):
        test_triton.test_folds_and_tracks(monkeypatch)


@pytest.mark.parametrize("parameter", ["timelayer.attention2.self.rpb", "instlayer.attention.self.rpb"])
def test_a_wrong_bias_in_the_kernels_fails(parameter: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = test_triton.run

    def with_another(checkpoints: list, *arguments: object) -> tuple[np.ndarray, np.ndarray]:
        bias = checkpoints[0].parameters[f"encoder.layers.0.{parameter}"]
        bias *= 1.01
        return run(checkpoints, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(test_triton, "run", with_another)
    test_triton.expected(1, 5, 1)
    with pytest.raises(AssertionError, match="a difference of"):
        test_triton.test_network(*CASE)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_the_comparison_of_attention(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_triton, "attention_of", test_triton.naive_attentions)
    test_triton.test_attention_along_time(1, 3)
    wrong = lambda *arguments: FAULTS[fault](test_triton.naive_attentions(*arguments))  # noqa: E731
    monkeypatch.setattr(test_triton, "attention_of", wrong)
    with pytest.raises(AssertionError, match="a difference of inf"):
        test_triton.test_attention_along_time(1, 3)


@pytest.mark.parametrize("other", [{"dilation": 2}, {"num_frames": 12}])
def test_another_window_fails(other: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = test_triton.attention_of

    def with_another(planes: np.ndarray, bias: np.ndarray, num_frames: int, dilation: int) -> np.ndarray:
        wrong = kernel(planes, bias, **{"num_frames": num_frames, "dilation": dilation, **other})
        return np.resize(wrong, (num_frames, 2, 2, 12))

    monkeypatch.setattr(test_triton, "attention_of", with_another)
    with pytest.raises(AssertionError, match="a difference of"):
        test_triton.test_attention_along_time(1, 3)
