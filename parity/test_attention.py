"""Neighbourhood attention of every backend against NATTEN's recorded outputs and against its definition."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from allin1_core import backends
from allin1_core.backends.devices import to_host
from parity.agreement import compare, ulp_measures
from parity.implementations import Implementation, any_requested, names, native, network_backends
from parity.oracles import naive_attention, natten_golden
from parity.reports.records import ParityRecord, ParityRecorder

# float32 sums of 8 products and up to 49 weights: about 1e-6. The bound is the one we promise.
BOUND = 1e-5


def module_of(implementation: Implementation) -> ModuleType:
    """The module of a network, which has its attention as a function where that is one."""
    return importlib.import_module(backends.get("network", implementation.backend).target.partition(":")[0])


IMPLEMENTATIONS = [
    one
    for one in network_backends()
    if any_requested() is None
    and one.precision == "exact"
    and hasattr(module_of(one), "neighbourhood_attention")
]


def test_no_attention_of_its_own_is_left_out() -> None:
    """The list above goes by a function's name, which Triton's kernel has not: `test_triton` holds it."""
    assert {one.backend for one in IMPLEMENTATIONS} == set(names("network")) - {"triton"}


def attention_of(implementation: Implementation) -> Callable[..., np.ndarray]:
    """The backend's attention on numpy arrays."""
    backend, device = implementation.backend, implementation.on("network")
    module = module_of(implementation)

    def attention(
        queries: np.ndarray, keys: np.ndarray, values: np.ndarray, bias: np.ndarray, **keywords: int
    ) -> np.ndarray:
        given = (native("network", backend, array, device) for array in (queries, keys, values))
        return to_host(module.neighbourhood_attention(*given, bias, **keywords))

    return attention


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
@pytest.mark.parametrize("case", natten_golden.CASES)
def test_natten(
    case: str, implementation: Implementation, shared: Path, record_parity: ParityRecorder
) -> None:
    golden = natten_golden.read_case(shared, case)
    output = attention_of(implementation)(
        golden.queries,
        golden.keys,
        golden.values,
        golden.bias,
        kernel_size=golden.kernel_size,
        dilation=golden.dilation,
    )
    agreement = compare(output, golden.output, allowed=BOUND)
    record_parity(
        ParityRecord(
            "attention",
            f"{case}, kernel {golden.kernel_size}, dilation {golden.dilation}",
            natten_golden.ORACLE,
            implementation.backend,
            implementation.on("network"),
            "exact",
            "<= 1e-5",
            agreement.passed,
            {"max_difference": agreement.max_difference, **ulp_measures([agreement])},
        )
    )
    agreement.require(f"{implementation}, {case}")


@pytest.mark.parametrize("case", natten_golden.CASES)
def test_naive_is_natten(case: str, shared: Path) -> None:
    """The definition that stands in for NATTEN in the tests below is NATTEN's."""
    golden = natten_golden.read_case(shared, case)
    output = naive_attention.naive_attention(
        golden.queries, golden.keys, golden.values, golden.bias, golden.kernel_size, golden.dilation
    )
    compare(output, golden.output, allowed=BOUND).require(case)


# (rows or None for one axis, frames, kernel size, dilation): lengths around the window, where windows shift.
_SHAPES = [
    (None, 5, 5, 1),
    (None, 6, 5, 1),
    (None, 9, 5, 1),
    (None, 10, 5, 2),
    (None, 11, 5, 2),
    (None, 19, 5, 2),
    (None, 20, 5, 4),
    (None, 23, 5, 4),
    (None, 100, 5, 16),
    (None, 67, 7, 3),
    (5, 5, 5, 1),
    (5, 6, 5, 1),
    (5, 9, 5, 1),
    (5, 40, 5, 1),
    (7, 11, 3, 2),
]


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
@pytest.mark.parametrize(("rows", "frames", "kernel_size", "dilation"), _SHAPES)
def test_definition(
    rows: int | None, frames: int, kernel_size: int, dilation: int, implementation: Implementation
) -> None:
    arrays, expected = _random_case(rows, frames, kernel_size, dilation)
    output = attention_of(implementation)(*arrays, kernel_size=kernel_size, dilation=dilation)
    compare(output, expected, allowed=BOUND).require(str(implementation))


@functools.lru_cache(maxsize=1)
def _random_case(
    rows: int | None, frames: int, kernel_size: int, dilation: int
) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """Queries, keys, values and bias, and what they give by definition; of the tests, which come ordered by it."""
    rng = np.random.default_rng([frames, kernel_size, dilation])
    axes = (frames,) if rows is None else (rows, frames)
    queries, keys, values = rng.standard_normal((3, 2, 2, *axes, 12), dtype=np.float32)
    bias = rng.standard_normal((2, *len(axes) * (2 * kernel_size - 1,)), dtype=np.float32)
    expected = naive_attention.naive_attention(queries, keys, values, bias, kernel_size, dilation)
    return (queries, keys, values, bias), expected


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS, ids=str)
def test_axis_shorter_than_the_window(implementation: Implementation) -> None:
    arrays = np.zeros((3, 1, 2, 9, 12), dtype=np.float32)
    with pytest.raises(ValueError, match="length: 9 positions; expected at least"):
        attention_of(implementation)(*arrays, np.zeros((2, 9), dtype=np.float32), kernel_size=5, dilation=2)
