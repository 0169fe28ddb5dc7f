"""``make gate``: fails on a regression in speed, accuracy, memory or import time (bars in bench/gate.toml).

    python -m bench.gate [--from reports]

With ``--from``, ratios that a bench session just measured on the same sources are judged as they are, and only what
they do not tell is measured here. A speed row is measured again before it fails.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import instructions
from bench.baseline import instructions_of, section_here
from bench.gate_cases import (
    DECODER,
    Case,
    decoder_case,
    installed,
    madmom_is_installed,
    network_case,
    spectrogram_case,
)
from bench.gate_checks import (
    SlowdownCheck,
    Timing,
    Verdict,
    check_decoder,
    check_difference,
    check_f_measures,
    check_import,
    check_memory,
    check_ratio,
    check_spectrogram_difference,
    check_what_runs,
    time_case,
)
from bench.machine import describe_machine, machine_key, source_digest, usable_cores
from bench.memory import peak_memory_bytes
from bench.pipeline_scores import measure_f_measures
from bench.records import BenchRecord, read_records
from bench.single_calls import compute_spectrogram, decode, run_network
from bench.tracks import default_track
from parity.activations import steady
from parity.shared import shared_folder

BARS = Path(__file__).with_name("gate.toml")
_PROMISE = "ratio to"
_WORDS = {True: "ok", False: "FAILED", None: "not judged"}
_MEMORY_NOISE_MIB = 2.0
_SHORT = {"spectrogram": 5.0, "decoder": 10.0, "network": 2.0}
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
    slowdown_rounds: int
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


def short_case(row: Row) -> Case:
    """What is timed against the baseline: one thread, and rounds of some tens of milliseconds."""
    return build_case(row, threads=1, seconds=_SHORT)


def _is_timed_short(row: Row) -> bool:
    return why_not_here(row) is None and row.threads in (None, 1) and row.min_ratio is not None


def slowdown_checks(
    rows: Sequence[Row], bars: Bars, baseline: Mapping[str, Any]
) -> Iterator[SlowdownCheck | Verdict]:
    """A check for each row that the baseline has, and for the others a verdict that says why there is none."""
    for row in rows:
        if _is_timed_short(row):
            case = short_case(row)
            before = baseline.get("ratios", {}).get(case.key)
            if before is None:
                yield Verdict(
                    case.key, "ratio to the baseline", "not in the baseline of this machine", "-", None
                )
            else:
                yield SlowdownCheck(case, before, bars.max_slowdown, bars.slowdown_rounds)


def _memory(row: Row, bars: Bars, baseline: Mapping[str, Any]) -> Iterator[Verdict]:
    if row.max_memory_mib is not None:
        at_most = row.max_memory_mib
        before = baseline.get("memory_mib", {}).get(row.name)
        if before is not None:
            at_most = min(at_most, before * bars.max_memory_growth + _MEMORY_NOISE_MIB)
        yield check_memory(row.name, peak_mebibytes(row), at_most)


def peak_mebibytes(row: Row) -> float:
    """Peak memory of a row's call on the whole track in a fresh process, in MiB; the network runs one fold."""
    track = default_track()
    if row.stage == "spectrogram":
        short = track.lasting(1).stems
        options = {"backend": row.backend, "precision": row.precision}
        peak = peak_memory_bytes(compute_spectrogram, track.stems, warmup=(short,), **options)
    elif row.stage == "decoder":
        options = {**DECODER, "backend": row.backend}
        peak = peak_memory_bytes(decode, steady(track.seconds), warmup=(steady(5),), **options)
    else:
        from allin1_core.spectrogram import log_spectrogram

        whole, short = (log_spectrogram(stems) for stems in (track.stems, track.lasting(2).stems))
        peak = peak_memory_bytes(run_network, whole, 1, warmup=(short, 1), backend=row.backend)
    return peak / 2**20


def judge_instructions(bars: Bars, counted: Mapping[str, Any]) -> Iterator[Verdict]:
    """Instruction counts of the kernels against those that the same compiler's build had.

    Parameters
    ----------
    bars : Bars
    counted : mapping
        By kernel, from `bench.baseline.instructions_of`; empty where no baseline has this compiler's.
    """
    for kernel in instructions.KERNELS:
        if not instructions.valgrind_is_installed():
            yield Verdict(kernel, "instructions", "valgrind is not installed", "-", None)
        elif kernel not in counted:
            why = f"no baseline with {instructions.compiler()}"
            yield Verdict(kernel, "instructions", why, "-", None)
        else:
            count = instructions.count_instructions(kernel)
            at_most = counted[kernel] * bars.max_instruction_growth
            yield Verdict(kernel, "instructions", f"{count:,}", f"at most {at_most:,.0f}", count <= at_most)


