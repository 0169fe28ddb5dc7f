"""The command ``allin1-core``: one module for each subcommand, over the Python interface."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import itertools
import os
import signal
import sys
import textwrap
from collections.abc import Sequence
from typing import NoReturn

from allin1_core import __version__
from allin1_core.errors import Allin1Error, BackendError, HintError, OptionError, printable

_DESCRIPTION = """\
Tempo, beats, downbeats and sections of songs, by the All-In-One network.

A song is separated into four stems (or its stems are given), each becomes a log spectrogram, the network gives
probabilities for each hundredth of a second, and from those beats and sections are decoded.
"""

_EPILOG = """\
start here:
  allin1-core doctor                           what is installed and would run
  allin1-core analyze song.mp3                 writes struct/song.json
  allin1-core analyze stems/song               a folder of stems, not separated
  allin1-core view struct/song.json            a page to look at and listen to
  allin1-core analyze *.mp3 --timings t.jsonl  many songs; where the time goes
  allin1-core timings t.jsonl                  shows it
  allin1-core library music --out labels       a library of songs

'allin1-core COMMAND --help' explains each command. Exit status: 0 done, 1 something failed, 2 misused.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments after the program's name; by default those of the process.
    """
    if sys.stderr is None:  # closed: print would take standard output for it
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name that the terminal's encoding lacks is no reason to fail when the work is done.
            stream.reconfigure(errors="backslashreplace")
    former = None
    with contextlib.suppress(ValueError):  # in another thread than the main one
        former = signal.signal(signal.SIGTERM, _interrupt)  # the end of a job or a container: as Ctrl-C
    try:
        try:
            return _run(sys.argv[1:] if argv is None else argv)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # the interpreter would do it where nothing can be caught any more
    # What was asked for is wrong, not what was found.
    except (argparse.ArgumentError, BackendError, HintError, OptionError) as error:
        print(f"allin1-core: {printable(str(error))}", file=sys.stderr)
        return 2
    except Allin1Error as error:
        print(f"allin1-core: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # The reader (head, less) has seen enough; keep the interpreter from complaining when it flushes.
        sys.stdout = None
        return 1
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        # What is written to files says so itself.
        print(
            f"allin1-core: standard output: cannot be written ({error.strerror}); files are complete. Free space",
            file=sys.stderr,
        )
        sys.stdout = None
        return 1
    except KeyboardInterrupt as interruption:
        print("allin1-core: interrupted; tracks that are done are kept, run again to go on", file=sys.stderr)
        return 128 + (interruption.args or (signal.SIGINT,))[0]
    finally:
        if former is not None:
            signal.signal(signal.SIGTERM, former)


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt(number)


def _run(argv: Sequence[str]) -> int:
    # Imported by what main calls: an interruption in the second that it may take is then told as any other.
    from allin1_core.cli.analyze import complete_overwrite

    arguments, unknown = make_parser().parse_known_args(complete_overwrite(argv))
    if unknown:
        arguments.refuse(f"unrecognized arguments: {' '.join(unknown)}")
    return int(arguments.run(arguments))


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Paragraphs are filled to the width of the terminal; lines of commands, two spaces in, stay lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        filled = []
        for (spaces, is_blank), lines in itertools.groupby(
            text.splitlines(), lambda line: (len(line) - len(line.lstrip()), not line)
        ):
            margin = indent + " " * spaces
            if is_blank or spaces == 2:
                filled += [indent + line for line in lines]
            else:
                words = " ".join(line.strip() for line in lines)
                filled += textwrap.wrap(
                    words, min(width, 110), initial_indent=margin, subsequent_indent=margin,
                    break_long_words=False, break_on_hyphens=False,
                )  # fmt: skip
        return "\n".join(filled)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage of forty options before it."""
        self.exit(2, f"{self.prog}: error: {printable(message)}; see '{self.prog} --help'\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of all arguments."""
    from allin1_core.cli import analyze, decode, doctor, library, spectrogram, timings, view

    parser = _Parser(
        "allin1-core",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=_HelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"allin1-core {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in (analyze, library, view, spectrogram, decode, timings, doctor):
        subparser = commands.add_parser(
            command.__name__.rpartition(".")[2],
            help=command.HELP,
            description=command.DESCRIPTION,
            epilog=command.EPILOG,
            formatter_class=_HelpFormatter,
        )
        subparser.set_defaults(run=command.run, refuse=subparser.error)
        command.add_arguments(subparser)
    return parser
