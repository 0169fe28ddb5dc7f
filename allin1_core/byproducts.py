"""Stems and spectrograms kept on disk, so that a later run need not make them again.

Beside each byproduct lies a JSON file that says what it was made from and how. It is written last; a byproduct is
used only if that file is there and says what the present run would say. So neither a half-written byproduct nor
one of another song with the same name is ever taken for this one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from allin1_core.audio import Stems
from allin1_core.errors import AudioError
from allin1_core.files import make_folder, remove_abandoned, write_text, written_whole
from allin1_core.regular_files import open_regular, read_content, read_npy
from allin1_core.tracks import Track

_RECORD = "made_from.json"
# Bytes: ten hours.
_LARGEST_SPECTROGRAM = 5 << 30


def file_digest(path: Path) -> str:
    """SHA-256 of an audio file; `AudioError` if it cannot be read."""
    digest = hashlib.sha256()
    with open_regular(path, AudioError) as file:
        try:
            while block := file.read(1 << 20):
                digest.update(block)
        except OSError as error:
            raise AudioError(f"{path}: cannot be read ({error.strerror}); copy the file again") from error
    return digest.hexdigest()


def stems_digest(stems: Stems) -> str:
    """SHA-256 of the samples, their type and their rate."""
    digest = hashlib.sha256(f"{stems.samples.dtype} {stems.samples.shape} {stems.sample_rate}".encode())
    digest.update(np.ascontiguousarray(stems.samples).data)
    return digest.hexdigest()


class Byproducts:
    """The folders that stems and spectrograms are kept in.

    Parameters
    ----------
    demix_dir, spec_dir : Path
        Stems go to ``demix_dir/<demix model>/<track>/<stem>.wav``, spectrograms to ``spec_dir/<track>.npy``.
    remake : collection of str
        ``demix``, ``spec``: what is made again although it is there.
    """

    def __init__(self, demix_dir: Path, spec_dir: Path, remake: Collection[str] = ()) -> None:
        self.demix_dir = demix_dir
        self.spec_dir = spec_dir
        self.remake = frozenset(remake)

    def stems_folder(self, track: Track, model: str) -> Path:
        """Where the separated stems of a track are."""
        return self.demix_dir / model / track.name

    def find_stems(self, track: Track, model: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The provenance of a track's stems if they are there and were made from `key`, else None."""
        if "demix" in self.remake:
            return None
        return _read_record(self.stems_folder(track, model) / _RECORD, key)

    def save_stems(
        self,
        track: Track,
        model: str,
        separated: Mapping[str, np.ndarray],
        sample_rate: int,
        key: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> None:
        """Write separated stems as WAV files, 16-bit for ``int16`` and float for ``float32``.

        Parameters
        ----------
        track, model : Track, str
        separated : dict of int16 or float32 (num_samples, num_channels)
            By stem name.
        sample_rate : int
        key, provenance : JSON-ready dict
            What they were made from, and what a result says about it.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        import soundfile

        folder = make_folder(self.stems_folder(track, model))
        (folder / _RECORD).unlink(missing_ok=True)
        remove_abandoned(folder)
        for stem, samples in separated.items():
            subtype = "PCM_16" if samples.dtype == np.int16 else "FLOAT"
            with written_whole(folder / f"{stem}.wav") as file:
                soundfile.write(file, samples, sample_rate, subtype=subtype, format="WAV")
        _save_record(folder / _RECORD, key, provenance)

    def spectrogram_path(self, track: Track) -> Path:
        """Where the log spectrogram of a track is."""
        return self.spec_dir / f"{track.name}.npy"

    def has_spectrogram(self, track: Track, key: Mapping[str, Any]) -> bool:
        """Whether a track's log spectrogram is there and was made from `key`."""
        path = self.spectrogram_path(track)
        if "spec" in self.remake or not path.is_file():
            return False
        return _read_record(path.with_name(f"{track.name}.{_RECORD}"), key) is not None

    def load_spectrogram(self, track: Track) -> np.ndarray:
        """The kept log spectrogram, ``float32 (4, T, 81)``; `AudioError` if the file was damaged since."""
        path = self.spectrogram_path(track)
        content = read_content(path, AudioError, most=_LARGEST_SPECTROGRAM)
        spectrogram = read_npy(content, str(path), AudioError, most=_LARGEST_SPECTROGRAM)
        if spectrogram.ndim != 3 or spectrogram.dtype != np.float32:
            raise AudioError(
                f"{path}: {spectrogram.dtype} {spectrogram.shape}; expected float32 (4, T, 81). Delete the file"
            )
        return spectrogram

    def save_spectrogram(self, track: Track, spectrogram: np.ndarray, key: Mapping[str, Any]) -> None:
        """Write a log spectrogram ``float32 (4, T, 81)``; `OutputError` if it cannot be written."""
        path = self.spectrogram_path(track)
        make_folder(path.parent)
        record = path.with_name(f"{track.name}.{_RECORD}")
        record.unlink(missing_ok=True)
        with written_whole(path) as file:
            np.save(file, spectrogram)
        _save_record(record, key, {})


def _save_record(path: Path, key: Mapping[str, Any], provenance: Mapping[str, Any]) -> None:
    write_text(path, json.dumps({"made_from": key, "provenance": provenance}, indent=2) + "\n")


def _read_record(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # none, or not ours: the byproduct is made anew
    if not isinstance(record, dict) or record.get("made_from") != key:
        return None
    return record.get("provenance")
