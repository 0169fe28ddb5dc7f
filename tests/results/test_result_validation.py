"""Results that cannot be: refused where they are read, saved, exported, drawn and sonified, in words that help."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from allin1_core import load_result
from allin1_core.audio.types import Audio
from allin1_core.errors import ResultError
from allin1_core.results.clicks import sonify
from allin1_core.results.differences import differences
from allin1_core.results.exports import FORMATS, beats_text, export
from allin1_core.results.figures import activations, visualize
from allin1_core.results.page import write_page
from allin1_core.results.result import AnalysisResult
from allin1_core.results.validation import validate
from allin1_core.structure import Segment

NUM_FRAMES = 400
FIELDS: dict[str, Any] = {
    "path": "/music/a.wav",
    "bpm": 120,
    "beats": [0.5, 1.0, 1.5, 2.0, 2.5],
    "downbeats": [1.0, 2.5],
    "beat_positions": [3, 1, 2, 3, 1],
    "segments": [
        {"start": 0.0, "end": 0.02, "label": "start"},
        {"start": 0.02, "end": 3.0, "label": "verse"},
        {"start": 3.0, "end": 4.0, "label": "chorus"},
    ],
    "tempo": 119.9,
    "tempo_spread": 0.1,
    "confidences": {
        "beats": [1.0, 0.5, 1, 0, 0.25],
        "downbeats": [0.5, 0.25],
        "boundaries": [0.1, 0.2],
        "labels": [0.9, 0.8, 1],
    },
    "provenance": {"allin1_core_version": "0", "model": {"name": "x", "weights": [{"sha256": "0"}]}},
}
RANDOM = np.random.default_rng(0)
ACTIVATIONS = {
    **{name: RANDOM.random(NUM_FRAMES, np.float32) for name in ("beat", "downbeat", "segment")},
    "label": RANDOM.dirichlet(np.ones(10), NUM_FRAMES).T.astype(np.float32),
}
EMBEDDINGS = RANDOM.normal(size=(4, NUM_FRAMES, 24)).astype(np.float32)


def but(*where: str | int, to: Any) -> dict[str, Any]:
    """The fields, but for one value."""
    fields: Any = copy.deepcopy(FIELDS)
    inner = fields
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = to
    return dict(fields)


def in_code(fields: dict[str, Any]) -> AnalysisResult:
    """A result of these fields that nothing has looked at."""
    segments = fields["segments"]
    if isinstance(segments, list):
        with contextlib.suppress(TypeError):
            segments = [Segment(**segment) for segment in segments]
    path = Path(fields["path"]) if isinstance(fields["path"], str) else fields["path"]
    return AnalysisResult(**{**fields, "path": path, "segments": segments})


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "path is a number": (but("path", to=3), "path: found 3; expected a pathlib.Path that names the track"),
    "path without a name": (
        but("path", to=""),
        r"path: found PosixPath\('.'\); expected a pathlib.Path that",
    ),
    "bpm is text": (but("bpm", to="120"), "bpm: found '120'; expected a number from 0 to 6000"),
    "bpm is a truth": (but("bpm", to=True), "bpm: found True"),
    "bpm is infinite": (but("bpm", to=math.inf), "bpm: found inf"),
    "bpm of many digits": (but("bpm", to=10**4000), "bpm: found a number of 13288 bits"),
    "tempo is NaN": (but("tempo", to=math.nan), "tempo: found nan; expected a number"),
    "tempo 0": (but("tempo", to=0), "tempo: found 0; expected more than 0"),
    "tempo without spread": (
        but("tempo_spread", to=None),
        "tempo_spread: found None; expected a number from 0 to 6000, beats per minute, or null as tempo",
    ),
    "spread without tempo": (
        but("tempo", to=None),
        "tempo: found None; expected a number from 0 to 6000, beats per minute, or null as tempo_spread",
    ),
    "spread below 0": (but("tempo_spread", to=-0.1), "tempo_spread: found -0.1"),
    "confidences are a list": (but("confidences", to=[1]), "confidences: found a value of type list"),
    "a field too many": (but("confidences", "tempo", to=[1]), "confidences: found beats, .*tempo; expected"),
    "confidence NaN": (but("confidences", "labels", 1, to=math.nan), r"confidences.labels\[1\]: found nan"),
    "confidence 1.1": (but("confidences", "downbeats", 1, to=1.1), r"confidences.downbeats\[1\]: found 1.1"),
    "confidences too few": (
        but("confidences", "boundaries", to=[0.1]),
        "confidences.boundaries: found 1; expected 2, one",
    ),
    "confidence is 1": (but("confidences", "beats", to=1), "confidences.beats: found 1; expected a list"),
    "beats are null": (but("beats", to=None), "beats: found None; expected a list of seconds"),
    "a beat is NaN": (but("beats", 1, to=math.nan), r"beats\[1\]: found nan"),
    "a beat before the start": (but("beats", 0, to=-0.5), r"beats\[0\]: found -0.5"),
    "a beat after the end": (but("beats", 4, to=4.5), r"beats\[4\]: found 4.5; .*within the sections"),
    "beat twice": (but("beats", 1, to=0.5), r"beats\[1\]: found 0.5; expected more than the one before"),
    "fewer positions than beats": (
        but("beat_positions", to=[3, 1, 2, 3]),
        "beat_positions: found 4; expected 5, one for each of the beats",
    ),
    "position 0": (but("beat_positions", 0, to=0), r"beat_positions\[0\]: found 0; expected a number"),
    "position 1.5": (but("beat_positions", 2, to=1.5), r"beat_positions\[2\]: found 1.5; .*whole number"),
    "position 2**70": (but("beat_positions", 2, to=2**70), r"beat_positions\[2\]: found a number"),
    "fewer downbeats than there are": (
        but("downbeats", to=[1.0]),
        "downbeats: found 1; expected 2, the beats at position 1",
    ),
    "downbeat 2.0": (but("downbeats", 1, to=2.0), r"downbeats\[1\]: found 2.0; expected 2.5, a beat at"),
    "segments are text": (but("segments", to="verse"), "segments: found 'verse'; expected a list"),
    "no segments": (but("segments", to=[]), "segments: found none; expected at least one"),
    "a segment without a label": (
        but("segments", 1, to={"start": 0.02, "end": 3.0}),
        r"segments\[[01]\]: found a value of type dict; expected an object with start, end and label",
    ),
    "an unknown label": (
        but("segments", 1, "label", to="refrain"),
        r"segments\[1\].label: found 'refrain'; expected one of start, end, intro, outro",
    ),
    "list as label": (but("segments", 1, "label", to=[]), r"segments\[1\].label: found a value of type"),
    "gap": (
        but("segments", 2, "start", to=3.1),
        r"segments\[2\].start: found 3.1; expected 3.0, without gap",
    ),
    "an overlap": (but("segments", 2, "start", to=2.9), r"segments\[2\].start: found 2.9; expected 3.0"),
    "not from the start": (but("segments", 0, "start", to=0.01), r"segments\[0\].start: found 0.01"),
    "an end before the start": (
        but("segments", 2, "end", to=2.0),
        r"segments\[2\].end: found 2.0; expected more than its start, 3.0",
    ),
    "an empty segment": (but("segments", 2, "end", to=3.0), r"segments\[2\].end: found 3.0"),
    "a segment without end": (but("segments", 2, "end", to=1e300), r"segments\[2\].end: found 1e\+300"),
    "provenance is null": (but("provenance", to=None), "provenance: found None; expected an object"),
    "model is text": (but("provenance", "model", to="x"), "provenance.model: found 'x'; expected an obj"),
    "not JSON": (but("provenance", "x", to=np.nan), "provenance: found Out of range float"),
    "weights are a number": (but("provenance", "model", "weights", to=3), ".*weights: found 3; expected"),
    "a fold is text": (
        but("provenance", "model", "weights", to=["x"]),
        r"provenance.model.weights\[0\]: found 'x'; expected an object",
    ),
    "stages are a list": (but("provenance", "stages", to=[]), "provenance.stages: found a value of type"),
    "a stage is text": (but("provenance", "stages", to={"nn": "x"}), "provenance.stages.nn: found 'x'"),
    "hashes are a list": (but("provenance", "audio_sha256", to=["x"]), "provenance.audio_sha256: found"),
}


def altered_activations(name: str, alter: Callable[[np.ndarray], np.ndarray]) -> dict[str, np.ndarray]:
    return {**ACTIVATIONS, name: alter(ACTIVATIONS[name])}


ARRAYS: dict[str, tuple[dict[str, np.ndarray] | np.ndarray, str]] = {
    "activations of another length": (
        {name: values[..., 1:] for name, values in ACTIVATIONS.items()},
        r"activations\['beat'\]: found float32 \(399,\); expected float32 \(400,\), 100 frames a second",
    ),
    "activations of nine labels": (
        altered_activations("label", lambda values: values[1:]),
        r"activations\['label'\]: found float32 \(9, 400\); expected float32 \(10, 400\)",
    ),
    "activations without downbeats": (
        {name: values for name, values in ACTIVATIONS.items() if name != "downbeat"},
        "activations: found beat, segment, label; expected beat, downbeat, segment, label",
    ),
    "activations in double precision": (
        altered_activations("beat", lambda values: values.astype(np.float64)),
        r"activations\['beat'\]: found float64 \(400,\); expected float32",
    ),
    "activations with NaN": (
        altered_activations(
            "beat", lambda values: np.where(np.arange(NUM_FRAMES) == 7, np.float32(np.nan), values)
        ),
        r"activations\['beat'\]: found values from nan to nan; expected probabilities",
    ),
    "activations that are logits": (
        altered_activations("downbeat", lambda values: 3 * values - 1),
        r"activations\['downbeat'\]: found values from -0.9\d* to 1.9\d*; expected probabilities",
    ),
    "embeddings of another length": (
        EMBEDDINGS[:, 1:],
        r"embeddings: found float32 \(4, 399, 24\); expected float32 \(4, 400, 24\)",
    ),
    "embeddings of three stems": (EMBEDDINGS[:3], r"embeddings: found float32 \(3, 400, 24\)"),
    "embeddings without an axis": (EMBEDDINGS[..., 0], r"embeddings: found float32 \(4, 400\)"),
    "embeddings without a width": (EMBEDDINGS[..., :0], r"embeddings: found float32 \(4, 400, 0\)"),
    "embeddings that are whole": (EMBEDDINGS.astype(np.int32), r"embeddings: found int32 \(4, 400, 24\)"),
    "embeddings that are infinite": (
        EMBEDDINGS * np.float32(np.inf),
        "embeddings: found values from -inf to inf; expected finite numbers",
    ),
}


def uses(result: AnalysisResult, folder: Path) -> Iterator[Callable[[], Any]]:
    """Everything that takes a result and gives something else."""
    mix = Audio(np.zeros((44100, 1), np.float32), 44100)
    yield lambda: validate(result)
    yield lambda: result.save(folder / "saved.json")
    for name, suffix in FORMATS.items():
        yield lambda name=name, suffix=suffix: export(result, folder / f"a{suffix}", name)
    yield lambda: visualize(result, audio=mix)
    yield lambda: sonify(result, audio=mix)
    yield lambda: write_page(result, folder / "a.html", against=result)
    yield lambda: differences(result, in_code(FIELDS))
    yield lambda: result._repr_html_()


def assert_refused_everywhere(result: AnalysisResult, message: str, folder: Path) -> None:
    for use in uses(result, folder):
        with pytest.raises(ResultError, match=rf"^result of .*: {message}"):
            use()
    assert not list(folder.iterdir())


def test_the_fields_that_are_made_wrong_below_are_right(tmp_path: Path) -> None:
    result = in_code(FIELDS)
    result.activations, result.embeddings = ACTIVATIONS, EMBEDDINGS
    for use in uses(result, tmp_path):
        use()
    path = tmp_path / "a.json"
    path.write_text(json.dumps(FIELDS))
    assert load_result(path).to_json() == in_code(FIELDS).to_json()


@pytest.mark.parametrize(("fields", "message"), WRONG.values(), ids=WRONG)
def test_fields_that_cannot_be_are_refused(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(ResultError, match=rf"^{re.escape(str(path))}: {message}"):
        load_result(path)
    path.unlink()
    result = in_code(fields)
    result.activations = ACTIVATIONS
    assert_refused_everywhere(result, message, tmp_path)


@pytest.mark.parametrize(("arrays", "message"), ARRAYS.values(), ids=ARRAYS)
def test_arrays_that_cannot_be_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray] | np.ndarray, message: str
) -> None:
    """Beside a JSON file that does not vouch for them, and in a result made in code."""
    (tmp_path / "files").mkdir()
    path = tmp_path / "files" / "a.json"
    path.write_text(json.dumps({name: FIELDS[name] for name in FIELDS if name != "provenance"}))
    result = in_code(FIELDS)
    if isinstance(arrays, dict):
        result.activations = arrays
        array_path = path.with_name("a.activ.npz")
        np.savez(array_path, **arrays)  # type: ignore[arg-type]
    else:
        result.activations, result.embeddings = ACTIVATIONS, arrays
        array_path = path.with_name("a.embed.npy")
        np.save(array_path, arrays)
    with pytest.raises(ResultError, match=rf"^{re.escape(str(array_path))}: {message}"):
        load_result(path)
    (tmp_path / "out").mkdir()
    assert_refused_everywhere(result, message, tmp_path / "out")


def test_numbers_of_numpy_are_refused_before_a_file_is_written(tmp_path: Path) -> None:
    for where in (("beat_positions", 1), ("provenance", "x")):  # which `json` cannot write
        with pytest.raises(ResultError, match=rf"{where[0]}.*: found .* of type int64"):
            in_code(but(*where, to=np.int64(1))).save(tmp_path / "a.json")
    assert not list(tmp_path.iterdir())


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from([0, 1, 3, 0.02, 3.0, 2.5, -1, 1e308, 10**400, "verse", "a"])
    | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["start", "end", "label", "model", "stages"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@st.composite
def altered(draw: st.DrawFn) -> dict[str, Any]:
    """The fields with up to three values replaced, removed or repeated, at any depth."""
    fields = copy.deepcopy(FIELDS)
    for _ in range(draw(st.integers(1, 3))):
        inner: Any = fields
        while True:
            key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
            if not isinstance(inner[key], dict | list) or not inner[key] or draw(st.booleans()):
                break
            inner = inner[key]
        kind = draw(st.sampled_from(["replace", "remove", "repeat"]))
        if kind == "remove":
            del inner[key]
        elif kind == "repeat" and isinstance(inner, list):
            inner.insert(key, inner[key])
        else:
            inner[key] = draw(VALUES)
    return fields


@settings(max_examples=300, deadline=None, derandomize=True)
@given(altered())
def test_what_is_loaded_can_be_used(tmp_path_factory: pytest.TempPathFactory, fields: dict[str, Any]) -> None:
    """Whatever the file holds: refused, or everything that takes a result takes this one."""
    folder = tmp_path_factory.mktemp("altered")
    (folder / "a.json").write_text(json.dumps(fields))
    refusal = ""
    try:
        result = load_result(folder / "a.json")
    except ResultError as error:
        refusal = str(error)
    if refusal:
        assert refusal.startswith(f"{folder / 'a.json'}: ")
        assert len(refusal) < 1000
        return
    frames = round(result.segments[-1].end * 100)
    if 0 < frames <= 10_000:
        result.activations = {
            name: np.zeros((*values.shape[:-1], frames), np.float32) for name, values in ACTIVATIONS.items()
        }
        activations(result)
        for use in uses(result, folder):
            use()
    else:
        visualize(result, audio=Audio(np.zeros((44100, 1), np.float32), 44100))
        assert len(beats_text(result).splitlines()) == len(result.beats)
    assert load_result(folder / "a.json").to_json() == result.to_json()
    assert io.StringIO(result.to_json()).readline() == "{\n"
