"""Where weights come from, and what is refused. Files are made here from seeded random parameters."""

from __future__ import annotations

import hashlib
import json
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub.errors
import numpy as np
import pytest
import yaml
from checkpoints import SETTINGS
from huggingface_hub import file_download
from safetensors.numpy import save as save_safetensors

from allin1_core import load_model
from allin1_core.errors import WeightsError
from allin1_core.network import Configuration, Thresholds, load_checkpoints, weights
from allin1_core.network.weights import PUBLISHED, PublishedFile, digest_of_values
from bench.measure.paired import paired_times
from parity.inputs.networks import random_checkpoint, random_spectrogram

NAME = "harmonix-fold0"
PARAMETERS = dict(random_checkpoint(7).parameters)


def mlx_order(parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Convolutions as (out, time, band, in), as in the published .npz files."""
    return {
        name: np.ascontiguousarray(value.transpose(0, 2, 3, 1)) if value.ndim == 4 else value
        for name, value in parameters.items()
    }


def write_npz(
    folder: Path, parameters: dict[str, np.ndarray], settings: dict[str, Any] | None = SETTINGS
) -> Path:
    path = folder / f"{NAME}.npz"
    np.savez(path, **mlx_order(parameters))
    if settings is not None:
        path.with_suffix(".yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def write_pth(folder: Path, content: Any) -> Path:
    torch = pytest.importorskip("torch")
    path = folder / PUBLISHED[NAME].file
    torch.save(content, path)
    return path


def pth_content() -> dict[str, Any]:
    torch = pytest.importorskip("torch")
    return {
        "state_dict": {name: torch.from_numpy(value) for name, value in PARAMETERS.items()},
        "config": SETTINGS,
    }


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the random parameters pass for the published fold 0, whatever file they are in."""
    entry = PUBLISHED[NAME]
    stand_in = PublishedFile(entry.file, entry.sha256, digest_of_values(PARAMETERS), entry.thresholds)
    monkeypatch.setitem(PUBLISHED, NAME, stand_in)  # type: ignore[arg-type]


def publish_file(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    entry = PUBLISHED[NAME]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    stand_in = PublishedFile(entry.file, digest, entry.values_sha256, entry.thresholds)
    monkeypatch.setitem(PUBLISHED, NAME, stand_in)  # type: ignore[arg-type]


def assert_parameters(found: Any) -> None:
    assert found.keys() == PARAMETERS.keys()
    for name, value in PARAMETERS.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_npz(tmp_path: Path, published: None) -> None:
    path = write_npz(tmp_path, PARAMETERS)
    (checkpoint,) = load_checkpoints(NAME, weights_dir=tmp_path)
    assert_parameters(checkpoint.parameters)
    assert checkpoint.configuration == Configuration()
    assert checkpoint.thresholds == Thresholds(beat=0.19, downbeat=0.22)
    assert checkpoint.provenance == {
        "name": NAME,
        "file": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def test_npz_without_configuration_has_the_published_one(tmp_path: Path, published: None) -> None:
    write_npz(tmp_path, PARAMETERS, settings=None)
    (checkpoint,) = load_checkpoints(NAME, weights_dir=tmp_path)
    assert checkpoint.configuration == Configuration()
    assert checkpoint.thresholds == PUBLISHED[NAME].thresholds


@pytest.mark.parametrize("in_mlx_order", [False, True])
def test_safetensors(in_mlx_order: bool, tmp_path: Path, published: None) -> None:
    arrays = mlx_order(PARAMETERS) if in_mlx_order else PARAMETERS
    content = save_safetensors(arrays, metadata={"config": json.dumps(SETTINGS)})
    (tmp_path / f"{NAME}.safetensors").write_bytes(content)
    (checkpoint,) = load_checkpoints(NAME, weights_dir=tmp_path)
    assert_parameters(checkpoint.parameters)
    assert checkpoint.thresholds == Thresholds(beat=0.19, downbeat=0.22)


def test_pth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish_file(monkeypatch, write_pth(tmp_path, pth_content()))
    (checkpoint,) = load_checkpoints(NAME, weights_dir=tmp_path)
    assert_parameters(checkpoint.parameters)
    assert checkpoint.thresholds == Thresholds(beat=0.19, downbeat=0.22)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "expected a mapping with 'state_dict' and 'config'; found list"),
        ({"state_dict": {}}, "expected a mapping with 'state_dict' and 'config'; found dict"),
        ({"state_dict": [], "config": {}}, "'state_dict' is list and 'config' dict; expected mappings"),
        ({"state_dict": {}, "config": None}, "'state_dict' is dict and 'config' NoneType; expected mappings"),
        ({"state_dict": {"a": 3}, "config": {}}, r"'a' is int \(\); expected a tensor"),
    ],
)
def test_pth_of_another_content_is_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = write_pth(tmp_path, content).rename(tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=rf"own\.pth: {message}"):
        load_checkpoints(str(path))


