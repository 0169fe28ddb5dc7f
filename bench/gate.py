"""``make gate``: fails on a regression in speed, accuracy, memory or import time (bars in bench/gate.toml).

    python -m bench.gate [--from reports]

With ``--from``, ratios that a bench session just measured on the same sources are judged as they are, and only what
they do not tell is measured here. Every speed row is measured again once before it fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import instructions
from bench.baseline import section_here
from bench.gate_cases import (
    Case,
    activations,
    decoder_case,
    installed,
    madmom_is_installed,
    network_case,
    spectrogram_case,
)
from bench.gate_checks import (
    Timing,
    Verdict,
    check_decoder,
    check_difference,
    check_f_measures,
    check_import,
    check_memory,
    check_ratio,
    check_slowdown,
    check_spectrogram_difference,
    check_what_runs,
    compute_spectrogram,
    decode_beats,
    peak_mebibytes,
    run_network,
    time_case,
)
from bench.machine import machine_key, source_digest, usable_cores
from bench.pipeline_scores import measure_f_measures
from bench.records import BenchRecord, read_records
from bench.tracks import default_track
from parity.shared import shared_folder

BARS = Path(__file__).with_name("gate.toml")
_PROMISE = "ratio to"
_WORDS = {True: "ok", False: "FAILED", None: "too noisy to judge"}
_MEMORY_NOISE_MIB = 2.0
_SHORT = {"spectrogram": 10.0, "decoder": 60.0, "network": 10.0}
_LONG = {"spectrogram": 60.0, "decoder": 195.0, "network": 20.0}


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of gate.toml; see there."""

    stage: str
    backend: str
    precision: str = "exact"
    threads: int | None = None
    variant: str = ""
    min_ratio: float | None = None
    max_difference: float | None = None
    max_memory_mib: float | None = None

    @property
    def name(self) -> str:
        """``spectrogram/torch/exact``."""
        return f"{self.stage}/{self.backend}/{self.precision}"


@dataclasses.dataclass(frozen=True)
class Bars:
    """What gate.toml asks for."""

    rounds: int
    max_slowdown: float
    max_memory_growth: float
    max_instruction_growth: float
    max_import_seconds: float
    forbidden_imports: tuple[str, ...]
    rows: tuple[Row, ...]
    f_measures: Mapping[str, Mapping[str, float]]


