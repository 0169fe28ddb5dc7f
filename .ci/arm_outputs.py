"""What each stage gives for the short goldens, held to them and written to a file, on either processor (arm.py)."""

from __future__ import annotations

import sys

import numpy as np

from allin1_core.dbn import load_decoder
from allin1_core.dbn.metrical import BEATS_PER_BAR, FRAMES_PER_SECOND, decoder_input
from allin1_core.network import NetworkOutput, load_model
from allin1_core.spectrogram import log_spectrogram
from allin1_core.structure import LOCAL_MAXIMA_WINDOW, pick_boundaries, sections
from allin1_core.structure.numpy_backend import local_maxima
from parity.agreement import compare, require_each
from parity.decoder_agreement import decode_all
from parity.material import read_stems, shared_folder
from parity.oracles import network_golden, pipeline
from parity.oracles.structure import compare_sections
from parity.test_network import differences


def outputs(track: str) -> dict[str, np.ndarray]:
    """Spectrogram, logits, probabilities and decoding of a track, after its results were held to the golden ones."""
    shared = shared_folder()
    assert shared is not None
    golden, expected = network_golden.read_golden(shared, track), pipeline.read_golden(shared, track)
    spectrogram = np.asarray(log_spectrogram(read_stems(track), backend="fused"))
    model = load_model("harmonix-all", backend="fused", device="cpu", weights_dir=shared / "weights")
    found = model(spectrogram, return_logits=True).to_numpy()
    require_each(differences(found, golden), track)
    decoder = load_decoder()[0](
        beats_per_bar=list(BEATS_PER_BAR), threshold=model.thresholds.downbeat, fps=FRAMES_PER_SECOND
    )
    beats = decoder(decoder_input(found.beat, found.downbeat))
    compare(beats, np.stack([expected.beats, expected.positions], axis=-1), allowed=1e-9).require(track)
    boundaries = pick_boundaries(local_maxima(found.segment, LOCAL_MAXIMA_WINDOW))
    require_each(
        compare_sections(sections(boundaries, found.label), expected.segments, allowed=pipeline.ONE_FRAME),
        track,
    )
    _, paths = decode_all(decoder, decoder_input(golden["beat"], golden["downbeat"]))
    return {
        "spectrogram": spectrogram,
        "logits": _rows(found.logits),
        "probabilities": _rows(found),
        "beats": beats,
        "path": np.concatenate([path for path, _ in paths]),
        "log probability": np.array([log_probability for _, log_probability in paths]),
    }


def _rows(found: NetworkOutput | dict[str, np.ndarray] | None) -> np.ndarray:
    values = [
        found[name] if isinstance(found, dict) else getattr(found, name) for name in network_golden.OUTPUTS
    ]
    return np.concatenate([np.atleast_2d(value) for value in values])


if __name__ == "__main__":
    np.savez(
        sys.argv[1],
        **{
            f"{track}, {name}": value
            for track in network_golden.SHORT_TRACKS
            for name, value in outputs(track).items()
        },
    )
