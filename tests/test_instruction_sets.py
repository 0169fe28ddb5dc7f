"""The environment variable that names the best instruction set that the compiled kernels may use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from allin1_core import instruction_sets, self_test
from allin1_core.dbn import _viterbi
from allin1_core.errors import BackendError
from allin1_core.network import _fused
from allin1_core.self_test import NETWORK_BOUND, SPECTROGRAM_BOUND
from allin1_core.spectrogram import _transform

AVAILABLE = _fused.instruction_sets()
KERNELS = {"spectrogram": "fused", "network": "fused", "decoder": "cython"}

COMPUTE = """
import json, sys
import numpy as np
from allin1_core import backends, self_test
from allin1_core.dbn import _viterbi
from allin1_core.network import _fused
from allin1_core.spectrogram import _transform

np.savez(
    sys.argv[1],
    spectrogram=self_test.spectrogram("fused"),
    network=self_test.network("fused"),
    decoder=self_test.beats("cython"),
)
kernels = {"spectrogram": "fused", "network": "fused", "decoder": "cython"}
print(json.dumps({
    "kernels": [kernel.instruction_set() for kernel in (_transform, _fused, _viterbi)],
    "choices": [backends.choose(*kernel)[1].instruction_set for kernel in kernels.items()],
    "sets": [_transform.instruction_sets(), _fused.instruction_sets()],
    "widest": _viterbi.vector_widths()[-1],
}))
"""


def run(arguments: list[str], instruction_set: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "ALLIN1_INSTRUCTION_SET": instruction_set}
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("name", AVAILABLE)
def test_every_kernel_runs_on_the_set_that_is_named(name: str, tmp_path: Path) -> None:
    done = run(["-c", COMPUTE, str(tmp_path / "out.npz")], name)
    assert done.returncode == 0, done.stderr
    permitted = list(AVAILABLE[AVAILABLE.index(name) :])
    assert json.loads(done.stdout) == {
        "kernels": [name] * 3,
        "choices": [name] * 3,
        "sets": [permitted] * 2,
        "widest": {"AVX-512": 64, "AVX2": 32}.get(name, 16),
    }
    with np.load(tmp_path / "out.npz") as found:
        np.testing.assert_array_equal(found["decoder"], self_test.beats("cython"))
        for stage, bound in (("spectrogram", SPECTROGRAM_BOUND), ("network", NETWORK_BOUND)):
            np.testing.assert_allclose(found[stage], self_test.stored_values()[stage], rtol=0, atol=bound)


@pytest.mark.parametrize("name", ["AVX3", "avx2", "AVX2 ", "NEON", "AVX-512, AVX2"])
def test_a_set_that_cannot_run_here_is_refused(name: str) -> None:
    # This process may have been told to leave some out; with an empty name the child has all.
    sets = run(
        ["-c", "from allin1_core.network import _fused; print(*_fused.instruction_sets(), sep=',')"], ""
    )
    available = sets.stdout.strip().split(",")
    if name in available:
        pytest.skip(f"this processor has {name}")
    message = (
        f"ALLIN1_INSTRUCTION_SET: {name!r}; expected one of {', '.join(map(repr, available))}, which this processor "
        "can run, or no such variable"
    )
    done = run(["-m", "allin1_core.cli", "doctor", "--json"], name)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    for stage, backend in KERNELS.items():
        assert report["stages"][stage]["error"] == message
        [check] = [
            check for check in report["self_test"] if (check["stage"], check["backend"]) == (stage, backend)
        ]
        assert check["error"] == f"BackendError: {message}"
    # What needs no kernels is not held up.
    assert report["stages"]["structure"]["choice"]["backend"] == "numpy"
    done = run(["-m", "allin1_core.cli", "analyze", "absent.wav", "--device", "cpu"], name)
    assert (done.returncode, done.stderr) == (2, f"allin1-core: {message}\n")


@pytest.mark.parametrize("kernel", [_viterbi, _transform, _fused])
def test_the_variable_is_read_once(kernel: object, monkeypatch: pytest.MonkeyPatch) -> None:
    before = kernel.instruction_set()
    monkeypatch.setenv("ALLIN1_INSTRUCTION_SET", "AVX3")
    assert kernel.instruction_set() == before


def test_a_set_above_the_named_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instruction_sets, "_best_permitted", lambda: AVAILABLE[-1])
    assert _fused.instruction_sets() == _transform.instruction_sets() == AVAILABLE[-1:]
    assert _viterbi.vector_widths() == [16]
    if len(AVAILABLE) == 1:
        return
    with pytest.raises(ValueError, match=f"instruction_set: {AVAILABLE[0]!r} has no kernels here"):
        _fused.checked(AVAILABLE[0])
    monkeypatch.setattr(instruction_sets, "_best_permitted", lambda: "SSE9")
    for kernel in (_viterbi, _transform, _fused):
        with pytest.raises(BackendError, match="ALLIN1_INSTRUCTION_SET: 'SSE9'; expected one of"):
            kernel.instruction_set()
