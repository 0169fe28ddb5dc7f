"""The subcommand ``timings``: report of recorded timings, and comparison of two recordings."""

from __future__ import annotations

import argparse
import dataclasses
import json

from allin1_core.cli.paths import path
from allin1_core.errors import TimingsError, printable
from allin1_core.files.writing import check_no_input, identities

HELP = "where the time of a run went, and what changed between two"
DESCRIPTION = "Show the timings of a run, or compare two."
EPILOG = """\
examples:
  allin1-core timings timings.jsonl
      the last run in the file: a table of its stages, and timings.png, a waterfall plot
  allin1-core timings timings.jsonl --run 3f9a --plot run.pdf
      the run whose id begins so
  allin1-core timings compare before.jsonl after.jsonl --expect expectations.toml
      which stages became faster, which did not, and why; exit status 1 if one fell short

Every line says which backend ran and why, and was taken with the device synchronised: docs/timings.md.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommand's arguments."""
    parser.usage = (
        "allin1-core timings FILE [options]\n       allin1-core timings compare BEFORE AFTER [options]"
    )
    parser.add_argument(
        "files", type=path, nargs="+", metavar="FILE", help="JSONL of 'analyze --timings'; or compare and two"
    )
    parser.add_argument("--run", dest="run_id", metavar="ID", help="the run to show (default: the last one)")
    parser.add_argument("--plot", type=path, metavar="FILE", help="waterfall plot (default: FILE, as .png)")
    parser.add_argument("--no-plot", action="store_true", help="only the table")
    parser.add_argument(
        "--expect", type=path, metavar="TOML", help="compare: what was expected of each stage"
    )
    parser.add_argument("--json", action="store_true", help="print as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Show or compare; returns the exit status."""
    is_compared = str(arguments.files[0]) == "compare"
    others = {"--run": arguments.run_id, "--plot": arguments.plot, "--no-plot": arguments.no_plot}
    for option, value in (others if is_compared else {"--expect": arguments.expect}).items():
        if value:
            raise argparse.ArgumentError(
                None,
                f"{option}: given with {'compare' if is_compared else 'a single file'}; expected with "
                f"{'a single file' if is_compared else 'compare'} alone. Leave it out",
            )
    if is_compared:
        return _compare(arguments)
    if len(arguments.files) > 1:
        raise argparse.ArgumentError(
            None, f"timings: {len(arguments.files)} files; expected one, or 'compare BEFORE AFTER' for two"
        )
    return _show(arguments)


def _show(arguments: argparse.Namespace) -> int:
    from allin1_core.plotting import save
    from allin1_core.timings import report as timing_report
    from allin1_core.timings.schema import read_timings

    [file] = arguments.files
    if not arguments.no_plot:
        plot = arguments.plot or file.with_suffix(".png")
        check_no_input([plot], identities([file]))
    lines = read_timings(file)
    if not lines:
        raise TimingsError(
            f"{file}: holds no lines; expected those of 'analyze --timings'. A result that was there is read, in no "
            "stage: --overwrite json makes it again"
        )
    records = timing_report.select_run(lines, arguments.run_id)
    if arguments.json:
        print(json.dumps([dataclasses.asdict(record) for record in records], indent=2))
    else:
        print(timing_report.stage_table(records))
    if not arguments.no_plot:
        save(timing_report.waterfall(records), plot)
        if not arguments.json:
            print(f"\nwaterfall plot: {printable(str(plot))}")
    return 0


def _compare(arguments: argparse.Namespace) -> int:
    from allin1_core.timings.comparison import compare

    if len(arguments.files) != 3:
        raise argparse.ArgumentError(
            None, f"timings compare: {len(arguments.files) - 1} files; expected two, BEFORE and AFTER"
        )
    comparison = compare(arguments.files[1], arguments.files[2], arguments.expect)
    if arguments.json:
        print(json.dumps(dataclasses.asdict(comparison), indent=2, default=str))
    else:
        print(comparison.markdown(), end="")
    return comparison.exit_status
