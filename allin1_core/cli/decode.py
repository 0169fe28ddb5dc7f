"""The subcommand ``decode``: beats from activations in a file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from allin1_core.cli.hints import add_anchors, add_hints
from allin1_core.cli.paths import path
from allin1_core.dbn.metrical import FRAMES_PER_SECOND, beats_from_decoder, decoder_input
from allin1_core.errors import ActivationsError, HintError
from allin1_core.files.writing import check_no_input, identities, make_folder, write_text
from allin1_core.results.exports import beats_lines

if TYPE_CHECKING:
    import numpy as np

# Bytes: a week of activations.
_LARGEST = 2 << 30
# What the published ensemble was tuned to.
_THRESHOLD = 0.24

HELP = "beats from activations"
DESCRIPTION = "Decode beats and their positions in the bar from saved activations."
EPILOG = """\
examples:
  allin1-core decode struct/song.activ.npz
      prints time in seconds, tab, position in the bar, for each beat
  allin1-core decode activations.npy --beats-per-bar 3,4 --threshold 0.05 -o song.beats
      float (T, 2): beat but not downbeat, downbeat; as madmom's DBNDownBeatTrackingProcessor takes them
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    parser.add_argument(
        "path", type=path, metavar="FILE", help="NAME.activ.npz of 'analyze --activ', or .npy of shape (T, 2)"
    )
    parser.add_argument(
        "-o", "--out", type=path, metavar="FILE", help="write the beats there instead of printing them"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        default=_THRESHOLD,
        help="decode between the first and the last activation that reaches it (default: %(default)s)",
    )
    parser.add_argument(
        "--fps", type=float, default=FRAMES_PER_SECOND, help="frames a second (default: %(default)s)"
    )
    parser.add_argument("--backend", default="auto", help="auto, cython or numpy (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print beats and what ran as JSON")
    add_anchors(add_hints(parser))


def run(arguments: argparse.Namespace) -> int:
    """Decode and print; returns the exit status."""
    from allin1_core.dbn import DBNDownBeatTrackingProcessor

    if arguments.out:
        check_no_input([arguments.out], identities([arguments.path]))
    activations = read_activations(arguments.path)
    try:
        decode = DBNDownBeatTrackingProcessor(
            beats_per_bar=arguments.beats_per_bar,
            min_bpm=arguments.min_bpm,
            max_bpm=arguments.max_bpm,
            meter_weights=arguments.meter_weights,
            meter_change_prob=arguments.meter_change_prob,
            threshold=arguments.threshold,
            fps=arguments.fps,
            backend=arguments.backend,
        )
    except ValueError as error:
        raise argparse.ArgumentError(None, str(error)) from error
    try:
        beats = beats_from_decoder(decode(activations, anchors=arguments.anchors))
    except HintError:
        raise
    except ValueError as error:
        raise ActivationsError(f"{arguments.path}: {error}") from error
    if arguments.json:
        text = json.dumps(
            {
                "beats": beats.times,
                "downbeats": beats.downbeats,
                "beat_positions": beats.positions,
                "decoder": decode.choice.as_dict(),
            },
            indent=2,
        )
    else:
        text = beats_lines(beats.times, beats.positions)
    if arguments.out:
        make_folder(arguments.out.parent)
        write_text(arguments.out, text)
    else:
        print(text, end="" if text.endswith("\n") or not text else "\n")
    return 0


def read_activations(path: Path) -> np.ndarray:
    """Activations for the downbeat decoder from a file.

    Parameters
    ----------
    path : Path
        ``.npz`` with ``beat`` and ``downbeat`` ``(T,)``, or ``.npy`` ``(T, 2)``.

    Returns
    -------
    float (T, 2)

    Raises
    ------
    ActivationsError
        If the file cannot be read or holds something else.
    """
    import numpy as np

    from allin1_core.files.reading import read_arrays

    expected = "expected .npz with 'beat' and 'downbeat' of equal length, or .npy of shape (T, 2)"
    loaded = read_arrays(path, ActivationsError, most=_LARGEST)
    if isinstance(loaded, np.ndarray):
        if loaded.ndim != 2 or loaded.shape[1] != 2 or loaded.dtype.kind != "f":
            raise ActivationsError(f"{path}: {loaded.dtype} {loaded.shape}; {expected}")
        return loaded
    if not {"beat", "downbeat"} <= loaded.keys():
        raise ActivationsError(f"{path}: holds {', '.join(loaded)[:200]}; {expected}")
    beat, downbeat = loaded["beat"], loaded["downbeat"]
    if beat.ndim != 1 or beat.shape != downbeat.shape or {beat.dtype.kind, downbeat.dtype.kind} != {"f"}:
        raise ActivationsError(
            f"{path}: beat {beat.dtype} {beat.shape}, downbeat {downbeat.dtype} {downbeat.shape}; {expected}"
        )
    try:
        return decoder_input(beat, downbeat)
    except ValueError as error:
        raise ActivationsError(f"{path}: {error}") from error
