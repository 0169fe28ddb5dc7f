"""The subcommand ``library``: a library of songs, and how far it is."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from allin1_core.cli.analyze import add_settings
from allin1_core.errors import printable
from allin1_core.settings import Settings, options_of

HELP = "a library of songs, on one machine or many"
DESCRIPTION = (
    "Analyse a library of songs: start it, lose a machine, start it again; what is done is not done again."
)
EPILOG = """\
examples:
  allin1-core library music --out labels
      every audio file and folder of stems below music/: labels/results/NAME.json of each, as 'analyze' writes it, and
      the tables labels/songs/ and labels/failures/, Parquet in parts
  allin1-core library music --out labels
      again, after it was stopped: goes on where it was, tries again what failed, and adds what is new or has changed
  allin1-core library status labels
      how many songs are done, failed and remain; reads the tables alone, which lack the last minutes, or the last
      twentieth, of a run that is at work or was killed: its results are there, and the next run counts them
  allin1-core library songs.txt --out labels
      a path or URL on each line; of songs.parquet the column 'path', or --column NAME
  allin1-core library s3://bucket/music --out s3://bucket/labels
      an fsspec URL on either side: s3 needs s3fs, gs needs gcsfs, https songs need aiohttp
  allin1-core library music --out labels --shard $SLURM_ARRAY_TASK_ID/64
      one of 64 parts, as with sbatch --array=1-64; all parts have the same SOURCE and --out, and need not know of each
      other. A Kubernetes job counts from 0: --shard $((JOB_COMPLETION_INDEX + 1))/64
  allin1-core library music --out labels --engine ray
      a worker for each GPU, or without any for each core, of this machine; nothing else needs to be set up
  allin1-core library /shared/music --out /shared/labels --engine ray --address auto
      of a Ray cluster that is running, whose machines see the same paths; a song whose worker dies is tried on another
      one, twice, and then fails

In Python the tables are pandas.read_parquet('labels/songs').

Results of other settings, or of another version, are never mixed: with those, give another --out. A song that changed
(size or time, and then SHA-256) is analysed again. A song that fails, or a folder that cannot be read, does not stop
the others; the exit status is 1.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="folder, list (.txt, .parquet) or song, as path or URL; or the word status (a folder called so: ./status)",
    )
    parser.add_argument("status_of", metavar="OUT", nargs="?", help="after 'status': the --out to tell about")
    parser.add_argument("-o", "--out", help="folder or URL for results and tables")
    parser.add_argument("--column", default="path", help="of a Parquet list (default: %(default)s)")
    parser.add_argument("--shard", metavar="PART/PARTS", help="analyse one of so many parts, such as 3/64")

    add = parser.add_argument_group("where it runs").add_argument
    add("--engine", default="local", help="local or ray (default: %(default)s)")
    add("--address", help="of a Ray cluster, or auto (default: Ray is started here)")
    add("--workers", dest="num_workers", type=int, help="of Ray (default: one for each GPU, or each core)")

    add = parser.add_argument_group("what is written besides").add_argument
    add(
        "-a", "--activ", dest="include_activations", action="store_true", help="probabilities, NAME.activ.npz"
    )
    add("-e", "--embed", dest="include_embeddings", action="store_true", help="hidden states, NAME.embed.npy")
    add("--timings", dest="timings_path", metavar="FILE", help="add a line for each stage, JSONL")

    add_settings(parser)

    display = parser.add_mutually_exclusive_group()
    display.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    display.add_argument("--json", action="store_true", help="print the status as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Analyse a library, or tell how far it is; returns the exit status."""
    from allin1_core.library import analyze_library, library_status

    if arguments.source == "status":
        if arguments.status_of is None:
            raise argparse.ArgumentError(
                None, "status: of nothing; expected 'allin1-core library status OUT'"
            )
        status = library_status(arguments.status_of)
    elif arguments.status_of is not None:
        raise argparse.ArgumentError(
            None, f"{arguments.status_of}: a second source; expected one. List several in a .txt file"
        )
    elif arguments.out is None:
        raise argparse.ArgumentError(
            None, "out: not given; expected --out with a folder or URL for the results"
        )
    else:
        names = ("engine", "address", "num_workers", "shard", "column", "timings_path")
        status = analyze_library(
            arguments.source,
            arguments.out,
            **{name: getattr(arguments, name) for name in names},
            include_activations=arguments.include_activations,
            include_embeddings=arguments.include_embeddings,
            progress=False if arguments.quiet or arguments.json else None,
            **options_of(vars(arguments), Settings),
        )
    if arguments.json:
        print(json.dumps({**dataclasses.asdict(status), "remaining": status.remaining}, indent=2))
    elif not arguments.quiet:
        print(
            f"{status.done} of {status.songs} songs done, {status.failed} failed, {status.remaining} remain"
        )
        for error, number in status.failures.items():
            print(f"  {number} {error}")
        if status.in_all != status.done:
            print(f"with other sources, {status.in_all} songs are done in this library")
    if not status.failed or arguments.source == "status":
        return 0
    told = f"{status.failed} of {status.songs} songs failed; the table {arguments.out}/failures says why"
    print(f"allin1-core: {printable(told)}", file=sys.stderr)
    return 1