def test_pth_of_another_hash_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pth(tmp_path, pth_content())
    monkeypatch.setattr(weights, "read_checkpoint_file", lambda *_: pytest.fail("the file was opened"))
    with pytest.raises(
        WeightsError, match=rf"{re.escape(str(path))}: SHA-256 .*; expected {PUBLISHED[NAME].sha256}"
    ):
        load_checkpoints(NAME, weights_dir=tmp_path)


def test_altered_values(tmp_path: Path, published: None) -> None:
    altered = {**PARAMETERS, "norm.bias": PARAMETERS["norm.bias"] + np.float32(1e-6)}
    path = write_npz(tmp_path, altered)
    with pytest.raises(
        WeightsError, match=rf"{re.escape(str(path))}: the SHA-256 of its values .* is altered"
    ):
        load_checkpoints(NAME, weights_dir=tmp_path)


def _without(name: str) -> dict[str, np.ndarray]:
    return {key: value for key, value in PARAMETERS.items() if key != name}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (_without("norm.bias"), "without norm.bias; expected the 491 parameters"),
        ({**PARAMETERS, "surprise": PARAMETERS["norm.bias"]}, "with unknown surprise; expected"),
        (
            {**PARAMETERS, "norm.bias": PARAMETERS["norm.bias"][:23]},
            r"'norm.bias' is float32 \(23,\); expected float32 \(24,\)",
        ),
        (
            {**PARAMETERS, "norm.bias": PARAMETERS["norm.bias"].astype(np.float64)},
            r"'norm.bias' is float64 \(24,\); expected float32 \(24,\)",
        ),
        (
            {
                **PARAMETERS,
                "norm.bias": np.where(np.arange(24) == 7, np.float32(np.nan), PARAMETERS["norm.bias"]),
            },
            "'norm.bias' holds values that are not finite",
        ),
    ],
)
def test_mismatched_parameters(parameters: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    path = write_npz(tmp_path, parameters)
    with pytest.raises(WeightsError, match=message):
        load_checkpoints(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 10}, "with unknown .*; expected the 448 parameters"),
        ({"depth": "eleven"}, "entry 'depth' is 'eleven'; expected int"),
        ({"num_heads": 0}, "num_heads: 0; expected a positive value"),
        ({"kernel_size": 4}, "kernel_size: 4; expected an odd number"),
        ({"num_heads": 5}, "num_channels: 24; expected a multiple of twice the 5 heads"),
        ({"model": "tcn"}, "entry 'model' is 'tcn'; only 'allin1' is implemented"),
        ({"double_attention": False}, "'double_attention' is False; only True is implemented"),
        ({"best_threshold_beat": 1.5}, "threshold beat: 1.5; expected a probability"),
        ({"data": {}}, "no entry 'data.num_instruments'"),
    ],
)
def test_mismatched_configuration(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_npz(tmp_path, PARAMETERS, settings={**SETTINGS, **change})
    with pytest.raises(WeightsError, match=message):
        load_checkpoints(str(path))


def test_file_of_ones_own(tmp_path: Path) -> None:
    path = write_npz(tmp_path, PARAMETERS)
    own = path.rename(tmp_path / "own.npz")
    with pytest.raises(WeightsError, match=r"no configuration; put own.yaml beside the file"):
        load_checkpoints(str(own))
    path.with_suffix(".yaml").rename(tmp_path / "own.yaml")
    model = load_model(str(own), backend="fused")
    assert model.checkpoints[0].name == "own"
    assert model.thresholds == Thresholds(beat=0.19, downbeat=0.22)
    assert model(random_spectrogram(12)).to_numpy().label.shape == (10, 12)


def test_unknown_name() -> None:
    with pytest.raises(
        WeightsError, match=r"weights 'harmonix-fold8': unknown; expected 'harmonix-all', one of"
    ):
        load_checkpoints("harmonix-fold8")


def test_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"own.npz: cannot be opened \(No such file or directory\); check the path"
    ):
        load_checkpoints(str(tmp_path / "own.npz"))


def test_folder_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="weights_dir: no folder at"):
        load_checkpoints(NAME, weights_dir=tmp_path / "nowhere")
    monkeypatch.setenv("ALLIN1_WEIGHTS_DIR", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match="ALLIN1_WEIGHTS_DIR: no folder at"):
        load_checkpoints(NAME)


def test_folder_without_the_file(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"no weights of harmonix-fold0; expected one of harmonix-fold0.npz"
    ):
        load_checkpoints(NAME, weights_dir=tmp_path)


