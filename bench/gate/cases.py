"""The short, single-purpose measurements of the gate: one implementation against its oracle on a small input.

An input is real music where it can be, short enough for many rounds, and the same on every run.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core import backends
from allin1_core.audio.types import STEM_NAMES
from allin1_core.threads import ThreadPool
from parity.agreement import largest_difference
from parity.environment import usable_cores
from parity.implementations import cpu_device
from parity.inputs.activations import FPS, steady
from parity.material import SAMPLE_RATE, default_track, shared_folder, write_stems
from parity.oracles.madmom_dbn import make_decoder, oracle_name

# The decoder as the pipeline uses it; the threshold is of the published ensemble.
DECODER: dict[str, Any] = {"beats_per_bar": [3, 4], "threshold": 0.24}


@dataclasses.dataclass(frozen=True)
class Case:
    """One implementation, its oracle, and how to tell whether they agree.

    Attributes
    ----------
    stage, backend, precision : str
    threads : int
        What the candidate may use; the oracle uses what it uses.
    candidate, reference : callable
        Without arguments; return what `difference` compares.
    difference : callable
        Of the two outputs: the largest absolute difference, infinite where the shapes differ.
    oracle : str
        Name of the reference, as a bench report has it.
    calls : int
        Calls of the candidate that make up a round: enough for some tens of milliseconds.
    variant : str
        What tells it from others of the same backend.
    """

    stage: str
    backend: str
    precision: str
    threads: int
    candidate: Callable[[], Any]
    reference: Callable[[], Any]
    difference: Callable[[Any, Any], float]
    oracle: str
    calls: int = 1
    variant: str = ""

    @property
    def key(self) -> str:
        """Name of the row."""
        threads = f"{self.threads} thread{'s' if self.threads != 1 else ''}"
        return "/".join(filter(None, (self.stage, self.backend, self.precision, self.variant, threads)))


def madmom_is_installed() -> bool:
    """Whether the oracle is here (it has wheels for some versions of Python only)."""
    return importlib.util.find_spec("madmom") is not None


def can_be_installed(distribution: str) -> bool:
    """Whether this project or one of its extras installs a distribution on this machine and Python."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    extras = importlib.metadata.metadata("allin1-core").get_all("Provides-Extra") or []
    wanted = canonicalize_name(distribution)
    requirements = map(Requirement, importlib.metadata.requires("allin1-core") or [])
    return wanted == "allin1-core" or any(
        requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        for requirement in requirements
        for extra in ("", *extras)
        if canonicalize_name(requirement.name) == wanted
    )


# Backends that take milliseconds where others take a tenth of a second.
_IN_KERNELS = ("fused", "torch", "mlx")


def spectrogram_case(backend: str, precision: str, *, threads: int, seconds: float) -> Case:
    """Four stems against madmom; `backend` may also be ``module:function``."""
    from allin1_core.spectrogram import select
    from parity.oracles.madmom_spectrogram import madmom_spectrogram

    stems = default_track().lasting(seconds).stems
    compute = select(backend, precision=precision)
    return Case(
        "spectrogram",
        backend,
        precision,
        threads,
        lambda: compute(stems, SAMPLE_RATE),
        lambda: np.stack([madmom_spectrogram(stem, SAMPLE_RATE) for stem in stems]),
        largest_difference,
        oracle_name(),
        # On several threads the bars are for calls of which half find theirs awake.
        calls=10 if backend in _IN_KERNELS else min(threads, 2),
    )


def decoder_case(
    backend: str, *, threads: int, seconds: float, decode: Callable[[np.ndarray], np.ndarray] | None = None
) -> Case:
    """Beats against madmom's; `decode` stands in for ours where a test wants to break it."""
    inputs = steady(seconds)
    ours = decode or our_decoder(backend, threads)
    madmom = madmom_decoder()
    return Case(
        "decoder",
        backend,
        "exact",
        threads,
        lambda: ours(inputs),
        lambda: madmom(inputs),
        largest_difference,
        oracle_name(),
        calls=max(1, round(200 / seconds)),
    )


def our_decoder(backend: str, threads: int = 1) -> Any:
    """The decoder as the pipeline uses it: 3 or 4 beats a bar, 100 frames a second."""
    from allin1_core.dbn import DBNDownBeatTrackingProcessor

    return DBNDownBeatTrackingProcessor(**DECODER, fps=FPS, num_threads=threads, backend=backend)


def madmom_decoder() -> Any:
    """madmom's decoder with the same parameters."""
    return make_decoder(**DECODER, fps=FPS)


