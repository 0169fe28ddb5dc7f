"""The whole pipeline, from the shared stems to beats and sections, against the goldens and the scores."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

from allin1_core import AnalysisResult, Analyzer, backends, load_result
from allin1_core.backends.table import module_exists
from allin1_core.cli import main
from allin1_core.timings.schema import read_timings
from parity.agreement import compare, require_each
from parity.decoder_agreement import f_measure
from parity.implementations import Implementation, network_backends, rounds_products
from parity.material import read_score
from parity.oracles import network_golden
from parity.oracles.network_golden import ORACLE, SHORT_TRACKS, TRACKS
from parity.oracles.pipeline import Expected, compare_results, measures, read_golden
from parity.reports.records import ParityRecord, ParityRecorder
from parity.test_network import bound, differences
from parity.test_network import check as check_network

# F-measures of beats and downbeats against the score that the recorded results reach; the model hears the waltz
# boogi_marabi in four.
SCORES = {
    "keep_on_rolling": (0.997, 1.000),
    "midnight_snow_run": (0.983, 0.987),
    "boogi_marabi": (0.810, 0.243),
}
# Beats per minute of the scores that keep one tempo.
TEMPI = {"keep_on_rolling": 104.0, "boogi_marabi": 153.0}


@functools.cache
def _analyzer(implementation: Implementation, weights_dir: Path) -> Analyzer:
    backend, device = implementation.backend, implementation.on("network")
    return Analyzer(
        nn_backend=backend,
        spec_backend=backends.get("network", backend).arrays,
        device=device,
        precision=implementation.precision,
        weights_dir=weights_dir,
    )


def check(result: AnalysisResult, track: str, expected: Expected, record_parity: ParityRecorder) -> None:
    """Record how a result compares with the oracle's and with the score, then hold it to both."""
    within_a_frame = rounds_products(result)
    agreements = compare_results(result, expected, beats_within_a_frame=within_a_frame)
    if track in TEMPI:
        agreements["tempo of the score"] = compare(
            np.array([result.tempo]), np.array([TEMPI[track]]), allowed=0.02
        )
    row = {**measures(result, agreements), "bpm": result.bpm, "tempo": result.tempo}
    row["tempo_apart"] = agreements["tempo"].max_difference
    scores_as_published = True
    if track in SCORES and module_exists("mir_eval"):
        for name, times in zip(("beats", "downbeats"), read_score(track), strict=True):
            row[f"f_{name}"] = f_measure(times, np.array(getattr(result, name)))
        found = round(row["f_beats"], 3), round(row["f_downbeats"], 3)
        scores_as_published = found == SCORES[track]
    choice = result.provenance["stages"]["nn"]
    spectrogram = result.provenance["stages"]["spectrogram"]
    record_parity(
        ParityRecord(
            stage="pipeline",
            case=track,
            oracle=ORACLE,
            backend=f"{spectrogram['backend']} + {choice['backend']}",
            device=choice["device"],
            precision=choice["precision"],
            bound=f"the same, tempo within its bound, {'beats and ' * within_a_frame}boundaries within a frame",
            passed=row.pop("passed") and scores_as_published,
            measures=row,
        )
    )
    require_each(agreements, track)
    assert scores_as_published, (
        f"{track}: {row['f_beats']:.3f} and {row['f_downbeats']:.3f}, published {SCORES[track]}"
    )


def check_probabilities(
    result: AnalysisResult, track: str, shared: Path, record_parity: ParityRecorder
) -> None:
    """As `test_network.test_ensemble`, of what the network made of the spectrogram that the pipeline gave it."""
    choice = result.provenance["stages"]["nn"]
    implementation = Implementation(choice["backend"], choice["precision"], choice["device"])
    golden = network_golden.read_golden(shared, track)
    agreements = differences(result.activations, golden, bound(implementation))
    check_network(record_parity, f"{track}, 8 folds, in the pipeline", ORACLE, implementation, agreements)


def test_one_command_gives_the_goldens_for_all_tracks(
    shared: Path, tmp_path: Path, record_parity: ParityRecorder
) -> None:
    arguments = ["analyze", *(str(shared / "audio" / track) for track in TRACKS), "--activ"]
    arguments += ["--weights-dir", str(shared / "weights"), "--out-dir", str(tmp_path / "out"), "--quiet"]
    assert main([*arguments, "--timings", str(tmp_path / "t.jsonl")]) == 0
    for track in TRACKS:
        found = load_result(tmp_path / "out" / f"{track}.json")
        check(found, track, read_golden(shared, track), record_parity)
        check_probabilities(found, track, shared, record_parity)
    assert {line.track for line in read_timings(tmp_path / "t.jsonl") if line.track} == set(TRACKS)
    # A second run makes the same files, to the byte.
    first = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    short = [str(shared / "audio" / track) for track in SHORT_TRACKS]
    options = ["--weights-dir", str(shared / "weights"), "--out-dir", str(tmp_path / "again"), "--quiet"]
    assert main(["analyze", *short, "--activ", *options]) == 0
    for name in (f"{track}{suffix}" for track in SHORT_TRACKS for suffix in (".json", ".activ.npz")):
        assert (tmp_path / "again" / name).read_bytes() == first[name]


# MLX and plain torch take minutes for a long track on a CPU; the default, which has its test above, and a GPU seconds.
@pytest.mark.parametrize(
    ("implementation", "track"),
    [
        pytest.param(
            one,
            track,
            marks=pytest.mark.full if one.on("network") != "cuda" and track != "falcon69" else (),
            id=f"{one}-{track}",
        )
        for one in network_backends()
        if one.backend != "fused"
        for track in TRACKS
    ],
)
def test_other_backends_give_the_goldens(
    shared: Path, track: str, implementation: Implementation, record_parity: ParityRecorder
) -> None:
    analyzer = _analyzer(implementation, shared / "weights")
    result = analyzer(shared / "audio" / track, include_activations=True)
    check(result, track, read_golden(shared, track), record_parity)
    check_probabilities(result, track, shared, record_parity)
