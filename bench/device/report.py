"""reports/device-CARD.md: what was measured on a device, in the units that a reader expects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.gate.device import number
from bench.report.plots import draw_waterfall
from parity.reports.tables import markdown, yes

HEADINGS = {
    "parity": "Parity: is it the same?",
    "spectrogram": "Spectrogram: from samples on the host to a tensor on the device",
    "network": "Network",
    "separation": "Separation",
    "stems": "From stems to a result",
    "mix": "From a mix to a result",
    "library": "A list of songs",
}
_NOTES = {
    "parity": "The largest difference from the oracle over all comparisons of an implementation.",
    "spectrogram": "Four stems of a track, in pinned memory, as the pipeline reads them, if nothing else is said. "
    "`plain torch` is the same in torch's operations from memory that is not pinned, without pieces and without "
    "overlap; ratios are to it. Differences are from the numpy backend.",
    "network": "Ratios are to plain torch in `exact`. Differences are of probabilities, from the golden.",
    "separation": "Seeded random weights in the published shape, on which time does not depend. Ratios are to "
    "demucs-infer, of `exact` in float32 and of `fast` with torch's defaults; differences, of full scale, and SNR, of "
    "the worst stem, are from it in float32. Beats moved by a frame of 10 ms do not disagree.",
    "stems": "A loaded session: four FLAC files, spectrogram, network, decoder, sections, JSON. Stages are medians.",
    "library": "From stems to JSON files, a song; shares are of the device's own rate, that of spectrogram and network "
    "alone. Times of spectrogram and network are medians within the list; the device is busy while either runs, or "
    "arrays go to it or come from it. WAV files take less reading: where their share is higher, reading is the limit.",
    "mix": "As above from a stereo mix, with separation by random weights of the published shape.",
}
_COLUMNS = {
    "name": "",
    "seconds": "time",
    "seconds_a_track": "a track",
    "seconds_spectrogram": "spectrogram",
    "seconds_nn": "network",
    "share": "share",
    "busy": "device busy",
    "ratio": "times as fast",
    "first_seconds": "first call",
    "rounds": "rounds",
    "memory_gb": "peak memory",
    "difference": "difference",
    "bound": "bound",
    "held to": "held to",
    "snr_db": "SNR",
    "agrees": "agrees",
}
# Said above the tables, or of no use in them.
_LEFT_OUT = ("device", "must_seconds", "aim_seconds", "must_memory_gb", "failures", "timings")


def draw(content: Mapping[str, Any], name: str, folder: Path) -> dict[str, str]:
    """Draw the stages of an analysis in `exact` over time into a folder; file names by part."""
    found = {}
    for part, result in content["parts"].items():
        timings = next((row["timings"] for row in result["rows"] if "timings" in row), None)
        if timings:
            found[part] = f"{name}-{part}.png"
            draw_waterfall(timings, folder / found[part])
    return found


def render(content: Mapping[str, Any], figures: Mapping[str, str]) -> str:
    """Markdown of a report's content, which `bench.device.__main__` puts together, and the figures of `draw`."""
    machine = content["machine"]
    parts = {part: content["parts"][part] for part in HEADINGS if part in content["parts"]}
    versions = ", ".join(f"{name} {version}" for name, version in content["versions"].items())
    lines = [
        f"# {content['card']}",
        "",
        f"Measured {content['created']} on {machine['cpu']} ({machine['cores']} cores), driver {content['driver']}, "
        f"Python {machine['python']}; {versions}; commit {content['commit']}. Times are "
        "medians after a warm-up, the device idle before and after; the first call, which compiles, stands apart. "
        f"All of it took {content['seconds']:.0f} s.",
        "",
        *_verdict(content),
        "",
        *_analyses(parts),
        *_targets(parts),
    ]
    for part, result in parts.items():
        lines += [f"## {HEADINGS[part]}", ""]
        if result["error"]:
            lines += [f"**Failed:** {result['error']}", ""]
        if result["rows"]:
            lines += [_NOTES[part], "", table(result["rows"]), ""]
        if part in figures:
            lines += [f"![Stages over time]({figures[part]})", ""]
        for row in result["rows"]:
            lines += [f"- **failed:** `{name}`" for name in row.get("failures", ())]
    verdicts = [
        {
            "row": v["row"],
            "check": v["check"],
            "measured": v["measured"],
            "asked": v["asked"],
            "holds": _holds(v["passed"]),
        }
        for v in content["gate"]
    ]
    lines += ["## Gate", "", markdown(verdicts)]
    return "\n".join(lines).rstrip() + "\n"


def _verdict(content: Mapping[str, Any]) -> list[str]:
    wrong = [f"{v['row']}, {v['check']}" for v in content["gate"] if v["passed"] is False]
    missing = ", ".join(part for part in HEADINGS if part not in content["parts"])
    if not wrong and missing:
        return [f"**Not all parts ran:** without {missing}. All bars of the others hold."]
    if not wrong:
        return ["**All parts ran, and all bars hold.**"]
    return [f"**{len(wrong)} failed:** {'; '.join(wrong)}."]


def _analyses(parts: Mapping[str, Any]) -> list[str]:
    """Whole analyses, which is what a user waits for."""
    rows = [
        row for part in ("mix", "stems") for row in parts.get(part, {"rows": ()})["rows"] if "timings" in row
    ]
    return [table(rows), ""] if rows else []


def targets(parts: Mapping[str, Any]) -> list[dict[str, object]]:
    """What rows were to reach, and whether they did: a row for each time or memory that has a limit."""
    found: list[dict[str, object]] = []
    for part, result in parts.items():
        for row in result["rows"]:
            for limit in ("must_seconds", "aim_seconds", "must_memory_gb"):
                if limit in row:
                    kind, _, quantity = limit.partition("_")
                    value = number(row.get(quantity))
                    found.append(
                        {
                            "name": f"{part}: {row['name']}",
                            "kind": kind,
                            "asked": cell(quantity, row[limit]),
                            "measured": cell(quantity, value),
                            "met": value <= row[limit],
                        }
                    )
    return found


def _targets(parts: Mapping[str, Any]) -> list[str]:
    rows = [{**row, "met": "met" if row["met"] else "**missed**"} for row in targets(parts)]
    if not rows:
        return []
    return ["What was to be reached, `must` and `aim`:", "", markdown(rows, right={"asked", "measured"}), ""]


def _holds(passed: bool | None) -> str:
    return "not judged" if passed is None else yes(passed)


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as markdown, of which each has the columns that it has."""
    names = [name for name in _COLUMNS if any(name in row for row in rows)]
    names += list(dict.fromkeys(name for row in rows for name in row if name not in {*_COLUMNS, *_LEFT_OUT}))
    titles = {name: _COLUMNS.get(name, name) for name in names}
    cells = [{titles[name]: cell(name, row[name]) if name in row else "" for name in names} for row in rows]
    return markdown(
        cells, right={titles[name] for name in names} - {titles["name"], titles.get("held to", "")}
    )


def cell(name: str, value: object) -> str:
    """A figure with its unit, which its name tells."""
    if isinstance(value, bool):
        return yes(value)
    if value is None:
        return "-"
    if isinstance(value, str | int):
        return str(value)
    figure = number(value)
    if name.startswith(("seconds", "first_seconds")):
        return f"{figure:.3g} s" if figure >= 1 else f"{1e3 * figure:.3g} ms"
    if name in ("difference", "bound"):
        return f"{figure:.1e}"
    units = {"ratio": "x", "memory_gb": " GB", "snr_db": " dB"}
    return f"{figure:.0%}" if name in ("share", "busy") else f"{figure:.3g}{units.get(name, '')}"
