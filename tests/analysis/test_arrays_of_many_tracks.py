"""Activations and embeddings of many tracks: in files or in memory, as was asked for, and never in both."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from allin1_core import analyze, load_result
from allin1_core.errors import BatchError
from allin1_core.structure import Segment


def test_lists_of_results_carry_no_arrays_that_were_written(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    """Neither when they are made nor when they are there; in memory alone, and for a single path, they do."""
    a, b = write_stems("a"), write_stems("b")
    options |= {"include_activations": True, "include_embeddings": True}
    written = {**options, "out_dir": tmp_path / "out"}
    expected = analyze(a, **options).embeddings
    assert expected is not None
    for _ in range(2):
        for paths in ([a, b], [a], tmp_path / "?"):
            results = analyze(paths, **written)
            assert {(result.activations is None, result.embeddings is None) for result in results} == {
                (True, True)
            }
        np.testing.assert_array_equal(load_result(tmp_path / "out" / "a.json").embeddings, expected)
        for result in (analyze(a, **written), *analyze([a, b], **options)):
            np.testing.assert_array_equal(result.embeddings, expected)
            assert result.activations is not None


def traced_growth(run: Callable[[], object]) -> tuple[int, int]:
    """Bytes that a call leaves, while what it returns or raises is held, and the most that it takes."""
    gc.collect()
    tracemalloc.start()
    try:
        try:
            held: object = run()
        except BatchError as error:
            held = error
        gc.collect()
        left, most = tracemalloc.get_traced_memory()
        del held
        return left, most
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_arrays_of_many_tracks(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    """Of 6 tracks they are 1.3 MB: in memory, in files, when they are there already, and when they cannot be used."""
    paths = [write_stems(f"in/{index}") for index in range(6)]
    options |= {"include_activations": True, "include_embeddings": True}
    arrays = 6 * (4 * 500 * 24 + 13 * 500) * 4
    out = tmp_path / "out"
    analyze(paths[:1], out_dir=tmp_path / "warm_up", **options)
    assert traced_growth(lambda: analyze(paths, **options))[0] > arrays
    assert traced_growth(lambda: analyze(paths, out_dir=out, **options))[0] < arrays / 4
    assert traced_growth(lambda: analyze(paths, out_dir=out, **options))[0] < arrays / 4
    for path in paths:
        (out / f"{path.name}.beats").mkdir()
    failing = {**options, "out_dir": out, "overwrite": "json", "exports": ["beats"]}
    with pytest.raises(BatchError, match="2 of 2 tracks failed"):
        analyze(paths[:2], **failing)
    # The error's traceback holds the network.
    of_two = traced_growth(lambda: analyze(paths[:2], **failing))[0]
    assert traced_growth(lambda: analyze(paths, **failing))[0] - of_two < arrays / 4


def test_arrays_that_are_there_are_not_read_into_memory(
    write_stems: Callable[..., Path], options: dict[str, Any], tmp_path: Path
) -> None:
    """Their SHA-256 is compared block by block."""
    paths, out = [write_stems("a"), write_stems("b")], tmp_path / "out"
    options |= {"out_dir": out, "include_embeddings": True}
    for result, path in zip(analyze(paths, **options), paths, strict=True):
        result.segments = [Segment(0.0, 1000.0, "verse")]
        result.embeddings = np.zeros((4, 100_000, 24), np.float32)
        result.save(out / f"{path.name}.json")
    size = (out / "a.embed.npy").stat().st_size
    assert size > 38_000_000
    assert traced_growth(lambda: analyze(paths, **options))[1] < size / 4
    assert analyze(paths, **options)[0].segments[0].end == 1000
    assert (out / "a.embed.npy").stat().st_size == size
