"""Writes reports/bench.md: what is faster, by how much, how sure that is, and how exact.

A ratio is only ever shown where the outputs of the same run agreed with the reference, and only where its interval
is narrow enough to mean something; otherwise the row says what is the matter instead.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.machine import describe_machine, versions
from bench.records import SCHEMA_VERSION, BenchRecord
from parity.publish import now, publish, scratch_folder

# In the order of the pipeline; stages not named here follow in alphabetical order.
_ORDER = ("separation", "spectrogram", "network", "decoder", "structure", "pipeline")


def write_bench_report(records: Sequence[BenchRecord], folder: Path) -> Path:
    """Write bench.md, its plots and bench.json; the folder changes only when all of them could be made.

    Returns
    -------
    Path
        The markdown file.
    """
    with scratch_folder(folder) as scratch:
        text = _markdown(records)
        content: dict[str, Any] = {
            "schema": SCHEMA_VERSION,
            "created": now(),
            "machine": describe_machine(),
            "versions": versions(),
            "records": [dataclasses.asdict(record) for record in records],
        }
        return publish(scratch, folder, "bench", text, content)


def _markdown(records: Sequence[BenchRecord]) -> str:
    machine = describe_machine()
    lines = ["# Benchmark: is it faster?", ""]
    lines += [f"Measured {now()} on {machine['cpu']} ({machine['cores']} cores), Python {machine['python']};"]
    lines += [", ".join(f"{name} {version}" for name, version in versions().items()) + ".", ""]
    for stage in stages(records):
        lines += [f"## {stage.capitalize()}", "", *_table([r for r in records if r.stage == stage]), ""]
    return "\n".join(lines).rstrip() + "\n"


def stages(records: Sequence[BenchRecord]) -> list[str]:
    """The stages that have records, in the order of the pipeline."""
    found = {record.stage for record in records}
    return sorted(found, key=lambda stage: (_ORDER.index(stage) if stage in _ORDER else len(_ORDER), stage))


def _table(records: Sequence[BenchRecord]) -> list[str]:
    lines = [
        "| backend | device | precision | variant | threads | median | IQR | faster than the reference (95 %) "
        "| audio s/s | peak memory | agreement |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | --- | ---: | ---: | --- |",
    ]
    for record in records:
        memory = record.peak_memory_bytes
        cells = [
            record.backend,
            record.device,
            record.precision,
            record.variant,
            str(record.threads),
            f"{record.median:.3g} s",
            f"{record.spread:.2g} s",
            _speed(record),
            f"{record.audio_seconds / record.median:,.0f}",
            "-" if memory is None else f"{memory / 2**20:,.0f} MiB",
            record.agreement if record.agrees else f"**does not agree:** {record.agreement}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _speed(record: BenchRecord) -> str:
    ratio = record.ratio
    if ratio is None:
        return "-"
    if not record.agrees:
        return "not counted: does not agree"
    return f"{ratio} {record.reference}"