def network_case(backend: str, *, threads: int, seconds: float) -> Case:
    """One fold against the same network in plain torch, with the published weights or, without them, seeded ones."""
    from allin1_core.network import build_model, load_checkpoints
    from allin1_core.spectrogram import log_spectrogram
    from parity.inputs.networks import random_checkpoint

    folder = shared_folder()
    if folder is not None:
        checkpoints = load_checkpoints("harmonix-fold0", weights_dir=folder / "weights")
    else:
        checkpoints = [random_checkpoint(0)]
    spectrogram = log_spectrogram(default_track().lasting(seconds).stems, backend="numpy")
    ours = build_model(
        checkpoints, backend=backend, device=cpu_device("network", backend), num_threads=threads
    )
    plain = build_model(checkpoints, backend="torch", device="cpu", num_threads=threads)
    return Case(
        "network",
        backend,
        "exact",
        threads,
        lambda: _probabilities(ours(spectrogram)),
        lambda: _probabilities(plain(spectrogram)),
        largest_difference,
        "plain torch on cpu",
    )


def separation_case(*, seconds: float) -> Case:
    """A mix of that length separated by a network of the published shape, against demucs-infer's ``apply_model``.

    Weights are random, on which the time does not depend.
    """
    import torch

    from allin1_core.separation.overlap_add import OverlapAdd
    from parity.inputs import separation
    from parity.oracles import demucs_apply

    # The network's scale is set on a whole segment, 7.8 s.
    whole, short = (separation.stereo_mix(default_track().lasting(length).stems) for length in (10, seconds))
    network, mix = separation.htdemucs(whole, **separation.PUBLISHED), torch.from_numpy(short)
    separate = OverlapAdd(network, device="cpu", precision="exact")
    return Case(
        "separation",
        "demucs-infer",
        "exact",
        usable_cores(),
        lambda: separate(mix, seed=0, overlap=0.25).numpy(),
        lambda: demucs_apply.separate(network, mix, seed=0, overlap=0.25, device="cpu").numpy(),
        largest_difference,
        demucs_apply.ORACLE,
    )


def write_reading_stems(folder: Path, kind: str) -> list[Path]:
    """Write the default track's stems to read; returns their paths.

    Parameters
    ----------
    folder : Path
    kind : str
        Suffix, and "stereo" behind it for stems of two channels, the second a millisecond behind the first.
    """
    suffix, *stereo = kind.split()
    stems = default_track().stems
    if stereo:
        stems = np.stack([stems, np.roll(stems, SAMPLE_RATE // 1000, axis=1)], axis=2)
    write_stems(folder, stems, suffix)
    return [folder / f"{stem}.{suffix}" for stem in STEM_NAMES]


def reading_variant(kind: str) -> str:
    """``four stems, WAV, stereo``: what reports call files of a kind."""
    suffix, *stereo = kind.split()
    return ", ".join(("four stems", suffix.upper(), *stereo))


def reading_case(kind: str) -> Case:
    """Stems of 16 bits, or MP3, read from files against bare decoding with libsndfile, a thread a file in both.

    Those of two channels are mixed to mono as madmom does it.
    """
    import soundfile

    from allin1_core.separation import read_stems_folder

    folder = tempfile.TemporaryDirectory()  # removed when the case is dropped, whose functions hold it
    paths = write_reading_stems(Path(folder.name), kind)

    def decode(path: Path) -> np.ndarray:
        samples: np.ndarray = soundfile.read(path, dtype="float32" if path.suffix == ".mp3" else "int16")[0]
        return samples if samples.ndim == 1 else np.mean(samples, axis=1).astype(samples.dtype)

    def libsndfile() -> np.ndarray:
        with ThreadPool() as pool:
            return np.stack(list(pool.map(decode, paths)))

    return Case(
        "audio reading",
        reading_variant(kind),
        "exact",
        usable_cores(),
        lambda: read_stems_folder(folder.name).samples,
        libsndfile,
        largest_difference,
        f"soundfile {soundfile.__version__}",
    )


def _probabilities(output: Any) -> np.ndarray:
    output = output.to_numpy()
    return np.concatenate([output.beat[None], output.downbeat[None], output.segment[None], output.label])


def installed(stage: str, backend: str) -> bool:
    """Whether a backend can run on the CPU of this machine."""
    if ":" in backend:
        return True
    row = backends.get(stage, backend)
    return row.installed and bool({"cpu", "mlx"} & set(row.devices))
