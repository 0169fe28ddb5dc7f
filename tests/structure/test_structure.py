"""Local maxima in every library, boundaries, labels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allin1_core import backends
from allin1_core.backends.devices import to_host
from allin1_core.errors import ActivationsError
from allin1_core.structure import LABELS, LOCAL_MAXIMA_WINDOW, Segment, pick_boundaries, sections
from parity.implementations import names, native
from parity.oracles import structure


@pytest.mark.parametrize("backend", names("structure"))
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    # Few distinct values, so that plateaus and ties come up.
    values=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    window=st.sampled_from([1, 3, 5, 7, 17, LOCAL_MAXIMA_WINDOW]),
)
def test_local_maxima_are_what_the_definition_says(backend: str, values: list[int], window: int) -> None:
    probability = (np.array(values) / 5).astype(np.float32)
    found = backends.get("structure", backend).load()(native("structure", backend, probability), window)
    np.testing.assert_array_equal(to_host(found), structure.local_maxima(probability, window))


@pytest.mark.parametrize("backend", names("structure"))
def test_local_maxima_stay_in_their_library(backend: str) -> None:
    probability = native("structure", backend, np.linspace(0, 1, 300, dtype=np.float32))
    found = backends.get("structure", backend).load()(probability, LOCAL_MAXIMA_WINDOW)
    assert type(found) is type(probability)
    assert to_host(found).dtype == np.float32


@pytest.mark.parametrize("backend", names("structure"))
def test_nan_is_no_local_maximum_that_goes_unseen(backend: str) -> None:
    probability = np.linspace(0, 0.5, 300, dtype=np.float32)
    probability[100] = np.nan
    found = backends.get("structure", backend).load()(native("structure", backend, probability), 17)
    with pytest.raises(ActivationsError, match="maxima: values from nan to nan"):
        pick_boundaries(to_host(found))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1), length=st.sampled_from([1, 50, 1199, 1201, 2402, 5000]))
def test_boundaries_are_what_the_definition_says(seed: int, length: int) -> None:
    random = np.random.default_rng(seed)
    maxima = np.where(random.random(length) < 0.02, random.integers(0, 6, length) / 5, 0).astype(np.float32)
    np.testing.assert_array_equal(pick_boundaries(maxima), structure.boundaries(maxima))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_constant_probability_gives_at_most_the_start(value: float) -> None:
    """What silence gives: every frame is a local maximum, none is a boundary inside."""
    maxima = np.full(60_000, value, np.float32)
    assert pick_boundaries(maxima).tolist() == ([0] if value else [])


def test_sections_cover_the_track_and_take_the_label_that_is_most_probable_in_them() -> None:
    label = np.zeros((10, 300), np.float32)
    label[LABELS.index("intro"), :100] = 1
    label[LABELS.index("verse"), 100:] = 1
    assert sections(np.array([100]), label) == [Segment(0.0, 1.0, "intro"), Segment(1.0, 3.0, "verse")]


def test_a_boundary_at_the_first_frame_adds_no_section() -> None:
    label = np.ones((10, 5), np.float32)
    assert sections(np.array([0]), label) == [Segment(0.0, 0.05, "start")]


def test_no_boundary_gives_one_section() -> None:
    assert sections(np.array([], dtype=np.int64), np.ones((10, 1), np.float32)) == [
        Segment(0.0, 0.01, "start")
    ]


@pytest.mark.parametrize(
    ("maxima", "message"),
    [
        ([0.2, np.nan, 0.1], "maxima: values from nan to nan; expected probabilities from 0 to 1"),
        ([0.2, 3.5, 0.1], "maxima: values from 0.1 to 3.5"),
        ([0.2, -3.5, 0.1], "maxima: values from -3.5 to 0.2"),
        ([[0.2, 0.1]], r"maxima: shape \(1, 2\)"),
        (["a"], "maxima: dtype <U1"),
    ],
)
def test_boundaries_are_picked_of_probabilities_alone(maxima: list[Any], message: str) -> None:
    with pytest.raises(ActivationsError, match=message):
        pick_boundaries(np.array(maxima))


@pytest.mark.parametrize(
    ("boundaries", "change", "message"),
    [
        ([100], np.nan, "label: values from nan to nan"),
        ([100], -1, "label: values from -0.8"),
        ([100], 1, r"label: values from 0.1\d* to 1.1"),
        ([100, 300], 0, r"boundaries: int64 \[100 300\]; expected frames that ascend, from 0 to 299"),
        ([200, 100], 0, "boundaries"),
        ([100, 100], 0, "boundaries"),
        ([-1, 100], 0, "boundaries"),
        ([100.5], 0, "boundaries: float64"),
        ([[100]], 0, "boundaries"),
    ],
)
def test_sections_are_made_of_frames_and_probabilities_alone(
    boundaries: list[Any], change: float, message: str
) -> None:
    label = np.full((10, 300), 0.1, np.float32)
    label[3, 200] += change
    with pytest.raises(ActivationsError, match=message):
        sections(np.array(boundaries), label)


@pytest.mark.parametrize("shape", [(10, 0), (9, 300), (300, 10), (10,)])
def test_labels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ActivationsError, match="label: shape"):
        sections(np.array([0]), np.zeros(shape, np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int8])
def test_labels_of_any_precision_are_averaged_without_overflow(dtype: type) -> None:
    """As numpy's mean does; sums of float16 would be infinite, and the first label the most probable."""
    label = np.zeros((10, 200_000), dtype)
    label[3], label[7, 1:] = 0.5, 1
    assert [one.label for one in sections(np.array([], int), label)] == [LABELS[7]]
