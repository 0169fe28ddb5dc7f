"""Calling the network: what goes in, what comes out, what is refused. Random weights; needs no downloads."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest

import allin1_core
from allin1_core.errors import BackendError, OptionError, UnfitBackendError
from allin1_core.network import (
    Checkpoint,
    Configuration,
    Model,
    NetworkOutput,
    Thresholds,
    _fused,
    build_model,
    triton_packing,
)
from allin1_core.network.architecture import Folds, ensemble
from allin1_core.self_test import run_self_test
from parity.implementations import cpu_device, names
from parity.inputs.networks import random_checkpoint, random_spectrogram

FEW_BLOCKS = Configuration(num_blocks=2)
BACKENDS = names("network")


def model(backend: str, num_folds: int = 1, **keywords: Any) -> Model:
    device = cpu_device("network", backend)
    folds = [random_checkpoint(seed, FEW_BLOCKS) for seed in range(num_folds)]
    return build_model(folds, backend=backend, device=device, **keywords)


@pytest.mark.parametrize("backend", BACKENDS)
def test_logits_are_those_of_the_probabilities(backend: str) -> None:
    network = model(backend, num_folds=2)
    output = network(random_spectrogram(30), return_logits=True).to_numpy()
    assert output.logits is not None
    np.testing.assert_allclose(output.beat, 1 / (1 + np.exp(-output.logits.beat)), rtol=0, atol=1e-6)
    weights = np.exp(output.logits.label)
    np.testing.assert_allclose(output.label, weights / weights.sum(axis=0), rtol=0, atol=1e-6)
    unasked = network(random_spectrogram(30))
    assert unasked.logits is unasked.embeddings is None


@pytest.mark.parametrize("backend", BACKENDS)
def test_ensemble(backend: str) -> None:
    """Logits are averaged over the folds, embeddings stacked behind the channels, as All-In-One stores them."""
    spectrogram = random_spectrogram(30)
    folds = [random_checkpoint(seed, FEW_BLOCKS) for seed in range(3)]
    device = cpu_device("network", backend)

    def run(checkpoints: list[Checkpoint]) -> NetworkOutput:
        network = build_model(checkpoints, backend=backend, device=device)
        return network(spectrogram, return_logits=True, return_embeddings=True).to_numpy()

    together, alone = run(folds), [run([fold]) for fold in folds]
    assert together.embeddings.shape == (4, 30, 24, 3)
    assert alone[0].embeddings.shape == (4, 30, 24)
    for index, single in enumerate(alone):
        np.testing.assert_allclose(together.embeddings[..., index], single.embeddings, rtol=0, atol=1e-5)
    for name in ("beat", "downbeat", "segment", "label"):
        mean = np.mean([getattr(single.logits, name) for single in alone], axis=0)
        np.testing.assert_allclose(getattr(together.logits, name), mean, rtol=0, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_batch(backend: str) -> None:
    network = model(backend, num_folds=2)
    batch = np.stack([random_spectrogram(70, seed) for seed in range(3)])
    together = network(batch, return_embeddings=True).to_numpy()
    assert together.label.shape == (3, 10, 70)
    assert together.embeddings.shape == (3, 4, 70, 24, 2)
    for index in range(3):
        alone = network(batch[index]).to_numpy()
        for name in ("beat", "downbeat", "segment", "label"):
            np.testing.assert_allclose(
                getattr(together, name)[index], getattr(alone, name), rtol=0, atol=1e-6
            )


@pytest.mark.parametrize("rows", [1, 100, 500])
@pytest.mark.parametrize("backend", ["torch", "mlx"])
def test_pieces_of_time(backend: str, rows: int) -> None:
    """Time is walked in pieces, which MLX evaluates one by one where a track is long: it gives what one piece gives."""
    if backend == "torch":
        torch = pytest.importorskip("torch")
        from allin1_core.network.torch_model import TorchOperations

        whole, pieces = (TorchOperations(torch.device("cpu"), size) for size in (1 << 20, rows))
    else:
        pytest.importorskip("mlx.core")
        from allin1_core.network.mlx_model import MLXOperations

        whole, pieces = MLXOperations(), MLXOperations(rows, stepwise=True)
    folds = [random_checkpoint(seed, FEW_BLOCKS) for seed in range(2)]
    spectrogram = whole.array(random_spectrogram(70)[None])
    expected, found = (
        ensemble([Folds(folds, operations)], spectrogram, True) for operations in (whole, pieces)
    )
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(np.asarray(other), np.asarray(one), rtol=0, atol=1e-5)


def test_thresholds_are_averaged() -> None:
    folds = [
        dataclasses.replace(random_checkpoint(seed, FEW_BLOCKS), thresholds=Thresholds(beat, downbeat))
        for seed, (beat, downbeat) in enumerate([(0.1, 0.2), (0.3, 0.6)])
    ]
    thresholds = build_model(folds, backend="fused").thresholds
    assert thresholds.beat == pytest.approx(0.2)
    assert thresholds.downbeat == pytest.approx(0.4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "shape", [(4, 0, 81), (3, 10, 81), (4, 10, 80), (4, 81), (1, 1, 4, 10, 81), (0, 4, 10, 81), ()]
)
def test_wrong_shape(shape: tuple[int, ...], backend: str) -> None:
    with pytest.raises(ValueError, match=r"spectrogram: shape \(.*\); expected \(4, T, 81\) or a batch"):
        model(backend)(np.zeros(shape, dtype=np.float32))


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int32])
def test_wrong_type(dtype: type) -> None:
    with pytest.raises(ValueError, match=f"spectrogram: {np.dtype(dtype)}; expected float32"):
        model("fused")(np.zeros((4, 10, 81), dtype=dtype))


@pytest.mark.parametrize(
    ("value", "backend"),
    [*itertools.product([np.nan, np.inf, -np.inf], BACKENDS), (1e20, "fused"), (-1e20, "fused")],
)
def test_what_is_no_number_does_not_vanish(backend: str, value: float) -> None:
    spectrogram = random_spectrogram(30)
    spectrogram[1, 20, 40] = value
    if backend == "fused":
        with pytest.raises(
            ValueError, match=r"spectrogram: some values are not finite, or beyond 1e\+09; expected"
        ):
            model(backend)(spectrogram)
    else:
        assert not np.isfinite(model(backend)(spectrogram).to_numpy().beat).all()


def test_not_an_array() -> None:
    with pytest.raises(ValueError, match=r"spectrogram: shape \(\); expected"):
        model("fused")([[1.0]])


def test_fused_reads_a_torch_tensor_where_it_lies() -> None:
    torch = pytest.importorskip("torch")
    network = model("fused")
    tensor = torch.from_numpy(random_spectrogram(30))
    assert np.shares_memory(network._network.as_native(tensor), tensor.numpy())
    output = network(tensor)
    np.testing.assert_array_equal(output.beat, network(tensor.numpy()).beat)


def test_torch_reads_a_numpy_array_where_it_lies() -> None:
    pytest.importorskip("torch")
    spectrogram = random_spectrogram(30)
    assert np.shares_memory(model("torch")._network.as_native(spectrogram).numpy(), spectrogram)


def test_an_array_that_is_read_only_warns_of_nothing() -> None:
    pytest.importorskip("torch")
    spectrogram = random_spectrogram(10)
    output = model("torch")(spectrogram)
    spectrogram.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(model("torch")(spectrogram).beat, output.beat)


def test_array_of_another_library() -> None:
    mx = pytest.importorskip("mlx.core")
    torch = pytest.importorskip("torch")
    spectrogram = random_spectrogram(10)
    with pytest.raises(BackendError, match=r"the torch backend takes\s+torch tensors and numpy arrays"):
        model("torch")(mx.array(spectrogram))
    with pytest.raises(BackendError, match="the mlx backend takes mlx and numpy arrays"):
        model("mlx")(torch.from_numpy(spectrogram))
    with pytest.raises(
        BackendError, match=r"'meta'; the fused backend takes numpy arrays and torch tensors on the CPU"
    ):
        model("fused")(torch.zeros((4, 10, 81), device="meta"))


def test_auto_on_the_cpu_is_fused() -> None:
    network = build_model([random_checkpoint(0, FEW_BLOCKS)], device="cpu")
    assert network.choice.backend == "fused"
    assert network.choice.reason.startswith("auto: ")


def test_fused_refuses_dimensions_it_is_not_compiled_for() -> None:
    narrow = Configuration(num_blocks=1, num_labels=7)
    with pytest.raises(BackendError, match=r"num_labels is 7; it is compiled for 10; use backend='torch'"):
        build_model([random_checkpoint(0, narrow)], backend="fused")


def test_auto_takes_the_next_backend_for_other_dimensions_and_says_why(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pytest.importorskip("torch")
    narrow = random_checkpoint(0, Configuration(num_blocks=1, num_labels=7))
    network = build_model([narrow], device="cpu")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "network: torch on cpu is taken instead of fused on cpu, and slower: network backend 'fused': num_labels "
            "is 7; it is compiled for 10; use backend='torch'",
        )
    ]
    assert (network.choice.backend, network.choice.computed_by) == ("torch", "torch")
    assert network.choice.reason == (
        "auto: device 'cpu' was asked for; torch is the first choice for cpu (network backend 'fused': num_labels is "
        "7; it is compiled for 10; use backend='torch')"
    )
    assert network(random_spectrogram(3)).to_numpy().label.shape == (7, 3)


@pytest.mark.parametrize(
    ("parameter", "factor"),
    [
        ("embeddings.conv1.weight", 1e3),
        ("embeddings.norm.weight", 1e5),
        ("encoder.layers.1.timelayer.attention2.self.value.weight", 1e5),
        ("encoder.layers.0.instlayer.intermediate.dense.bias", 1e6),
        ("encoder.layers.1.timelayer.output.dense.weight", 1e7),
        ("norm.bias", 1e6),
    ],
)
def test_weights_that_leave_the_range_of_float16_are_refused_for_triton(
    parameter: str, factor: float
) -> None:
    """From the weights it follows how large a factor of a product can be, whatever the track."""
    parameters = dict(random_checkpoint(0, FEW_BLOCKS).parameters)
    triton_packing.pack(parameters, FEW_BLOCKS)
    parameters[parameter] = parameters[parameter] * np.float32(factor)
    with pytest.raises(
        UnfitBackendError, match=r"may reach .*e\+.*; its float16 ends at 65504; use backend='torch'"
    ):
        triton_packing.pack(parameters, FEW_BLOCKS)


def test_triton_needs_a_cuda_device() -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(BackendError, match=r"device 'cuda': torch .* finds no such device; use device='cpu'"):
        model("triton")
    assert "triton" not in {check.backend for check in run_self_test() if check.stage == "network"}


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name not in ("fused", "triton")])
def test_other_dimensions(backend: str) -> None:
    """What the kernels refuse, the plain networks run."""
    other = Configuration(num_blocks=2, num_labels=7, num_channels=32, num_heads=4, kernel_size=3)
    device = cpu_device("network", backend)
    output = build_model([random_checkpoint(0, other)], backend=backend, device=device)(
        random_spectrogram(20)
    )
    assert output.to_numpy().label.shape == (7, 20)


def test_parameters_of_other_sizes_than_the_kernels_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(_fused.SIZES, "stem", 1)
    with pytest.raises(AssertionError, match=r"packed sizes .*; the kernels were compiled for {'stem': 1,"):
        model("fused")


def test_a_pass_of_another_name_is_refused() -> None:
    """It was taken for the last of the three."""
    row, plane, nothing_left = np.zeros(1, np.float32), np.zeros((1, 1), np.float32), np.ones(1, np.int64)
    with pytest.raises(KeyError, match="'time_layer'"):
        _fused.run_pass(None, "time_layer", 0, 0, 0, row, None, plane, plane, plane, 0, nothing_left, row)


def test_no_checkpoints() -> None:
    with pytest.raises(ValueError, match="checkpoints: none; expected one"):
        build_model([])


def test_checkpoints_that_differ() -> None:
    folds = [random_checkpoint(0, FEW_BLOCKS), random_checkpoint(0, Configuration(num_blocks=3))]
    with pytest.raises(ValueError, match="checkpoints: their configurations differ"):
        build_model(folds)


@pytest.mark.parametrize("num_threads", [0, -1])
def test_num_threads(num_threads: int) -> None:
    with pytest.raises(OptionError, match=f"num_threads: {num_threads}; expected at least 1"):
        model("fused", num_threads=num_threads)


def test_torch_settings_are_restored() -> None:
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    model("torch", num_threads=before + 1)(random_spectrogram(10))
    assert torch.get_num_threads() == before


def test_load_model_is_exported() -> None:
    assert allin1_core.load_model is allin1_core.network.load_model


def test_fused_needs_neither_torch_nor_mlx() -> None:
    code = """
import sys
from allin1_core.network import build_model, Configuration
from parity.inputs.networks import random_checkpoint, random_spectrogram
build_model([random_checkpoint(0, Configuration(num_blocks=1))], device="cpu")(random_spectrogram(5))
assert not {"torch", "mlx"} & {name.partition(".")[0] for name in sys.modules}
"""
    subprocess.run([sys.executable, "-c", code], check=True)


_HOUR = """
import resource
import sys
import numpy as np
from allin1_core.network import build_model
from parity.inputs.networks import random_checkpoint
spectrogram = np.random.default_rng(0).random((4, 360_000, 81), dtype=np.float32)
folds = [random_checkpoint(seed) for seed in range(2)]
output = build_model(folds, backend="torch", device="cpu")(spectrogram)
assert np.isfinite(np.asarray(output.label)).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


# Plain torch runs its folds one after another on a CPU: two show that the memory of one is given back.
@pytest.mark.full
def test_an_hour_in_torch_fits_into_4_gb() -> None:
    pytest.importorskip("torch")
    command = [sys.executable, "-c", _HOUR]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert int(printed) < 4e9
