"""The subcommand ``view``: a page to look at a result and to listen to it."""

from __future__ import annotations

import argparse
import os

from allin1_core.cli.paths import path
from allin1_core.errors import printable
from allin1_core.files.writing import check_no_input, identities

HELP = "a page to look at a result and to listen to it"
DESCRIPTION = (
    "Write one HTML file that shows a result over the song, and plays the song with clicks on the beats."
)
EPILOG = """\
examples:
  allin1-core view struct/song.json
      struct/song.html: waveform, sections, beats and bars, and the activations that 'analyze --activ' saved
  allin1-core view struct/song.json --audio demix/htdemucs/song --stems
      each stem by itself, to mute and to solo
  allin1-core view struct/song.json --against before/song.json
      two results laid over each other, with the beats and sections that differ

The page needs no network and no other file. With sound it takes about 1 MB a minute, with stems 3 MB. If there is no
audio where the result was made from, and none is named, the page has no sound.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    parser.add_argument("path", type=path, metavar="RESULT.json", help="what 'analyze' wrote")
    parser.add_argument(
        "-o", "--out", type=path, metavar="PAGE.html", help="where the page goes (default: beside the result)"
    )
    parser.add_argument(
        "--audio",
        type=path,
        metavar="PATH",
        help="audio file, folder of stems or stem file (default: what the result was made from)",
    )
    parser.add_argument("--stems", action="store_true", help="show and play the stems one by one")
    parser.add_argument(
        "--against", type=path, metavar="OTHER.json", help="another result of the song, to compare with"
    )
    parser.add_argument(
        "--array-dir", type=path, help="folder with the activations (default: that of the result)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the page; returns the exit status."""
    from allin1_core.results.page import write_page
    from allin1_core.results.result import array_paths, load_result

    out = arguments.out or arguments.path.with_suffix(".html")
    arrays = array_paths(arguments.path, arguments.array_dir).values()
    check_no_input([out], identities(filter(None, [arguments.path, arguments.against, *arrays])))
    result = load_result(arguments.path, load_embeddings=False, array_dir=arguments.array_dir)
    against = None
    if arguments.against:
        against = load_result(arguments.against, load_activations=False, load_embeddings=False)
    written = write_page(result, out, audio=arguments.audio, stems=arguments.stems, against=against)
    silent = "" if arguments.audio or os.path.exists(result.path) else f"; no sound: nothing at {result.path}"
    print(printable(f"{written}: {os.path.getsize(written) / 1e6:.1f} MB{silent}"))
    return 0
