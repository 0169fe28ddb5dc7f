"""The subcommand ``analyze``: beats, downbeats, tempo and sections of songs."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from allin1_core import backends
from allin1_core.cli.hints import add_anchors, add_hints
from allin1_core.errors import Allin1Error, BatchError, OptionError, failure_line, printable
from allin1_core.results.exports import FORMATS
from allin1_core.results.result import AnalysisResult
from allin1_core.settings import Outputs, Settings, options_of, parse_overwrite

HELP = "beats, downbeats, tempo and sections of songs"
DESCRIPTION = "Find beats, downbeats, tempo and labelled sections, and write them as JSON."
EPILOG = """\
examples:
  allin1-core analyze song.mp3
      separates with Demucs and writes struct/song.json
  allin1-core analyze stems/one stems/two -o results
      folders with bass, drums, other and vocals (guitar and piano are added to other): nothing is separated, nor is
      a file that holds its stems as streams of those names, such as song.stem.mp4
  allin1-core analyze songs/*.wav --stems-dir stems
      stems of songs/one.wav are in stems/one/
  allin1-core analyze song.mp3 --export beats,audacity,jams --visualize --sonify
      also writes struct/song.beats, .labels.txt and .jams, viz/song.pdf and sonif/song.sonif.wav
  allin1-core analyze song.mp3 --export midi,reaper,rekordbox
      tempo map, project and collection: struct/song.mid, .rpp and .rekordbox.xml
  allin1-core analyze songs/*.mp3 --keep-byproducts --timings timings.jsonl
      a run that was killed goes on where it was; each stage of each track leaves a line in timings.jsonl
  allin1-core analyze waltz.mp3 --beats-per-bar 3 --min-bpm 80 --anchor 12.34:1
      bars of three beats, none slower than 80 BPM, and a downbeat at 12.34 s

NAME is the file's name without its suffix; where another path has that, eight digits of the path's SHA-256 are added.

A result that is there is not made again. If it was made from other audio, by another model, at another precision, from
stems that came another way or with other hints, that is an error, which says what differs: --overwrite json makes it
again. Another device, or another backend that 'auto' chooses, is no difference: they give the same beats and sections.

A mix may decode to 2 GiB of samples, stems, as mono, to 4 GiB together: 3.4 hours at 44.1 kHz in 16 bits, half of
that if the files hold more. A file that is longer is refused before it takes more memory. Separation takes several
times the mix.

A track that fails does not stop the others; failures are listed at the end, and the exit status is 1.
"""


def _backends(stage: str, *others: str) -> str:
    """What an option that names a backend takes, and what ``auto`` takes on a CPU."""
    rows = backends.built_in(stage)
    names = ["auto", *(row.name for row in rows), *others]
    on_cpu = next(row.name for row in rows if "cpu" in row.devices)
    return f"{', '.join(names[:-1])} or {names[-1]}; on a CPU auto takes {on_cpu} first"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="audio file, folder of stems, stem file, or pattern"
    )

    add = parser.add_argument_group("what is written").add_argument
    add("-o", "--out-dir", default="./struct", help="folder for NAME.json (default: %(default)s)")
    add(
        "--export",
        dest="exports",
        metavar="FORMATS",
        default="",
        help=f"also write, separated by commas: {', '.join(FORMATS)}",
    )
    add(
        "-a",
        "--activ",
        dest="include_activations",
        action="store_true",
        help="save the probabilities, NAME.activ.npz",
    )
    add(
        "-e",
        "--embed",
        dest="include_embeddings",
        action="store_true",
        help="save the hidden states, NAME.embed.npy",
    )
    add(
        "--confidences",
        dest="include_confidences",
        action="store_true",
        help="say in the JSON how probable each beat, downbeat, boundary and label is",
    )
    add("--array-dir", help="folder for probabilities and hidden states (default: that of the JSON)")
    add("-v", "--visualize", action="store_true", help="draw each result as a PDF")
    add("--viz-dir", metavar="DIR", help="the same, to DIR (else: ./viz)")
    add("-s", "--sonify", action="store_true", help="mix clicks into each track, as WAV")
    add("--sonif-dir", metavar="DIR", help="the same, to DIR (else: ./sonif)")
    add(
        "--timings",
        "--timings-path",
        dest="timings_path",
        metavar="FILE",
        help="add a line for each stage, JSONL",
    )
    add(
        "--overwrite",
        nargs="?",
        const="all",
        default="",
        metavar="WHAT",
        help="make again what is there: all (default), or of json,demix,spec",
    )

    add = parser.add_argument_group("stems").add_argument
    add("--stems-dir", help="ready stems: DIR/NAME/{bass,drums,other,vocals}.*")
    add("-k", "--keep-byproducts", action="store_true", help="keep stems and spectrograms, and use kept ones")
    add("--demix-dir", default=Outputs.demix_dir, help="where stems are kept (default: %(default)s)")
    add("--spec-dir", default=Outputs.spec_dir, help="where spectrograms are kept (default: %(default)s)")

    add_anchors(add_settings(parser))

    display = parser.add_mutually_exclusive_group()
    display.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    display.add_argument("--json", action="store_true", help="print results and failures as JSON")
    parser.add_argument("--debug", action="store_true", help="print the traceback of each failure")


def add_settings(parser: argparse.ArgumentParser) -> Callable[..., argparse.Action]:
    """Add the options of `Settings`; returns how to add to the last group, of hints."""
    add = parser.add_argument_group("what runs ('allin1-core doctor' shows the choices)").add_argument
    add("-m", "--model", default=Settings.model, help="or harmonix-fold0 ... 7 (default: %(default)s)")
    add("-d", "--device", help="cpu, cuda, cuda:N, mps or mlx (default: the best one here)")
    add("--weights-dir", help="folder with the network's weights")
    add("--nn-backend", default=Settings.nn_backend, help=f"{_backends('network')} (default: %(default)s)")
    add(
        "--spec-backend",
        default=Settings.spec_backend,
        help=f"{_backends('spectrogram', 'module:function')} (default: %(default)s)",
    )
    add("--precision", default=Settings.precision, help="exact or fast (default: %(default)s)")
    add("--num-threads", type=int, help="for each stage on a CPU (default: all cores)")
    add(
        "-j",
        "--jobs",
        type=int,
        help="tracks at the same time; 1: one after another (default: one for each core, at most 16)",
    )

    add = parser.add_argument_group("separation").add_argument
    add(
        "--demix-backend",
        default=Settings.demix_backend,
        help=f"{_backends('separation')} (default: %(default)s)",
    )
    add("--demix-model", default=Settings.demix_model, help="separation model (default: %(default)s)")
    add(
        "--demix-repository",
        metavar="DIR",
        help="folder with separation models of your own: NAME.safetensors, or NAME.th, which can execute any code "
        "when it is opened: use only those that you made or trust",
    )
    add(
        "--demix-seed",
        type=int,
        default=Settings.demix_seed,
        help="of Demucs' time shift (default: %(default)s)",
    )
    add(
        "--demix-overlap",
        type=float,
        default=Settings.demix_overlap,
        metavar="PART",
        help="of a segment that the next one repeats, 0 to 0.9 (default: %(default)s)",
    )
    add(
        "--float-stems",
        dest="stems_as_int16",
        action="store_false",
        help="do not round separated stems to 16 bits",
    )

    return add_hints(parser)


def complete_overwrite(argv: Sequence[str]) -> list[str]:
    """The arguments with ``--overwrite`` given its value, all, where it has none and a path follows.

    ``--overwrite song.mp3`` names a song, ``--overwrite json song.mp3`` what is made again. A word that is neither
    one of those names nor a path that is there stays the option's value, which is then refused.
    """
    completed: list[str] = []
    for argument in argv:
        if argument == "--":
            break
        option = completed[-1] if completed else ""
        if len(option) > len("--o") and "--overwrite".startswith(option) and _is_path(argument):
            completed[-1] = "--overwrite=all"
        completed.append(argument)
    return [*completed, *argv[len(completed) :]]


def _is_path(argument: str) -> bool:
    from allin1_core.batch.names import is_pattern

    try:
        parse_overwrite(argument)
    except OptionError:
        looks_like_one = os.sep in argument or "." in argument or is_pattern(argument)
        return looks_like_one or os.path.lexists(argument)
    return False


def run(arguments: argparse.Namespace) -> int:
    """Analyse; returns the exit status."""
    from allin1_core.batch import analyze

    options = {
        **options_of(vars(arguments), Outputs, Settings),
        "visualize": arguments.visualize if arguments.viz_dir is None else arguments.viz_dir,
        "sonify": arguments.sonify if arguments.sonif_dir is None else arguments.sonif_dir,
        "exports": [name.strip() for name in arguments.exports.split(",") if name.strip()],
        "stems_dir": arguments.stems_dir,
        "anchors": arguments.anchors,
        "progress": False if arguments.quiet or arguments.json else None,
    }
    failures: Sequence[tuple[Path, Exception]] = ()
    try:
        paths: list[str] = arguments.paths
        results: Sequence[AnalysisResult | None] = analyze(paths, **options)
    except BatchError as error:
        results, failures = error.results, error.failures
    except Allin1Error as error:
        if arguments.json:
            _print_json([], [(None, error)])
        raise
    _print(arguments, results, failures)
    return 1 if failures else 0


def _print(
    arguments: argparse.Namespace,
    results: Sequence[AnalysisResult | None],
    failures: Sequence[tuple[Path, Exception]],
) -> None:
    done = [result for result in results if result is not None]
    if arguments.json:
        _print_json(done, failures)
    elif not arguments.quiet:
        for result in done:
            print(_summary(result))
    if failures:
        print(f"{len(failures)} of {len(results)} tracks failed:", file=sys.stderr)
        for path, error in failures:
            print(f"  {failure_line(path, error)}", file=sys.stderr)
            if arguments.debug:
                traceback.print_exception(error)


def _print_json(results: Sequence[AnalysisResult], failures: Sequence[tuple[Path | None, Exception]]) -> None:
    """Print results, and failures of tracks or, without a path, of the whole run."""
    report = {
        "results": [json.loads(result.to_json()) for result in results],
        "failures": [
            {"path": path and str(path), "error": type(error).__name__, "message": str(error)}
            for path, error in failures
        ],
    }
    print(json.dumps(report, indent=2))


def _summary(result: AnalysisResult) -> str:
    tempo = "no tempo" if result.bpm is None else f"{result.bpm} BPM"
    if result.tempo is not None:
        tempo += f" (fitted {result.tempo:.2f}, spread {result.tempo_spread:.2f})"
    labels = ", ".join(segment.label for segment in result.segments)
    return (
        f"{printable(str(result.path))}: {tempo}, {len(result.beats)} beats, {len(result.downbeats)} downbeats, "
        f"{len(result.segments)} sections ({labels})"
    )
