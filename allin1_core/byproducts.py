"""Cache of stems and spectrograms on disk, for later runs.

Beside each byproduct lies a JSON record that says what it was made from and how, and the SHA-256 of what was made. A
byproduct is used only if its record says what the present run would say, and if what is read has that SHA-256. So
neither a half-written byproduct nor one of another song with the same name is ever taken for this one, whatever the
order in which processes that share the folders write their files: a record vouches for its own values alone.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from allin1_core.audio.types import SAMPLE_RATE, STEM_NAMES, Stems, samples_digest
from allin1_core.audio.writing import write_wav
from allin1_core.backends import Choice
from allin1_core.backends.devices import Allocator, to_host
from allin1_core.errors import AudioError, OutputError, StemsError
from allin1_core.files.reading import read_content, read_json, read_npy
from allin1_core.files.writing import make_folder, remove_abandoned, write_text, written_whole
from allin1_core.separation import read_stems_folder
from allin1_core.separation.track import Track
from allin1_core.session import Session
from allin1_core.spectrogram import num_bands, num_frames
from allin1_core.timings.recorder import Stage

TimedStage: TypeAlias = Callable[..., AbstractContextManager[Stage]]

_RECORD = "made_from.json"
SPECTROGRAM_SUFFIXES = (".npy", f".{_RECORD}")
# Bytes.
_LARGEST_RECORD = 1 << 20
# Bytes: ten hours.
_LARGEST_SPECTROGRAM = 5 << 30


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

    def stems(
        self,
        track: Track,
        session: Session,
        audio_sha256: Mapping[str, str],
        stage: TimedStage,
        separate: Callable[[], tuple[dict[str, Any], int, Stems, dict[str, Any]]],
    ) -> tuple[Stems, dict[str, Any]]:
        """A track's kept stems, or what `separate` gives, which is then kept; and what a result says about them.

        Parameters
        ----------
        track, session
        audio_sha256 : dict of str
            From `AudioFiles`.
        stage : callable
            `Timings.stage` with the track's name.
        separate : callable
            Gives the `separated` stems, their sample rate, `stems` and `provenance` of `save_stems`.
        """
        settings, choice = session.settings, session.separation_choice
        model = settings.demix_model
        made_from = {
            "audio_sha256": next(iter(audio_sha256.values())),
            "model": model,
            "repository_sha256": session.repository_sha256,
            "seed": settings.demix_seed,
            "overlap": settings.demix_overlap,
            "stems_as_int16": settings.stems_as_int16,
            "separation": choice.as_dict(),
        }
        if self.has_stems(track, model, made_from):
            with stage("demix", choice=choice) as timed:
                found = self.load_stems(track, model, made_from, session.allocate_stems)
                timed.cached = found is not None
                timed.audio_seconds = found[0].seconds if found else None
            if found is not None:
                return found
        separated, sample_rate, stems, provenance = separate()
        with stage("save", audio_seconds=stems.seconds, what="stems"):
            self.save_stems(track, model, separated, sample_rate, stems, made_from, provenance)
        return stems, provenance

    def spectrogram(
        self, track: Track, stems: Stems, choice: Choice, stage: TimedStage, transform: Callable[[], Any]
    ) -> Any:
        """A track's kept log spectrogram, or what `transform` gives, which is then kept.

        Parameters
        ----------
        track, stems
        choice : Choice
            Of the backend that `transform` uses.
        stage : callable
            `Timings.stage` with the track's name and length.
        transform : callable
            Gives float32 (4, T, 81) as an array of the backend's own.
        """
        made_from = {"stems_sha256": samples_digest(stems), "spectrogram": choice.as_dict()}
        if self.has_spectrogram(track, made_from):
            frames = num_frames(stems.samples.shape[1], stems.sample_rate)
            with stage("spec_load") as timed:
                found = self.load_spectrogram(track, made_from, frames)
                timed.cached = found is not None
            if found is not None:
                return found
        spectrogram = transform()
        with stage("save", what="spectrogram"):
            self.save_spectrogram(track, to_host(spectrogram), made_from)
        return spectrogram

    def stems_folder(self, track: Track, model: str) -> Path:
        """Where the separated stems of a track are."""
        return self.demix_dir / model / track.name

    def has_stems(self, track: Track, model: str, key: Mapping[str, Any]) -> bool:
        """Whether a track's stems seem to be there and made from `key`; `load_stems` finds out."""
        return "demix" not in self.remake and self._stems_record(track, model, key) is not None

    def load_stems(
        self, track: Track, model: str, key: Mapping[str, Any], allocate: Allocator = np.empty
    ) -> tuple[Stems, dict[str, Any]] | None:
        """A track's kept stems, in an array of `allocate`, and what a result says about them.

        Returns
        -------
        Stems, dict
            None if they are not there, not those that the record was written for, or cannot be read: they are to
            be made again.
        """
        record = self._stems_record(track, model, key)
        if record is None:
            return None
        try:
            stems = read_stems_folder(self.stems_folder(track, model), allocate)
        except (AudioError, StemsError):
            return None  # damaged, or another process is replacing them
        return (stems, record["provenance"]) if samples_digest(stems) == record["sha256"] else None

    def _stems_record(self, track: Track, model: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        return _read_record(self.stems_folder(track, model) / _RECORD, key)

    def save_stems(
        self,
        track: Track,
        model: str,
        separated: Mapping[str, Any],
        sample_rate: int,
        stems: Stems,
        key: Mapping[str, Any],
        provenance: Mapping[str, Any],
    ) -> None:
        """Write separated stems as WAV files, 16-bit for ``int16`` and float for ``float32``.

        Parameters
        ----------
        track, model : Track, str
        separated : dict of int16 or float32 (num_samples, num_channels)
            By stem name; arrays of numpy or of the separator's library.
        sample_rate : int
        stems : Stems
            What reading those files gives, by `stems_from_separated`.
        key, provenance : JSON-ready dict
            What they were made from, and what a result says about it.

        Raises
        ------
        OutputError
            If a file cannot be written.
        """
        folder = make_folder(self.stems_folder(track, model))
        remove_abandoned(folder)
        for stem, samples in ((stem, to_host(array)) for stem, array in separated.items()):
            subtype = "PCM_16" if samples.dtype == np.int16 else "FLOAT"
            write_wav(folder / f"{stem}.wav", samples, sample_rate, subtype)
        _save_record(folder / _RECORD, key, samples_digest(stems), provenance)

    def spectrogram_path(self, track: Track) -> Path:
        """Where the log spectrogram of a track is."""
        return self.spec_dir / f"{track.name}.npy"

    def has_spectrogram(self, track: Track, key: Mapping[str, Any]) -> bool:
        """Whether a track's log spectrogram seems to be there and made from `key`; `load_spectrogram` finds out."""
        return "spec" not in self.remake and _read_record(self._spectrogram_record(track), key) is not None

    def load_spectrogram(self, track: Track, key: Mapping[str, Any], num_frames: int) -> np.ndarray | None:
        """A track's kept log spectrogram.

        Parameters
        ----------
        track : Track
        key : JSON-ready dict
            What it must have been made from.
        num_frames : int
            T, the frames that the track has.

        Returns
        -------
        float32 (4, T, 81)
            None if it is not there, not the one that the record was written for, or cannot be read: it is to be
            made again.

        Raises
        ------
        AudioError
            If the record vouches for a file that is no log spectrogram of this track.
        """
        path, record = self.spectrogram_path(track), _read_record(self._spectrogram_record(track), key)
        if record is None:
            return None
        try:
            content = read_content(path, AudioError, most=_LARGEST_SPECTROGRAM)
        except AudioError:
            return None
        if hashlib.sha256(content).hexdigest() != record["sha256"]:
            return None
        spectrogram = read_npy(content, str(path), AudioError, most=_LARGEST_SPECTROGRAM)
        expected = (len(STEM_NAMES), num_frames, num_bands(SAMPLE_RATE))
        if spectrogram.dtype != np.float32 or spectrogram.shape != expected:
            raise AudioError(
                f"{path}: {spectrogram.dtype} {spectrogram.shape}; expected float32 {expected}. Delete the file"
            )
        if not np.isfinite(spectrogram).all():
            raise AudioError(f"{path}: holds NaN or infinity; expected finite numbers. Delete the file")
        return spectrogram

    def save_spectrogram(self, track: Track, spectrogram: np.ndarray, key: Mapping[str, Any]) -> None:
        """Write a log spectrogram ``float32 (4, T, 81)``; `OutputError` if it cannot be written."""
        path = self.spectrogram_path(track)
        make_folder(path.parent)
        content = io.BytesIO()
        np.save(content, spectrogram)
        with written_whole(path) as file:
            file.write(content.getbuffer())
        _save_record(
            self._spectrogram_record(track), key, hashlib.sha256(content.getbuffer()).hexdigest(), {}
        )

    def _spectrogram_record(self, track: Track) -> Path:
        return self.spec_dir / f"{track.name}.{_RECORD}"


def _save_record(path: Path, key: Mapping[str, Any], sha256: str, provenance: Mapping[str, Any]) -> None:
    record = {"made_from": key, "sha256": sha256, "provenance": provenance}
    write_text(path, json.dumps(record, indent=2) + "\n")


def _read_record(path: Path, key: Mapping[str, Any]) -> dict[str, Any] | None:
    try:
        record = read_json(path, OutputError, most=_LARGEST_RECORD)
    except OutputError:
        return None  # none, or not ours: the byproduct is made anew
    if not isinstance(record, dict) or record.get("made_from") != key:
        return None
    return record if isinstance(record.get("provenance"), dict) and "sha256" in record else None