def ratio_to_keep(case: Case, bars: Bars) -> float:
    """What a baseline holds of a short case: its ratio in three times the rounds that are compared with it."""
    return time_case(case, 3 * bars.slowdown_rounds).undisturbed


def measure_baseline(rows: Sequence[Row], bars: Bars) -> dict[str, dict[str, Any]]:
    """What the gate holds later runs against: short ratios, peak memory and instruction counts of this tree."""
    ratios, memory = {}, {}
    for row in filter(_is_timed_short, rows):
        case = short_case(row)
        ratios[case.key] = round(ratio_to_keep(case, bars), 4)
        if row.max_memory_mib is not None:
            memory[row.name] = round(peak_mebibytes(row), 1)
    counts: dict[str, Any] = {}
    if instructions.valgrind_is_installed():
        counts["compiler"] = instructions.compiler()
        counts |= {kernel: instructions.count_instructions(kernel) for kernel in instructions.KERNELS}
    return {"ratios": ratios, "memory_mib": memory, "instructions": counts}


def judge(bars: Bars, records: Sequence[BenchRecord], say: Callable[[str], None]) -> list[Verdict]:
    """Everything; `say` hears what is being measured."""
    baseline = section_here("gate")
    if not baseline:
        say(f"no baseline for this machine ({machine_key()}): bars of gate.toml and instructions are judged")
    verdicts = check_import(bars.max_import_seconds, bars.forbidden_imports)
    say("timing against the baseline")
    suspects: list[SlowdownCheck] = []
    for check in slowdown_checks(bars.rows, bars, baseline):
        verdict = check if isinstance(check, Verdict) else check.measure()
        if isinstance(check, SlowdownCheck) and not check.is_clear:
            suspects.append(check)
        else:
            verdicts.append(verdict)
    broken_promises: list[Row] = []
    for row in bars.rows:
        reason = why_not_here(row)
        if reason is not None:
            verdicts.append(Verdict(row.name, "everything", reason, "-", None))
            continue
        say(f"measuring {row.name}" + (f", {row.threads} threads" if row.threads else ""))
        for verdict in judge_row(row, bars, records, baseline):
            if verdict.passed is False and verdict.check.startswith(_PROMISE):
                broken_promises.append(row)
            else:
                verdicts.append(verdict)
    say("counting instructions")
    verdicts += judge_instructions(bars, instructions_of(instructions.compiler()))
    if shared_folder() is None:
        why = "the shared reference material is not here (ALLIN1_SHARED)"
        verdicts += [Verdict(f"pipeline/{track}", "F-measures", why, "-", None) for track in bars.f_measures]
    else:
        say("analysing the tracks that have scores")
        verdicts += check_f_measures(measure_f_measures(list(bars.f_measures)), bars.f_measures)
    # A neighbour that kept the machine busy then may be gone now; a loss stays.
    if suspects or broken_promises:
        say(f"timing {len(suspects) + len(broken_promises)} rows again that fell short or nearly did")
    verdicts += [check.measure_until_clear(2) for check in suspects]
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
        If they were measured on other sources than these, or on another machine.
    """
    path = folder / "bench.json"
    records = read_records(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    if content.get("source") != source_digest():
        raise ValueError(f"{path}: measured on another state of allin1_core; run `make bench` again")
    if content.get("machine") != describe_machine():
        raise ValueError(f"{path}: measured on another machine; run `make bench` on this one")
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
    start = time.monotonic()
    verdicts = judge(bars, records, lambda text: print(f"gate: {text}", file=sys.stderr, flush=True))
    print(table(verdicts))
    failed = [verdict for verdict in verdicts if verdict.passed is False]
    for verdict in failed:
        print(f"gate: FAILED {verdict}", file=sys.stderr)
    held = sum(verdict.passed is True for verdict in verdicts)
    minutes, seconds = divmod(round(time.monotonic() - start), 60)
    print(
        f"gate: {held} of {len(verdicts)} rows hold, {len(failed)} failed, "
        f"{len(verdicts) - held - len(failed)} not judged, in {minutes} min {seconds} s",
        file=sys.stderr,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
