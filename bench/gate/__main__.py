"""``make gate``: fails on a regression in speed, accuracy, memory or import time (bars in bench/gate/gate.toml).

    python -m bench.gate [--from reports] [--base COMMIT] [--report reports]

Times and instructions are compared with a base commit, built beside this tree: by default the one that the committed
baseline came with. With ``--from``, ratios that a bench session just measured on the same sources, beside the reference
that a bar is for, are held to it as they are, and only what they do not tell is measured here. What was said goes into
gate.md of the folder of reports as well.

It exits 0 only if every required check was made and held, 1 if one failed, 3 if a required one could not be judged, and
2 if there was nothing to begin with (a misspelt bar, a report of other sources). Required is every check for which this
project's own extras install what it takes. What they cannot bring along is listed as not judged, and the gate passes
without it: a bar for this instruction set, the base commit (in a shallow clone), valgrind, the shared reference
material, a second core, the oracle where it has no wheel. So is speed of which the rounds cannot tell.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bench.gate.bars import read_bars
from bench.gate.judge import judge
from bench.gate.report import PAGE, write_section
from bench.gate.sequential import ALPHA, BETA, LOSS
from bench.gate.speed import ALPHA as BARS_ALPHA
from bench.gate.speed import Verdict
from bench.report.records import read_fresh_report
from parity.environment import machine_key
from parity.reports.publish import now

_SURE = (
    f"Times fail in at most {ALPHA + BARS_ALPHA:.1%} of the runs on an unchanged tree: half of that beside the base "
    "commit, which is exact; half at the bars, if rounds are independent. A stage that became "
    f"{LOSS - 1:.0%} slower is called as fast in at most {BETA:.0%}. Instructions repeat to the last one. What cannot "
    "be told costs no exit status."
)
_WORDS = {True: "ok", False: "FAILED", None: "not judged"}


def table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as aligned text, one a line."""
    rows = [("row", "check", "measured", "asked", "")]
    rows += [(v.row, v.check, v.measured, v.asked, _WORDS[v.passed]) for v in verdicts]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description=__doc__)
    parser.add_argument("--from", dest="folder", type=Path, help="folder of a bench report made just now")
    parser.add_argument("--base", metavar="COMMIT", help="what to compare times and instructions with")
    parser.add_argument("--report", type=Path, default=PAGE.parent, help="folder of gate.md")
    options = parser.parse_args(arguments)
    try:
        bars = read_bars()
        records = read_fresh_report(options.folder / "bench.json")[0] if options.folder else []
    except (ValueError, FileNotFoundError) as error:
        print(f"gate: {error}", file=sys.stderr)
        return 2
    start = time.monotonic()
    verdicts = judge(
        bars, records, lambda text: print(f"gate: {text}", file=sys.stderr, flush=True), options.base
    )
    print(table(verdicts))
    write_section(
        "What was said",
        [f"{machine_key()}, {now()}. {_SURE}", "", "```", table(verdicts), "```"],
        options.report / PAGE.name,
    )
    failed = [verdict for verdict in verdicts if verdict.passed is False]
    unjudged = [verdict for verdict in verdicts if verdict.passed is None]
    wanted = [verdict for verdict in unjudged if verdict.required]
    for verdict in failed:
        print(f"gate: FAILED {verdict}", file=sys.stderr)
    for verdict in wanted:
        print(f"gate: NOT JUDGED, and required: {verdict}", file=sys.stderr)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(
        f"gate: {len(verdicts) - len(unjudged) - len(failed)} of {len(verdicts)} rows hold, {len(failed)} failed, "
        f"{len(unjudged)} not judged ({len(wanted)} of them required), in {minutes} min {seconds} s",
        file=sys.stderr,
    )
    if failed:
        return 1
    return 3 if wanted or len(unjudged) == len(verdicts) else 0


if __name__ == "__main__":
    sys.exit(main())
