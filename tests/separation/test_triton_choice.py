"""When the separation takes Triton's kernels, and what it says where they cannot be compiled."""

from __future__ import annotations

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import parity.triton_interpreter  # noqa: F401  Triton reads what it sets when it is imported

pytest.importorskip("demucs_infer")

from allin1_core.errors import UnfitBackendError
from allin1_core.separation import overlap_add, triton_network


class _Model(torch.nn.Module):
    """On no device at all, so that it can be told that it is on a card."""

    sources = ("drums",)

    def to(self, device: Any) -> _Model:
        return self


@pytest.fixture
def on_cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What there is of a card: its compute capability, and a cause for which kernels fail, if any."""
    card = SimpleNamespace(capability=(9, 0), cause=None)

    def launch(*_: Any, **__: Any) -> torch.Tensor:
        if card.cause is not None:
            raise card.cause
        return torch.zeros(1, 2, 8)

    zeros, tensor, to = torch.zeros, torch.tensor, torch.nn.Module.to
    monkeypatch.setattr(torch, "zeros", lambda *shape, device=None: zeros(*shape))
    monkeypatch.setattr(torch, "tensor", lambda data, device=None: tensor(data))
    monkeypatch.setattr(torch.nn.GroupNorm, "to", lambda layer, device: to(layer, "cpu"), raising=False)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: card.capability)
    for name in ("_activated", "_normalised", "_gated", "_attended"):
        monkeypatch.setattr(triton_network, name, launch)
    monkeypatch.setattr(triton_network, "with_triton", lambda network, attend: (network, attend))
    return card


def _networks(precision: str = "exact") -> list[Any]:
    return list(overlap_add.OverlapAdd(_Model(), device="cuda", precision=precision).networks)


@pytest.mark.parametrize(("precision", "attend"), [("exact", True), ("fast", False)])
def test_kernels_are_taken_on_a_card_that_they_are_for(
    precision: str, attend: bool, on_cuda: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    assert [network[1] for network in _networks(precision)] == [attend]
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize(
    ("capability", "cause", "message"),
    [
        ((7, 5), None, "the card's compute capability is 7.5; expected 8.0 or more"),
        ((9, 0), RuntimeError("no compiler"), "(RuntimeError: no compiler); Triton needs a C compiler"),
    ],
)
def test_torch_remains_where_they_cannot_be_compiled_and_that_is_said_once(
    capability: tuple[int, int],
    cause: Exception | None,
    message: str,
    on_cuda: SimpleNamespace,
    caplog: pytest.LogCaptureFixture,
) -> None:
    on_cuda.capability, on_cuda.cause = capability, cause
    assert all(isinstance(network, _Model) for network in _networks())
    (warning,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("separation: torch's layers are taken, and slower: ")
    assert message in warning


def test_a_full_memory_is_an_error(on_cuda: SimpleNamespace) -> None:
    on_cuda.cause = torch.cuda.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(torch.cuda.OutOfMemoryError, match="out of memory"):
        _networks()


def test_without_triton_nothing_is_said(
    on_cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(overlap_add, "module_exists", lambda name: False)
    assert all(isinstance(network, _Model) for network in _networks())
    assert not caplog.records


def test_the_check_draws_no_numbers(on_cuda: SimpleNamespace) -> None:
    before = torch.get_rng_state()
    triton_network.check_kernels(torch.device("cuda"))
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_compiled_is_refused_as_unfit(on_cuda: SimpleNamespace) -> None:
    on_cuda.cause = OSError("read-only")
    with pytest.raises(UnfitBackendError, match=r"^separation: its kernels cannot be compiled and run here"):
        triton_network.check_kernels(torch.device("cuda"))
