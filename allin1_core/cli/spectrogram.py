"""The subcommand ``spectrogram``: the log spectrogram of stems as a file."""

from __future__ import annotations

import argparse
import json

from allin1_core import backends
from allin1_core.cli.paths import path
from allin1_core.errors import printable
from allin1_core.files.writing import check_no_input, identities, make_folder, written_whole

HELP = "log spectrogram of stems or of an audio file"
DESCRIPTION = "Compute the log spectrogram that the network takes, and save it as .npy."
EPILOG = """\
examples:
  allin1-core spectrogram stems/song -o song.npy
      float32 (4, T, 81): bass, drums, other, vocals; 100 frames a second
  allin1-core spectrogram song.wav -o song.npy --backend torch --precision fast
      float32 (T, bands) of the file mixed to mono, at its own sample rate
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    parser.add_argument("path", type=path, metavar="PATH", help="folder of stems, stem file, or audio file")
    parser.add_argument("-o", "--out", type=path, required=True, metavar="FILE", help="where the .npy goes")
    parser.add_argument(
        "--backend",
        default="auto",
        help=f"auto, {', '.join(backends.names('spectrogram'))} or module:function (default: %(default)s)",
    )
    parser.add_argument("-d", "--device", help="cpu, cuda, cuda:N, mps or mlx (default: the best one here)")
    parser.add_argument("--precision", default="exact", help="exact or fast (default: %(default)s)")
    display = parser.add_mutually_exclusive_group()
    display.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    display.add_argument("--json", action="store_true", help="print what ran as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Compute and save; returns the exit status."""
    import numpy as np

    from allin1_core.audio.conversion import remix_to_mono
    from allin1_core.audio.reading import read_audio
    from allin1_core.separation import find_stems, read_stems
    from allin1_core.separation.folder import audio_files
    from allin1_core.spectrogram import select

    check_no_input([arguments.out], identities(audio_files(arguments.path)))
    log_spectrogram = select(arguments.backend, device=arguments.device, precision=arguments.precision)
    files = find_stems(arguments.path)
    if files is not None:
        stems = read_stems(files, str(arguments.path))
        spectrogram = log_spectrogram(stems.samples, stems.sample_rate)
    else:
        audio = read_audio(arguments.path)
        spectrogram = log_spectrogram(remix_to_mono(audio.samples), audio.sample_rate)
    make_folder(arguments.out.parent)
    with written_whole(arguments.out) as file:
        np.save(file, spectrogram)
    if arguments.json:
        report = {
            "file": str(arguments.out),
            "shape": list(spectrogram.shape),
            "dtype": str(spectrogram.dtype),
            **log_spectrogram.choice.as_dict(),
        }
        print(json.dumps(report, indent=2))
    elif not arguments.quiet:
        out = printable(str(arguments.out))
        print(f"{out}: {spectrogram.dtype} {spectrogram.shape}, {log_spectrogram.choice}")
    return 0
