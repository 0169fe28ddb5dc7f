"""A session shared by threads: what is loaded is loaded once, and what failed is tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hard_use.test_threads import THREADS, all_at_once

from allin1_core import Analyzer, backends
from allin1_core.audio.types import Audio
from allin1_core.dbn import viterbi
from allin1_core.errors import WeightsError
from allin1_core.network import model, weights
from allin1_core.separation import demucs_torch
from allin1_core.session import Session
from allin1_core.settings import Settings
from allin1_core.timings.recorder import Timings


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of what was loaded, each of which takes long enough for every thread to ask for it meanwhile."""
    loaded: list[str] = []

    def watch(owner: Any, name: str) -> None:
        load = getattr(owner, name)

        def slow(*arguments: Any, **keywords: Any) -> Any:
            loaded.append(name)
            time.sleep(0.2)
            return load(*arguments, **keywords)

        monkeypatch.setattr(owner, name, slow)

    watch(weights, "load_checkpoints")
    watch(model, "build_chosen")
    return loaded


def test_eight_threads_get_the_same_objects(small_model: str, calls: list[str]) -> None:
    session = Session(Settings(model=small_model, device="cpu"))
    found = all_at_once(lambda index: session.decoder if index % 2 else session.model, THREADS)
    assert len(set(map(id, found[::2]))) == len(set(map(id, found[1::2]))) == 1
    assert calls == ["load_checkpoints", "build_chosen"]


def test_eight_threads_load_one_separator_a_session_and_separate_as_one_thread_does(
    separation_repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demucs draws from the one global generator: without a lock each would get numbers of another's seed."""
    made: list[object] = []

    class Slow(demucs_torch.Separator):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            time.sleep(0.2)
            made.append(self)
            super().__init__(*arguments, **options)

    monkeypatch.setattr(demucs_torch, "Separator", Slow)
    noise = np.random.default_rng(0).integers(-9000, 9000, (THREADS, 8000, 2), np.int16)
    alone, *shared = (
        Session(Settings(demix_model="small", demix_repository=separation_repository, device="cpu"))
        for _ in range(3)
    )
    state = random.getstate()
    expected = [alone.separate(Audio(samples, 44100))[2] for samples in noise]
    found = all_at_once(lambda index: shared[index % 2].separate(Audio(noise[index], 44100))[2], THREADS)
    assert random.getstate() == state
    assert len(made) == 3
    assert {*made} == {session.separator() for session in (alone, *shared)}
    for index in range(THREADS):
        np.testing.assert_array_equal(found[index].samples, expected[index].samples, err_msg=f"{index}")


def test_weights_that_could_not_be_read_are_read_when_they_are_there(
    small_model: str, song: Path, tmp_path: Path, calls: list[str]
) -> None:
    own = tmp_path / "own.npz"
    analyzer = Analyzer(model=str(own), device="cpu")
    for _ in range(2):
        with pytest.raises(WeightsError, match=r"own\.npz: cannot be opened"):
            analyzer(song)
    assert calls == ["load_checkpoints"] * 2
    own.write_bytes(Path(small_model).read_bytes())
    own.with_suffix(".yaml").write_bytes(Path(small_model).with_suffix(".yaml").read_bytes())
    assert analyzer(song).beats == Analyzer(model=small_model, device="cpu")(song).beats


@pytest.mark.parametrize("in_background", [True, False])
def test_a_failure_is_not_kept_whether_or_not_a_track_waited_for_it(
    small_model: str, tmp_path: Path, calls: list[str], in_background: bool
) -> None:
    own = tmp_path / "own.npz"
    session = Session(Settings(model=str(own), device="cpu"))
    if in_background:
        session.load_in_background(Timings())
        assert session._reading is not None
        wait([session._reading])
    else:
        with pytest.raises(WeightsError, match=r"own\.npz: cannot be opened"):
            session.load_model(Timings())
    own.write_bytes(Path(small_model).read_bytes())
    own.with_suffix(".yaml").write_bytes(Path(small_model).with_suffix(".yaml").read_bytes())
    if in_background:
        session.load_in_background(Timings())
    assert session.load_model(Timings()).num_folds == 1
    assert calls == ["load_checkpoints", "load_checkpoints", "build_chosen"]


def test_a_separation_model_that_could_not_be_loaded_is_loaded_when_it_is_there(
    separation_repository: Path, tmp_path: Path
) -> None:
    session = Session(Settings(demix_model="small", demix_repository=tmp_path, device="cpu"))
    with pytest.raises(WeightsError, match=r"expected the separation model small.*; found models none"):
        session.separator()
    (tmp_path / "small.th").write_bytes((separation_repository / "small.th").read_bytes())
    assert session.separator() is session.separator()


def test_each_stage_is_chosen_once(
    small_model: str,
    separation_repository: Path,
    write_mix: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen: list[str] = []
    choose = backends.choose

    def counted(stage: str, *arguments: Any, **keywords: Any) -> Any:
        chosen.append(stage)
        return choose(stage, *arguments, **keywords)

    for module in (backends, viterbi):
        monkeypatch.setattr(module, "choose", counted)
    viterbi.choose_kernel.cache_clear()
    analyzer = Analyzer(
        model=small_model, device="cpu", demix_model="small", demix_repository=separation_repository
    )
    for name in ("one.wav", "two.wav"):
        analyzer(write_mix(name))
    assert sorted(chosen) == ["decoder", "network", "separation", "spectrogram", "structure"]
