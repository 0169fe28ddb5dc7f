"""An analyzer and a model in other processes, and in a thread that outlives the main one: always the same bits."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hard_use.networks import checkpoint

from allin1_core import Analyzer
from allin1_core.network import build_model
from allin1_core.settings import Settings
from parity.inputs.networks import random_spectrogram

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def expected(small_model: str, song: Path) -> str:
    """JSON of the analysis of the folder ``song``, of which there is another name in the tests' own folder."""
    return Analyzer(model=small_model, device="cpu", num_threads=2)(song).to_json()


def run(program: str, *arguments: object) -> str:
    """What a process of its own prints; one that hangs is an error."""
    if not program.endswith(".py"):
        arguments, program = (program, *arguments), "-c"
    done = subprocess.run(
        [sys.executable, program, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


FORK = """
import multiprocessing, sys
from allin1_core import Analyzer

folder, model = sys.argv[1:]
analyzer = Analyzer(model=model, device="cpu", num_threads=2)
before = analyzer(folder).to_json()
context = multiprocessing.get_context("fork")
receiver, sender = context.Pipe()
child = context.Process(target=lambda: sender.send(analyzer(folder).to_json()), daemon=True)
child.start()
if not receiver.poll(60):
    child.kill()
    sys.exit("the child hangs")
found = receiver.recv()
child.join()
assert child.exitcode == 0
assert analyzer(folder).to_json() == before
print(found)
"""


def test_a_forked_child_goes_on_with_an_analyzer_that_has_run(
    expected: str, small_model: str, tmp_path: Path
) -> None:
    assert run(FORK, tmp_path / "song", small_model) == expected + "\n"


FORK_AMIDST = """
import multiprocessing, sys, threading
from allin1_core import Analyzer
from allin1_core.network import weights
from allin1_core.timings.recorder import Timings

folder, model = sys.argv[1:]
analyzer, timings = Analyzer(model=model, device="cpu", num_threads=2), Timings()
load, at_it, go_on = weights.load_checkpoints, threading.Event(), threading.Event()

def waiting(*arguments, **options):
    if threading.current_thread().name == "model_load" and not go_on.is_set():
        at_it.set()
        go_on.wait(100)
    return load(*arguments, **options)

weights.load_checkpoints = waiting
# One thread reads the weights, and another waits for them and holds the model's lock.
other = threading.Thread(target=lambda: analyzer(folder, timings=timings))
other.start()
at_it.wait(30)
while not analyzer.session._model._lock._lock.locked():
    pass
context = multiprocessing.get_context("fork")
receiver, sender = context.Pipe()

def child():
    weights.load_checkpoints = load
    sender.send(analyzer(folder, timings=timings).to_json())

process = context.Process(target=child, daemon=True)
with timings._lock:
    process.start()
if not receiver.poll(60):
    process.kill()
    go_on.set()
    sys.exit("the child hangs")
print(receiver.recv())
go_on.set()
other.join()
process.join()
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_in_the_midst_of_loading_leaves_no_lock_behind(
    expected: str, small_model: str, tmp_path: Path
) -> None:
    assert run(FORK_AMIDST, tmp_path / "song", small_model) == expected + "\n"


SPAWN = """
import multiprocessing, sys
import numpy as np
from allin1_core import Analyzer, load_model

if __name__ == "__main__":
    folder, model, spectrogram = sys.argv[1:]
    analyzer = Analyzer(model=model, device="cpu", num_threads=2)
    network = load_model(model, device="cpu", num_threads=2)
    values = np.load(spectrogram)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        print(pool.apply_async(analyzer, (folder,)).get(120).to_json())
        theirs = pool.apply_async(network, (values,), {"return_logits": True}).get(120)
    ours = network(values, return_logits=True)
    for one, other in zip(theirs.arrays(), ours.arrays(), strict=True):
        np.testing.assert_array_equal(one, other)
"""


def test_a_spawned_worker_takes_an_analyzer_and_a_model(
    expected: str, small_model: str, tmp_path: Path
) -> None:
    np.save(tmp_path / "spectrogram.npy", random_spectrogram(600))
    (tmp_path / "spawning.py").write_text(SPAWN, encoding="utf-8")
    arguments = [tmp_path / "song", small_model, tmp_path / "spectrogram.npy"]
    assert run(str(tmp_path / "spawning.py"), *arguments) == expected + "\n"


def test_an_analyzer_is_pickled_as_its_options(expected: str, small_model: str, tmp_path: Path) -> None:
    changed = {"model": small_model, "device": "cpu", "num_threads": 1, "spec_backend": "numpy"}
    analyzer = Analyzer(**changed, demix_seed=3, weights_dir=Path("w"))
    before = len(pickle.dumps(analyzer))
    result = analyzer(tmp_path / "song")
    assert len(pickle.dumps(analyzer)) == before < 1000
    arrived = pickle.loads(pickle.dumps(analyzer))
    assert arrived.session.settings == Settings(**changed, demix_seed=3, weights_dir=Path("w"))
    assert arrived(tmp_path / "song").to_json() == result.to_json()
    assert result.provenance["stages"]["spectrogram"]["requested_backend"] == "numpy"


@pytest.mark.parametrize("backend", ["fused", "torch", "auto"])
def test_a_model_is_pickled_with_its_weights(backend: str) -> None:
    if backend == "torch":
        pytest.importorskip("torch")
    checkpoints = [checkpoint(seed=seed) for seed in range(2)]
    model = build_model(checkpoints, backend=backend, device="cpu", num_threads=2)
    arrived = pickle.loads(pickle.dumps(model))
    assert arrived.choice == model.choice
    assert arrived.provenance == model.provenance
    assert (arrived.thresholds, arrived.configuration) == (model.thresholds, model.configuration)
    spectrogram = random_spectrogram(300)
    found, expected = (
        one(spectrogram, return_logits=True, return_embeddings=True).to_numpy() for one in (arrived, model)
    )
    for one, other in zip(found.arrays(), expected.arrays(), strict=True):
        np.testing.assert_array_equal(one, other)


OUTLIVING = """
import sys, threading
import allin1_core

def analyze():
    threading.main_thread().join()
    result = allin1_core.analyze(sys.argv[1], model=sys.argv[2], device="cpu", num_threads=2)
    print(result.to_json(), flush=True)

threading.Thread(target=analyze).start()
"""


@pytest.mark.parametrize("loaded", [False, True], ids=["loading there", "loaded before"])
def test_a_thread_that_outlives_the_main_one_analyzes(
    loaded: bool, expected: str, small_model: str, tmp_path: Path
) -> None:
    program = OUTLIVING
    if loaded:
        program += "allin1_core.analyze(sys.argv[1], model=sys.argv[2], device='cpu')\n"
    assert run(program, tmp_path / "song", small_model) == expected + "\n"
