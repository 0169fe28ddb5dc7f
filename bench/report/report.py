"""Writes reports/bench.md: what is faster, by how much, how sure that is, and how exact.

A ratio is only ever shown where the outputs of the same run agreed with the reference, and only where its interval
is narrow enough to mean something; otherwise the row says what is the matter instead.

``python -m bench.report.report reports`` makes the page again from bench.json, beside the baseline as it now is.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.report import plots
from bench.report.baseline import changes, earlier
from bench.report.readme import BEGIN, END
from bench.report.records import SCHEMA_VERSION, BenchRecord, read_report
from bench.report.summary import (
    FROM_A_MIX,
    agreement_in_words,
    reference_in_words,
    seconds_in_words,
    speed_in_words,
    summary,
)
from parity.environment import describe_machine, source_digest, versions
from parity.reports.publish import now, publish, scratch_folder
from parity.reports.records import oracle_was_absent, stages
from parity.reports.tables import markdown

_NOT_MEASURED = (
    "separation of a whole track, which takes minutes on two cores: its row has one segment, the pipeline from a mix "
    "takes an excerpt, the others start from stems"
)
_MIX_WATERFALL = "bench_waterfall_mix.png"
# Of a session, what stands at the top of bench.json.
_OF_THE_WHOLE = ("created", "source", "machine", "versions")


@dataclasses.dataclass(frozen=True)
class Session:
    """The benchmark session that the records come from.

    Attributes
    ----------
    rounds : int
        Counted rounds of each paired timing.
    failed : tuple of str
        Benchmarks that failed: their rows are missing or not to be trusted.
    created, source : str
        When it ended, and the digest of the source that ran.
    machine, versions : mapping
        Where it ran, and with which versions of what.
    skipped : tuple of str
        Why benchmarks were skipped, a line each.
    """

    rounds: int = 0
    failed: tuple[str, ...] = ()
    created: str = dataclasses.field(default_factory=now)
    source: str = dataclasses.field(default_factory=source_digest)
    machine: Mapping[str, Any] = dataclasses.field(default_factory=describe_machine)
    versions: Mapping[str, str] = dataclasses.field(default_factory=versions)
    skipped: tuple[str, ...] = ()


def write_bench_report(records: Sequence[BenchRecord], folder: Path, session: Session | None = None) -> Path:
    """Write bench.md, its plots and bench.json, and return the path of the first.

    The folder is made if it is not there, and changes only when all of them could be made.
    """
    session = session or Session()
    with scratch_folder(folder) as scratch:
        text = _markdown(records, scratch, session)
        content: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            **{name: getattr(session, name) for name in _OF_THE_WHOLE},
            "session": {
                name: value
                for name, value in dataclasses.asdict(session).items()
                if name not in _OF_THE_WHOLE
            },
            "records": [dataclasses.asdict(record) for record in records],
        }
        return publish(scratch, folder, "bench", text, content)


def render(folder: Path) -> Path:
    """Make the report again from the bench.json in a folder."""
    records, content = read_report(folder / "bench.json")
    whole = {name: content[name] for name in _OF_THE_WHOLE}
    of_session = content["session"]
    failed, skipped = (tuple(of_session.get(name, ())) for name in ("failed", "skipped"))
    session = Session(of_session["rounds"], failed, skipped=skipped, **whole)
    return write_bench_report(records, folder, session)


def _markdown(records: Sequence[BenchRecord], scratch: Path, session: Session) -> str:
    lines = ["# Benchmark: is it faster?", ""]
    where = f"{session.machine['cpu']}, {session.machine['cores']} cores, {session.created}"
    lines += [BEGIN, *summary(records, where), *_from_a_mix(records, scratch), END, ""]
    absent = oracle_was_absent(session.skipped)
    lines += [absent, ""] if absent else []
    if session.failed:
        lines += ["**Benchmarks that failed; what they should have measured is missing below:**", ""]
        lines += [f"- `{name}`" for name in session.failed] + [""]
    lines += _how(records, session)
    if plots.draw_ratios(records, scratch / "bench_ratios.png"):
        lines += ["![Ratios by stage and backend, with intervals](bench_ratios.png)", ""]
    for stage in stages(records):
        lines += [f"## {stage.capitalize()}", "", _table([r for r in records if r.stage == stage]), ""]
        lines += _notes([record for record in records if record.stage == stage])
    lines += _further_plots(records, session, scratch)
    return "\n".join(lines).rstrip() + "\n"


def _is_from_a_mix(record: BenchRecord) -> bool:
    return FROM_A_MIX in record.variant and bool(record.figures.get("timings"))


def _from_a_mix(records: Sequence[BenchRecord], scratch: Path) -> list[str]:
    """What a user waits for who has a song and no stems: where that time goes."""
    for record in filter(_is_from_a_mix, records):
        plots.draw_waterfall(record.figures["timings"], scratch / _MIX_WATERFALL)
        took = f"{seconds_in_words(record.median)} for {record.audio_seconds:.0f} s of audio"
        text = f"From a song to its result, separation included ({took}; {_note(record)}):"
        return [text, "", f"![Where the time from a song to its result goes]({_MIX_WATERFALL})", ""]
    return []


def _how(records: Sequence[BenchRecord], session: Session) -> list[str]:
    machine = session.machine
    tracks = dict.fromkeys(
        f"{record.track} ({record.audio_seconds:.1f} s)" for record in records if record.audio_seconds
    )
    return [
        "How exact each stage is on many more inputs is in [parity.md](parity.md); here the outputs of the very runs "
        "that were timed are compared.",
        "",
        "How to read it. A row is an implementation and its reference timed by turns in one process, so that each call "
        "finds caches and threads as the other left them: warm-up discarded, garbage collection off, freed memory "
        "kept by the process (so that neither side waits for new pages; this favours the oracles), devices "
        "synchronised. *Faster* is the median over rounds of the reference's time divided by ours. Its interval holds "
        "the true median in at least 95 of 100 such runs (order statistics of the rounds, for any distribution); where "
        "it says how many rounds there were, it is their range, with the share of such runs in which that holds it. A "
        "row whose outputs differ is no speed-up. *Threads* are what ours may use; the reference has a column of its "
        "own, since madmom, as All-In-One calls it, uses one: the rows on one thread are thread for thread. *Peak "
        "memory* is what a fresh process needs above its libraries and inputs.",
        "",
        "*Fused*: our compiled kernels on the CPU. *Own operations*: what torch and MLX compute themselves, where by "
        "default they hand on what the fused kernels compute. *Fold*: one of the eight networks whose outputs an "
        "analysis averages. *Golden*: a result of all-in-one-infer 3.1.0 with the published weights, recorded once. "
        "*[3, 4]*: the bar lengths that the decoder tries. *log10 of magnitude*: the unit of a log spectrogram, "
        "log10(1 + magnitude). *IQR*: interquartile range of the rounds. *audio s/s*: seconds of audio in a second.",
        "",
        f"- machine: {machine['cpu']} ({machine['model']}), {machine['cores']} cores, {machine['memory_gib']} GiB; "
        f"{machine['platform']}; Python {machine['python']}",
        "- versions: " + ", ".join(f"{name} {version}" for name, version in session.versions.items()),
        f"- input: {', '.join(tracks) or 'none'}",
        f"- measured {session.created}",
        f"- not measured: {_NOT_MEASURED}",
        "",
    ]


def _table(records: Sequence[BenchRecord]) -> str:
    has_gflops = any("gflops" in record.figures for record in records)
    rows = []
    for record in records:
        gflops = record.figures.get("gflops")
        rows.append(
            {
                "backend": f"{record.backend} (peer)" if record.role == "peer" else record.backend,
                "device": record.device,
                "precision": record.precision,
                "variant": record.variant,
                "threads": record.threads,
                "median": seconds_in_words(record.median),
                "spread (IQR)": seconds_in_words(record.spread) if len(record.seconds) > 1 else "-",
                "faster (interval)": speed_in_words(record),
                "than": record.reference or "-",
                "its time": reference_in_words(record),
                "audio s/s": _rate(record.audio_seconds / record.median) if record.audio_seconds else "-",
                "peak memory": _memory(record),
                **({"GFLOP/s": f"{gflops / record.median:,.0f}" if gflops else "-"} if has_gflops else {}),
                "agreement": agreement_in_words(record),
            }
        )
    return markdown(rows, {"threads", "median", "spread (IQR)", "audio s/s", "peak memory", "GFLOP/s"})


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _memory(record: BenchRecord) -> str:
    ours, theirs = record.peak_memory_bytes, record.reference_peak_memory_bytes
    if ours is None:
        return "-"
    beside = "" if theirs is None else f" (reference: {theirs / 2**20:,.0f} MiB)"
    return f"{ours / 2**20:,.0f} MiB{beside}"


def _notes(records: Sequence[BenchRecord]) -> list[str]:
    labels: dict[str, list[str]] = {}
    for record in records:
        if note := _note(record):
            labels.setdefault(note, []).append(plots.label(record, stage=False))
    notes = [f"- {'; '.join(labelled)}: {note}" for note, labelled in labels.items()]
    return [*notes, ""] if notes else []


def _note(record: BenchRecord) -> str:
    return str(record.figures.get("note", ""))


def _further_plots(records: Sequence[BenchRecord], session: Session, scratch: Path) -> list[str]:
    lines = []
    if plots.draw_peers(records, scratch / "bench_peers.png"):
        lines += ["## Beside other projects", "", "![Time beside other projects](bench_peers.png)", ""]
    if plots.draw_lengths(records, scratch / "bench_lengths.png"):
        lines += ["## How time and memory grow", ""]
        lines += ["An exponent of 1 means in proportion to the length; below it, a fixed share.", ""]
        lines += ["![Time and memory against track length](bench_lengths.png)", ""]
    timed = [record for record in records if record.figures.get("timings") and not _is_from_a_mix(record)]
    for position, record in enumerate(timed):
        name = f"bench_waterfall{position or ''}.png"
        plots.draw_waterfall(record.figures["timings"], scratch / name)
        lines += [f"## Where the time goes: {plots.label(record)}", "", _which_run(record), ""]
        lines += [f"![Waterfall]({name})", ""]
    return [*lines, *_baseline(records, session, scratch)]


def _baseline(records: Sequence[BenchRecord], session: Session, scratch: Path) -> list[str]:
    before = earlier(session.source, session.created)
    if before is None:
        return []
    heading = ["## Against the committed baseline", ""]
    own = "This run has become the committed baseline"
    if plots.draw_baseline(changes(records, before.rows), scratch / "bench_baseline.png"):
        text = f"Against the baseline of {before.taken}."
        text = f"{own}; it is drawn against the one before. {text}" if before.is_own else text
        return [*heading, text, "", "![Baseline and this run](bench_baseline.png)", ""]
    if before.is_own:
        return [*heading, f"{own}; there was none before it to draw it against.", ""]
    return []


def _which_run(record: BenchRecord) -> str:
    rounds = len(record.seconds)
    which = "The round" if rounds == 1 else f"The median of the {rounds} rounds"
    median = seconds_in_words(record.median)
    return f"{which} in the table above, in a session that has its weights loaded; median {median}."


if __name__ == "__main__":
    print(render(Path(sys.argv[1] if len(sys.argv) > 1 else "reports")))