def read_bars(path: Path = BARS) -> Bars:
    """The bars.

    Raises
    ------
    ValueError
        If the file says something that the gate does not know: a misspelt bar must not be a bar that always holds.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    try:
        rows = tuple(Row(**row) for row in content.pop("row"))
        imports = content.pop("import")
        return Bars(
            rows=rows,
            max_import_seconds=imports.pop("max_seconds"),
            forbidden_imports=tuple(imports.pop("forbidden")),
            f_measures=content.pop("f_measure"),
            **content,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error}; expected the keys that bench/gate.py knows") from error


def build_case(row: Row, *, threads: int, seconds: Mapping[str, float]) -> Case:
    """The measurement that belongs to a row."""
    if row.stage == "spectrogram":
        return spectrogram_case(row.backend, row.precision, threads=threads, seconds=seconds["spectrogram"])
    if row.stage == "decoder":
        return decoder_case(row.backend, threads=threads, seconds=seconds["decoder"])
    if row.stage == "network":
        return network_case(row.backend, threads=threads, seconds=seconds["network"])
    raise ValueError(f"{row.name}: the gate has no measurement for this stage")


def why_not_here(row: Row) -> str | None:
    """Why a row cannot be judged on this machine; None if it can."""
    if not installed(row.stage, row.backend):
        return f"{row.backend} is not installed"
    if row.stage in ("spectrogram", "decoder") and not madmom_is_installed():
        return "the oracle madmom is not installed"
    if row.stage == "network" and not installed("network", "torch"):
        return "the reference, plain torch, is not installed"
    if row.threads is not None and row.threads > usable_cores():
        return f"{row.threads} threads, {usable_cores()} core"
    return None


def judge_row(
    row: Row, bars: Bars, records: Sequence[BenchRecord], baseline: Mapping[str, Any]
) -> Iterator[Verdict]:
    """All checks of one row, in the order in which a failure explains the next."""
    yield check_what_runs(row.stage, row.backend, row.precision)
    threads = row.threads or usable_cores()
    first: Timing | None = None
    case = _long_case(row)
    if row.min_ratio is not None:
        proven = proof(row, records, threads)
        if proven is not None:
            asked = f"at least {row.min_ratio:.3g}x at the lower end"
            yield Verdict(proven.key, f"{_PROMISE} {proven.reference}", str(proven.ratio), asked, True)
        else:
            verdict, first = _promise(row, case, bars)
            yield verdict
    if row.max_difference is not None:
        yield from _differences(row, case, first, row.max_difference)
    if row.threads in (None, 1):
        yield from _memory(row, bars, baseline)


def _long_case(row: Row) -> Case:
    return build_case(row, threads=row.threads or usable_cores(), seconds=_LONG)


def _promise(row: Row, case: Case, bars: Bars) -> tuple[Verdict, Timing]:
    """Whether a row reaches its `min_ratio`, and the first measurement that was made of it."""
    assert row.min_ratio is not None
    first = time_case(case, bars.rounds)
    check = f"{_PROMISE} {case.oracle}"
    return check_ratio(case, row.min_ratio, rounds=bars.rounds, check=check, first=first), first


def proof(row: Row, records: Sequence[BenchRecord], threads: int) -> BenchRecord | None:
    """The record of a bench session that shows that a row reaches its bar.

    Where several variants were measured it is the slowest; None if that one falls short, or does not agree with its
    reference, so that the gate measures itself.
    """
    found = [
        (record.agrees * ratio.low, record)
        for record in records
        if (record.stage, record.backend, record.precision, record.threads)
        == (row.stage, row.backend, row.precision, threads)
        and record.role == "candidate"
        and record.audio_seconds > 0
        and row.variant in record.variant
        and (ratio := record.ratio) is not None
    ]
    low, slowest = min(found, key=lambda pair: pair[0], default=(0.0, None))
    return slowest if row.min_ratio is not None and low >= row.min_ratio else None


def _differences(row: Row, case: Case, timing: Timing | None, at_most: float) -> Iterator[Verdict]:
    if row.stage == "spectrogram":
        yield check_spectrogram_difference(row.backend, row.precision, at_most)
    elif row.stage == "decoder" and row.threads in (None, 1):
        yield check_decoder(row.backend)
    elif timing is not None:
        yield check_difference(row.name, timing.difference, at_most)
    else:
        yield check_difference(row.name, case.difference(case.candidate(), case.reference()), at_most)


def judge_slowdowns(
    rows: Sequence[Row], bars: Bars, baseline: Mapping[str, Any]
) -> Iterator[tuple[Row, Verdict]]:
    """The rows that were timed for the baseline, on one thread."""
    for row in rows:
        if why_not_here(row) is None and row.threads in (None, 1):
            case = build_case(row, threads=1, seconds=_SHORT)
            before = baseline.get("ratios", {}).get(case.key)
            if before is not None:
                yield row, check_slowdown(case, before, bars.max_slowdown, rounds=bars.rounds)


def _memory(row: Row, bars: Bars, baseline: Mapping[str, Any]) -> Iterator[Verdict]:
    if row.max_memory_mib is not None:
        at_most = row.max_memory_mib
        before = baseline.get("memory_mib", {}).get(row.name)
        if before is not None:
            at_most = min(at_most, before * bars.max_memory_growth + _MEMORY_NOISE_MIB)
        yield check_memory(row.name, *memory_call(row), at_most)


def memory_call(row: Row) -> tuple[Callable[..., Any], tuple[Any, ...], tuple[Any, ...]]:
    """Function, arguments and warm-up arguments whose peak memory stands for the row."""
    track = default_track()
    if row.stage == "spectrogram":
        options = (row.backend, row.precision)
        return compute_spectrogram, (track.stems, *options), (track.lasting(1).stems, *options)
    if row.stage == "decoder":
        return decode_beats, (activations(track.seconds), row.backend), (activations(5), row.backend)
    return run_network, (track.seconds, row.backend), (2.0, row.backend)


def judge_instructions(bars: Bars, baseline: Mapping[str, Any]) -> Iterator[Verdict]:
    """Instruction counts of the kernels against the baseline's, where the same compiler built both."""
    before = baseline.get("instructions", {})
    for kernel in instructions.KERNELS:
        if kernel in before and before.get("compiler") == instructions.compiler():
            count = instructions.count_instructions(kernel)
            at_most = before[kernel] * bars.max_instruction_growth
            yield Verdict(kernel, "instructions", f"{count:,}", f"at most {at_most:,.0f}", count <= at_most)