def test_ensemble_is_loaded_whole_or_not_at_all(tmp_path: Path, published: None) -> None:
    write_npz(tmp_path, PARAMETERS)
    with pytest.raises(WeightsError, match="no weights of harmonix-fold1"):
        load_model("harmonix-all", backend="fused", weights_dir=tmp_path)


def test_environment_names_a_folder(tmp_path: Path, published: None, monkeypatch: pytest.MonkeyPatch) -> None:
    write_npz(tmp_path, PARAMETERS)
    monkeypatch.setenv("ALLIN1_WEIGHTS_DIR", str(tmp_path))
    assert_parameters(load_checkpoints(NAME)[0].parameters)
    other = tmp_path / "other"
    other.mkdir()
    with pytest.raises(WeightsError, match=re.escape(str(other))):
        load_checkpoints(NAME, weights_dir=other)  # an explicit folder comes first


class _Hub:
    """Stands in for the Hugging Face client: a cache that may hold the file, and a server that has it."""

    def __init__(self, cached: Path | None, remote: Path | Exception) -> None:
        self._cached, self._remote, self.downloads = cached, remote, list[dict[str, Any]]()

    def __call__(self, repo_id: str, filename: str, *, revision: str, local_files_only: bool = False) -> str:
        if local_files_only:
            if self._cached is None:
                raise huggingface_hub.errors.LocalEntryNotFoundError("not cached")
            return str(self._cached)
        self.downloads.append({"repo_id": repo_id, "filename": filename, "revision": revision})
        assert not isinstance(self._remote, Exception), self._remote
        return str(self._remote)

    def answer(self, url: str) -> None:
        response: Any = SimpleNamespace(headers={}, request=None)
        raise huggingface_hub.errors.HfHubHTTPError("busy", response=response)


def install_hub(monkeypatch: pytest.MonkeyPatch, cached: Path | None, remote: Path | Exception) -> _Hub:
    hub = _Hub(cached, remote)
    monkeypatch.delenv("ALLIN1_WEIGHTS_DIR", raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", hub.answer)
    return hub


def test_cache_before_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pth(tmp_path, pth_content())
    publish_file(monkeypatch, path)
    hub = install_hub(monkeypatch, cached=path, remote=AssertionError("downloaded although it is cached"))
    assert_parameters(load_checkpoints(NAME)[0].parameters)
    assert hub.downloads == []


def test_download_is_pinned_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pth(tmp_path, pth_content())
    hub = install_hub(monkeypatch, cached=None, remote=path)
    with pytest.raises(WeightsError, match="the file is truncated or altered"):
        load_checkpoints(NAME)
    publish_file(monkeypatch, path)
    assert_parameters(load_checkpoints(NAME)[0].parameters)
    assert hub.downloads[-1] == {
        "repo_id": "taejunkim/allinone",
        "filename": "harmonix-fold0-0vra4ys2.pth",
        "revision": "379e5fd010b3fdd0ee8381ff8cbcfa51d70b5c19",
    }


def test_offline_without_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client itself would try six times, in half a minute."""
    hub = install_hub(monkeypatch, cached=None, remote=AssertionError("tried"))
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", file_download.get_hf_file_metadata)
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *_, **__: "http://127.0.0.1:9/file")
    with pytest.raises(WeightsError, match=r"downloaded .*refused.* put the file into a folder and name it"):
        load_checkpoints(NAME)
    assert hub.downloads == []


def test_published_table(shared: Path) -> None:
    """The values of all eight shared files are those that the table pins, and so are their thresholds."""
    checkpoints = load_checkpoints("harmonix-all", weights_dir=shared / "weights")
    assert [checkpoint.name for checkpoint in checkpoints] == list(PUBLISHED)
    for checkpoint in checkpoints:
        assert sum(value.size for value in checkpoint.parameters.values()) == 300_631
        assert checkpoint.thresholds == PUBLISHED[checkpoint.name].thresholds


def test_loading_the_ensemble_is_little_more_than_reading_and_hashing_it(shared: Path) -> None:
    """Packing and checking eight folds take at most as long again as reading the arrays with numpy and hashing file
    and values, by the processor time of one thread in turns; measured: under a tenth."""
    folder = shared / "weights"

    def read_and_hash() -> None:
        for path in sorted(folder.glob("harmonix-fold*.npz")):
            hashlib.sha256(path.read_bytes())
            with np.load(path) as arrays:
                digest_of_values(dict(arrays))

    def load() -> None:
        assert load_model("harmonix-all", backend="fused", weights_dir=folder).num_folds == 8

    times = paired_times(load, read_and_hash, rounds=3, clock=time.thread_time)
    assert times.candidate.min() < 2 * times.reference.min(), times
