"""What the tests of the pipeline run on: a small network, short stems, and a small separation model."""

from __future__ import annotations

import dataclasses
import gc
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml
from checkpoints import SETTINGS

from allin1_core import network, self_test, separation
from allin1_core.analysis import Analyzer
from allin1_core.audio.types import STEM_NAMES
from allin1_core.cli import main
from allin1_core.library import analyze_library
from allin1_core.session import Session
from allin1_core.settings import Settings

_CONFIGURATION = {**SETTINGS, "depth": 3, "best_threshold_beat": 0.0, "best_threshold_downbeat": 0.0}


def pytest_collection() -> None:
    gc.disable()


def pytest_collection_finish() -> None:
    """What is imported and collected by now stays: garbage is not looked for in it, now or when a test asks for it."""
    gc.enable()
    gc.freeze()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # for what libraries look for at the end of the process


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Path of a checkpoint with three blocks and made-up values; `analyze` takes it as `model`."""
    path = tmp_path_factory.mktemp("weights") / "small.npz"
    np.savez(path, **self_test.parameters())
    path.with_suffix(".yaml").write_text(yaml.safe_dump(_CONFIGURATION), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def stems() -> np.ndarray:
    """Five seconds of made-up stems, int16 (4, 220500)."""
    return self_test.stems()


WriteStems = Callable[..., Path]


@pytest.fixture
def write_stems(tmp_path: Path, stems: np.ndarray) -> WriteStems:
    """Write the stems to a folder of that name below the test's own, and return it."""

    def write(name: str, suffix: str = ".wav", samples: np.ndarray = stems, sample_rate: int = 44100) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for stem, values in zip(STEM_NAMES, samples, strict=True):
            soundfile.write(folder / f"{stem}{suffix}", values, sample_rate)
        return folder

    return write


@pytest.fixture
def song(write_stems: WriteStems) -> Path:
    """Folder ``song`` with the stems."""
    return write_stems("song")


@pytest.fixture
def options(small_model: str) -> dict[str, Any]:
    """What `analyze` is given: the small network on the CPU, and the spectrogram that needs no library."""
    return {"model": small_model, "device": "cpu", "spec_backend": "numpy"}


@pytest.fixture
def is_killed() -> Callable[[Callable[[], object], int], bool]:
    """Run a function in a forked process that is killed when so many files are in place; gives whether it was."""

    def run(save: Callable[[], object], last: int) -> bool:
        child = os.fork()
        if child == 0:
            replace, done = os.replace, []

            def replace_or_die(*paths: Path) -> None:
                if len(done) == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                done.append(replace(*paths))

            os.replace = replace_or_die
            save()
            os._exit(0)
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])

    return run


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run ``allin1-core`` with these arguments; gives exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as exit:
            status = int(exit.code or 0)
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def write_mix(tmp_path: Path, stems: np.ndarray) -> Callable[[str], Path]:
    """Write two seconds of the stems' sum as a stereo file of that name, and return its path."""

    def write(name: str, seconds: float = 2.0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        mono = (stems.astype(np.int32).sum(axis=0) // 4).astype(np.int16)[: int(seconds * 44100)]
        soundfile.write(path, np.stack([mono, mono // 2], axis=1), 44100)
        return path

    return write


@pytest.fixture
def separation_repository(_separation_folder: Path) -> Iterator[Path]:
    """Folder with `small.th`, a separation model; on one thread while the test runs.

    The model is so small that torch's threads would spend their time waiting for each other.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield _separation_folder
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def _separation_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with `small.th`: a Hybrid Transformer Demucs of 350,000 random parameters, seeded."""
    pytest.importorskip("demucs_infer", reason="demucs-infer is not installed (extra 'demucs')")
    import torch
    from demucs_infer.htdemucs import HTDemucs

    options = {
        "sources": ["drums", "bass", "other", "vocals"],
        "channels": 8,
        "depth": 4,
        "nfft": 2048,
        "t_layers": 1,
        "t_heads": 2,
        "dconv_depth": 1,
        "segment": 0.5,
        "samplerate": 44100,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = HTDemucs(**options)
    folder = tmp_path_factory.mktemp("separation")
    package = {"klass": HTDemucs, "args": [], "kwargs": options, "state": model.state_dict()}
    torch.save(package, folder / "small.th")
    return folder


@pytest.fixture
def with_small_models(monkeypatch: pytest.MonkeyPatch, small_model: str, separation_repository: Path) -> None:
    """Models are small ones on the CPU, whatever is asked for: for examples of the documentation."""
    original = Session.__init__

    def initialize(self: Session, settings: Settings) -> None:
        small: dict[str, Any] = {
            "model": small_model,
            "demix_model": "small",
            "demix_repository": separation_repository,
        }
        original(self, dataclasses.replace(settings, **small, device="cpu"))

    monkeypatch.setattr(Session, "__init__", initialize)
    load_model, load_separator = network.load_model, separation.load_separator
    monkeypatch.setattr(network, "load_model", lambda name: load_model(small_model, device="cpu"))
    monkeypatch.setattr(
        separation,
        "load_separator",
        lambda model: load_separator("small", device="cpu", repository=separation_repository),
    )


@pytest.fixture
def library(tmp_path: Path, write_stems: WriteStems, stems: np.ndarray) -> Path:
    """Three folders of stems."""
    for index, name in enumerate(("one", "two", "three")):
        write_stems(f"library/{name}", samples=np.roll(stems, index * 5000, axis=1)[:, :66150])
    return tmp_path / "library"


@pytest.fixture
def run_library(options: dict[str, Any]) -> Callable[..., Any]:
    """`analyze_library` with the small network."""
    return lambda source, out, **more: analyze_library(source, out, progress=False, **options | more)


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tracks that are analysed, each time."""
    names: list[str] = []
    original = Analyzer.analyze_track

    def analyze_track(self: Analyzer, track: Any, *arguments: Any, **keywords: Any) -> Any:
        names.append(track.name)
        return original(self, track, *arguments, **keywords)

    monkeypatch.setattr(Analyzer, "analyze_track", analyze_track)
    return names


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window, driven by selenium; the test is skipped where they are not installed."""
    chromium, driver = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
    if not (chromium.exists() and driver.exists()):
        pytest.skip("Chromium is not installed: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra 'test')")
    options = webdriver.ChromeOptions()
    options.binary_location = str(chromium)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=str(driver))
    found = webdriver.Chrome(options=options, service=service)
    try:
        yield found
    finally:
        found.quit()