def measure_baseline(rows: Sequence[Row], rounds: int) -> dict[str, dict[str, Any]]:
    """What the gate holds later runs against: short ratios, peak memory and instruction counts of this tree."""
    ratios, memory = {}, {}
    for row in rows:
        if why_not_here(row) is None and row.threads in (None, 1):
            case = build_case(row, threads=1, seconds=_SHORT)
            ratios[case.key] = round(time_case(case, 2 * rounds).cautious, 4)
            if row.max_memory_mib is not None:
                memory[row.name] = round(peak_mebibytes(*memory_call(row)), 1)
    counts: dict[str, Any] = {}
    if instructions.valgrind_is_installed():
        counts["compiler"] = instructions.compiler()
        counts |= {kernel: instructions.count_instructions(kernel) for kernel in instructions.KERNELS}
    return {"ratios": ratios, "memory_mib": memory, "instructions": counts}


def judge(bars: Bars, records: Sequence[BenchRecord], say: Callable[[str], None]) -> list[Verdict]:
    """Everything; `say` hears what is being measured and what cannot be."""
    baseline = section_here("gate")
    if not baseline:
        say(f"no baseline for this machine ({machine_key()}): only the bars of gate.toml are judged")
    verdicts = check_import(bars.max_import_seconds, bars.forbidden_imports)
    say("timing against the baseline")
    slowdowns = list(judge_slowdowns(bars.rows, bars, baseline))
    verdicts += [verdict for _, verdict in slowdowns if verdict.passed is not False]
    broken_promises: list[Row] = []
    for row in bars.rows:
        reason = why_not_here(row)
        if reason is not None:
            say(f"{row.name}: not judged, {reason}")
            continue
        say(f"measuring {row.name}" + (f", {row.threads} threads" if row.threads else ""))
        for verdict in judge_row(row, bars, records, baseline):
            if verdict.passed is False and verdict.check.startswith(_PROMISE):
                broken_promises.append(row)
            else:
                verdicts.append(verdict)
    if instructions.valgrind_is_installed():
        say("counting instructions")
        verdicts += judge_instructions(bars, baseline)
    else:
        say("instructions: not counted, valgrind is not installed")
    if shared_folder() is None:
        say("F-measures: not judged, the shared reference material is not here (ALLIN1_SHARED)")
    else:
        say("analysing the tracks that have scores")
        verdicts += check_f_measures(measure_f_measures(list(bars.f_measures)), bars.f_measures)
    # A neighbour that kept the machine busy then may be gone now; a loss stays.
    suspects = [row for row, verdict in slowdowns if verdict.passed is False]
    if suspects or broken_promises:
        say(f"timing again: {', '.join(row.name for row in [*suspects, *broken_promises])}")
    verdicts += [verdict for _, verdict in judge_slowdowns(suspects, bars, baseline)]
    return verdicts + [_promise(row, _long_case(row), bars)[0] for row in broken_promises]


def table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as aligned text, one a line."""
    rows = [("row", "check", "measured", "asked", "")]
    rows += [(v.row, v.check, v.measured, v.asked, _WORDS[v.passed]) for v in verdicts]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def fresh_records(folder: Path) -> list[BenchRecord]:
    """Rows of ``bench.json`` in a folder.

    Raises
    ------
    ValueError
        If they were measured on other sources than these.
    """
    path = folder / "bench.json"
    records = read_records(path)
    if json.loads(path.read_text(encoding="utf-8")).get("source") != source_digest():
        raise ValueError(f"{path}: measured on another state of allin1_core; run `make bench` again")
    return records


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(prog="python -m bench.gate", description=__doc__)
    parser.add_argument("--from", dest="folder", type=Path, help="folder of a bench report made just now")
    options = parser.parse_args(arguments)
    try:
        bars = read_bars()
        records = fresh_records(options.folder) if options.folder else []
    except (ValueError, FileNotFoundError) as error:
        print(f"gate: {error}", file=sys.stderr)
        return 2
    verdicts = judge(bars, records, lambda text: print(f"gate: {text}", file=sys.stderr, flush=True))
    print(table(verdicts))
    failed = [verdict for verdict in verdicts if verdict.passed is False]
    unclear = [verdict for verdict in verdicts if verdict.passed is None]
    for verdict in failed:
        print(f"gate: FAILED {verdict}", file=sys.stderr)
    for verdict in unclear:
        print(f"gate: too noisy to judge: {verdict}", file=sys.stderr)
    held = len(verdicts) - len(failed) - len(unclear)
    print(
        f"gate: {held} of {len(verdicts)} rows hold, {len(failed)} failed, {len(unclear)} unclear",
        file=sys.stderr,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
