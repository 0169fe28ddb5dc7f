"""The comparison over a folder of the user's tracks, on a small one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.gate_cases import madmom_is_installed

pytestmark = pytest.mark.skipif(
    not madmom_is_installed(), reason="the oracle madmom has no wheel for this Python"
)


def test_a_folder_of_tracks_is_compared_and_reported(
    tmp_path: Path, small_model: str, write_stems: Callable[..., Path]
) -> None:
    from parity import full_tracks

    write_stems("music/one")
    write_stems("music/two", suffix=".flac")
    reports = tmp_path / "reports"
    arguments = [str(tmp_path / "music"), "--model", small_model, "--reports", str(reports)]
    assert full_tracks.main(arguments) == 0
    rows = json.loads((reports / "accuracy.json").read_text())["sections"]["tracks_of_a_folder"]["rows"]
    assert [row["track"] for row in rows] == ["one", "two"]
    exact = {part["implementation"]: part for part in rows[0]["spectrogram"]}
    assert exact["numpy-exact"]["largest"] == 0
    assert 0 < exact["fused-exact"]["largest"] <= 5e-7
    assert rows[0]["network"]["largest"] <= 1e-5
    text = (reports / "accuracy.md").read_text()
    assert "| torch (computed by fused), exact on cpu |" in text
    assert "| torch, its own operations, exact |" in text
    assert "Within the declared bounds on 2 of 2 tracks (spectrogram) and 2 of 2 (network)" in text
    assert "the same beats, positions and sections on 2 of 2" in text
    assert "`python -m parity.full_tracks music`" in text
    assert (reports / "accuracy_tracks_of_a_folder.png").read_bytes().startswith(b"\x89PNG")


def test_a_backend_out_of_bounds_fails_the_track(
    tmp_path: Path, small_model: str, write_stems: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from allin1_core.spectrogram import fused_backend
    from parity import full_tracks

    right = fused_backend.log_spectrogram

    def wrong(*arguments: object, **keywords: object) -> np.ndarray:
        output = right(*arguments, **keywords)  # type: ignore[arg-type]
        output[0, 3, 5] += 1e-4
        return output

    monkeypatch.setattr(fused_backend, "log_spectrogram", wrong)
    write_stems("music/one")
    reports = tmp_path / "reports"
    arguments = [str(tmp_path / "music"), "--model", small_model, "--reports", str(reports)]
    assert full_tracks.main(arguments) == 1
    text = (reports / "accuracy.md").read_text()
    assert "Within the declared bounds on 0 of 1 tracks (spectrogram) and 1 of 1 (network)" in text
    assert "0.0001 **(!)**" in text


def test_a_folder_without_tracks_is_refused(tmp_path: Path) -> None:
    from parity import full_tracks

    with pytest.raises(SystemExit, match="no folders in it; expected one for each track, with four stems"):
        full_tracks.main([str(tmp_path)])
