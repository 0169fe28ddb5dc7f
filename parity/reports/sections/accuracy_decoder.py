"""The decoder's part of the report over many songs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from allin1_core.plotting import new_figure, save
from parity.decoder_agreement import DecoderAgreement
from parity.reports.tables import markdown, yes

_SCORES = {
    "f_measure": "F-measure",
    "cmlt": "CMLt",
    "amlt": "AMLt",
    "downbeat_f_measure": "downbeat F-measure",
}
_OUTLIERS = 8

Rows = Sequence[dict[str, Any]]


def render(content: dict[str, Any], folder: Path) -> str:
    """Markdown of this section; its plots go into the folder."""
    rows: Rows = content["rows"]
    oracle = content["oracle"]
    _plot(rows, folder / "accuracy_decoder.png")
    lines = [
        "## Decoder",
        "",
        f"**{_verdict(rows, oracle)}**",
        "",
        "Activations are made from the annotated beats of each song as a network would give them, with a network's",
        "faults: bumps of varying width and height, noise, missing and extra beats, downbeats taken for beats. Seeds",
        "are fixed by the song's name. Both decoders get the same array, with `[3, 4]` beats a bar. Online beats are",
        "DBNBeatTrackingProcessor's, bars on given beats DBNBarTrackingProcessor's; the table is of whole songs.",
        "",
        f"Command: `{content['command']}`, a part of `make parity-full`. Measured {content['measured']} on "
        f"{content['machine']['cpu']}.",
        "",
        "| | |",
        "| --- | ---: |",
        *_totals(rows),
        "",
        "How well the beats fit the annotations (mir_eval: F-measure at 70 ms, continuity CMLt and AMLt), which says",
        "how hard these activations are. A song is *steady* if nine tenths of its beat intervals lie within 4 % of the",
        "median. Bars of 6 or 8 are not among the bar lengths that are modelled.",
        "",
        _scores(rows, oracle),
        "",
        "![How well the decoded beats fit the annotations, song by song](accuracy_decoder.png)",
        "",
        *_outliers(rows),
    ]
    return "\n".join(lines)


def _verdict(rows: Rows, oracle: str) -> str:
    same, online, bars = (
        sum(DecoderAgreement(**row[kind]).identical for row in rows)
        for kind in ("agreement", "online", "bars")
    )
    return (
        f"{same} of {len(rows)} songs: identical paths, log probabilities and beats, bit for bit, with {oracle}; "
        f"{online} with identical beats online, {bars} with identical bars on the annotated beats."
    )


def _totals(rows: Rows) -> list[str]:
    def total(name: str, kind: str = "agreement") -> int:
        return sum(row[kind][name] for row in rows)

    worst = max(rows, key=lambda row: row["agreement"]["frames_different"])
    difference = max(row["agreement"]["log_probability_difference"] for row in rows)
    frames = worst["agreement"]["frames_different"]
    named = f"{worst['song']}, {frames} frames" if frames else "none: no frame differs in any"
    return [
        f"| songs, hours of music | {len(rows)}, {sum(row['duration'] for row in rows) / 3600:.1f} |",
        f"| identical paths | {total('identical_path')} of {len(rows)} |",
        f"| frames that differ (of both bar lengths) | {total('frames_different')} of {total('num_frames'):,} |",
        f"| worst song | {named} |",
        f"| largest difference of log probability | {difference:g} |",
        f"| beats matched | {total('beats_matched'):,} of {total('num_beats'):,} |",
        *(
            f"| {words} | {total('beats_matched', kind):,} of {total('num_beats', kind):,} |"
            for kind, words in (
                ("online", "beats online matched"),
                ("bars", "positions of given beats matched"),
            )
        ),
        f"| lowest F-measure against the oracle | {min(r['agreement']['f_measure'] for r in rows):.3f} |",
    ]


def _groups(rows: Rows) -> dict[str, pd.DataFrame]:
    """All songs, and those of a kind of tempo or a bar length; the scores are columns such as ``ours.cmlt``."""
    table = pd.json_normalize(rows)
    by_tempo, by_meter = (dict(iter(table.groupby(column))) for column in ("tempo", "meter"))
    groups = {f"{tempo} tempo": by_tempo[tempo] for tempo in ("steady", "changing") if tempo in by_tempo}
    return {"all": table, **groups, **{f"{meter} beats a bar": group for meter, group in by_meter.items()}}


def _scores(rows: Rows, oracle: str) -> str:
    found = []
    for name, group in _groups(rows).items():
        ours, theirs = ([group[f"{side}.{score}"].mean() for score in _SCORES] for side in ("ours", "oracle"))
        found.append(
            {
                "songs": name,
                "number": len(group),
                "identical paths": group["agreement.identical_path"].sum(),
                **{score: f"{mean:.4f}" for score, mean in zip(_SCORES.values(), ours, strict=True)},
                f"{oracle}'s": "the same" if ours == theirs else ", ".join(f"{mean:.4f}" for mean in theirs),
            }
        )
    return markdown(found, right={"number", "identical paths", *_SCORES.values()})


def _outliers(rows: Rows) -> list[str]:
    worst = [
        {
            "song": row["song"],
            "tempo": row["tempo"],
            "beats a bar": row["meter"],
            **{_SCORES[score]: f"{row['ours'][score]:.3f}" for score in ("f_measure", "cmlt", "amlt")},
            "identical path": yes(row["agreement"]["identical_path"]),
        }
        for row in sorted(rows, key=lambda row: row["ours"]["f_measure"])[:_OUTLIERS]
    ]
    table = markdown(worst, right={"beats a bar", *_SCORES.values()})
    return [
        "Songs whose beats fit their annotations worst (ours and the oracle's alike, unless said):",
        "",
        table,
    ]


def _plot(rows: Rows, path: Path) -> None:
    """Songs sorted by score, by kind of tempo: what share of them is at or below it, and by how much it misses 1."""
    figure = new_figure(10, 7)
    panels = figure.subplots(2, 2, sharey=True)
    for panel, (score, name) in zip(panels.flat, _SCORES.items(), strict=True):
        for kind in ("steady", "changing"):
            values = np.sort([row["ours"][score] for row in rows if row["tempo"] == kind])
            share = 100 * np.arange(1, len(values) + 1) / max(len(values), 1)
            panel.step(
                np.concatenate([[0.0], values, [1.0]]),
                np.concatenate([[0.0], share, share[-1:]]),
                where="post",
                label=f"{kind} tempo ({len(values)} songs)",
            )
        panel.set_xlim(0, 1.005)
        panel.set_ylim(0, 100)
        panel.grid(alpha=0.3)
        panel.set_xlabel(f"{name} against the annotations")
    for panel in panels[:, 0]:
        panel.set_ylabel("songs with at most this score, %")
    panels[0, 0].legend(loc="upper left")
    figure.suptitle(f"How well the decoded beats fit the annotations: {len(rows)} songs, cumulated")
    save(figure, path, dpi=120)
