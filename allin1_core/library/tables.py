"""The tables of a library, songs and failures: Parquet in parts that are written whole and never changed.

The table of songs is the manifest of the library as well: a resume reads two of its columns, and no result.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from allin1_core.errors import BackendError, OutputError
from allin1_core.library.places import Place, errors_as
from allin1_core.library.sources import Song
from allin1_core.results.result import AnalysisResult

if TYPE_CHECKING:
    import pyarrow

SONGS, FAILURES, RESULTS, SOURCES = "songs", "failures", "results", "sources"
# A part is written when it has so many rows, or its first one has waited for two minutes and a twentieth of the run,
# so that a run of a day leaves a hundred parts. Killed before, nothing is lost: results without a row are found.
_MOST_ROWS = 1000
_SECONDS, _SHARE = 120.0, 0.05

Row = dict[str, Any]


def need_pyarrow() -> None:
    """Raise `BackendError` unless pyarrow is installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise BackendError(
            "library: its tables need pyarrow, which is not installed; pip install 'allin1-core[library]'"
        ) from error


def _schema(table: str) -> pyarrow.Schema:
    import pyarrow as pa

    of_both = [("song", pa.string()), ("name", pa.string()), ("state", pa.string())]
    when = [("finished", pa.timestamp("ms", tz="UTC"))]
    if table == FAILURES:
        return pa.schema([*of_both, ("error", pa.string()), ("message", pa.string()), *when])
    section = pa.struct([("start", pa.float64()), ("end", pa.float64()), ("label", pa.string())])
    return pa.schema(
        [
            *of_both,
            ("sha256", pa.string()),
            ("bpm", pa.int32()),
            ("tempo", pa.float64()),
            ("tempo_spread", pa.float64()),
            ("beats", pa.list_(pa.float64())),
            ("positions", pa.list_(pa.int32())),
            ("sections", pa.list_(section)),
            ("provenance", pa.string()),
            *when,
        ]
    )


def song_row(song: Song, result: AnalysisResult) -> Row:
    """The row of a song that is done."""
    return {
        **_of_song(song),
        "sha256": _sha256(result.provenance["audio_sha256"]),
        "bpm": result.bpm,
        "tempo": result.tempo,
        "tempo_spread": result.tempo_spread,
        "beats": result.beats,
        "positions": result.beat_positions,
        "sections": [vars(segment) for segment in result.segments],
        "provenance": json.dumps(result.provenance),
    }


def failure_row(song: Song, error: str, message: str) -> Row:
    """The row of a song that failed: the class of what was raised, and its message."""
    # Parquet holds UTF-8 alone, and a message may quote the bytes of a name.
    return {**_of_song(song), "error": error, "message": message.encode("utf-8", "backslashreplace").decode()}


def _of_song(song: Song) -> Row:
    return {
        "song": column_text(song.location),
        "name": column_text(song.name),
        "state": song.state,
        "finished": datetime.datetime.now(datetime.UTC),
    }


def column_text(name: str) -> str:
    """A path as a column has it: bytes that are no UTF-8 escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _sha256(of_files: Mapping[str, str]) -> str:
    """Of the only file; of several, of their digests in the order of their names."""
    digests = [digest for _, digest in sorted(of_files.items())]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


class TableWriter:
    """Adds rows to the tables of a library, in parts; `close` writes what is left.

    Parameters
    ----------
    place : Place
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._rows: dict[str, list[Row]] = {SONGS: [], FAILURES: []}
        self._start, self._due = time.monotonic(), 0.0

    def add(self, row: Row) -> None:
        """Add the row of a song that is done, or failed.

        Raises
        ------
        OutputError
            If a part cannot be written.
        """
        now = time.monotonic()
        if not any(self._rows.values()):
            self._due = now + max(_SECONDS, _SHARE * (now - self._start))
        self._rows[FAILURES if "error" in row else SONGS].append(row)
        if sum(map(len, self._rows.values())) >= _MOST_ROWS or now >= self._due:
            self.close()

    def close(self) -> None:
        """Write the rows that no part has yet; see `add`."""
        for table, rows in self._rows.items():
            if rows:
                write_part(self._place, table, rows)
                rows.clear()


def write_part(place: Place, table: str, rows: Sequence[Row]) -> None:
    """Write rows as a part of a table; `OutputError` if it cannot be written."""
    import pyarrow as pa

    moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S%f")
    name = f"{table}/part-{moment}-{uuid.uuid4().hex[:12]}.parquet"
    _write(place, name, pa.Table.from_pylist(list(rows), schema=_schema(table)))


def _write(place: Place, name: str, table: pyarrow.Table) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer, compression="zstd")
    place.write(name, buffer.getvalue().to_pybytes())


def read_table(place: Place, table: str, columns: Sequence[str]) -> pyarrow.Table:
    """Columns of a table, its parts in the order they were written; no rows if it has none.

    Raises
    ------
    OutputError
        If a part cannot be read.
    """
    from pyarrow import dataset

    parts = place.files(table, ".parquet")
    schema = _schema(table)
    if not parts:
        return schema.empty_table().select(columns)
    with errors_as(
        f"{place.location}/{table}", OutputError, "cannot be read as a table", "remove the part it names"
    ):
        found = dataset.dataset(parts, schema=schema, format="parquet", filesystem=place.filesystem)
        return found.to_table(columns=list(columns))


def done_songs(place: Place) -> dict[str, str]:
    """The state of each song that is done, by its location as the table has it."""
    table = read_table(place, SONGS, ("song", "state"))
    return dict(zip(table["song"].to_pylist(), table["state"].to_pylist(), strict=True))


def read_outcomes(place: Place) -> dict[str, str | None]:
    """How each song ended when it was last tried, by its location as the tables have it: the class of error, or None.

    A song that was done has failed since if that was later, and in another state.
    """
    columns = ("song", "state", "finished")
    done = {song: (state, when) for song, state, when in _rows(place, SONGS, columns)}
    outcomes: dict[str, str | None] = dict.fromkeys(done)
    for song, state, when, error in _rows(place, FAILURES, (*columns, "error")):
        state_then, then = done.get(song, (None, when))
        if state != state_then and when >= then:
            outcomes[song] = error
    return outcomes


def _rows(place: Place, table: str, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    import pyarrow as pa

    found = read_table(place, table, columns)
    when = found.schema.get_field_index("finished")
    # As numbers, which are made quicker than a million datetimes.
    found = found.set_column(when, "finished", found["finished"].cast(pa.int64()))
    return zip(*(found[name].to_pylist() for name in columns), strict=True)


def write_source(place: Place, songs: Sequence[str]) -> str:
    """Write the songs of a source, unless that list is there already; gives its name, which tells its content."""
    import pyarrow as pa

    name = f"{hashlib.sha256(json.dumps(songs).encode()).hexdigest()[:32]}.parquet"
    if not any(path.endswith(f"/{name}") for path in place.files(SOURCES, ".parquet")):
        _write(place, f"{SOURCES}/{name}", pa.table({"song": pa.array(songs, pa.string())}))
    return name


def read_source(place: Place, name: str) -> list[str]:
    """The songs of a source, by the name that `write_source` gave.

    Raises
    ------
    OutputError
        If the list is not there, or cannot be read.
    """
    from pyarrow import BufferReader, parquet

    with errors_as(
        f"{place.location}/{SOURCES}/{name}", OutputError, "cannot be read", "run the library again"
    ):
        content = place.read(f"{SOURCES}/{name}")
        if content is None:
            raise FileNotFoundError("it is not there")
        songs: list[str] = parquet.read_table(BufferReader(content))["song"].to_pylist()
    return songs
