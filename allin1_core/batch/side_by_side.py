"""Tracks of a list side by side: threads that take them in the order of the list, and bounds on what is in flight."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from allin1_core.errors import BackendError
from allin1_core.session import Session
from allin1_core.threads import ThreadPool, at_most_usable

# Tracks in flight by default, at most: each takes memory, and with 16 threads a stage of its own scales as well.
MOST_JOBS = 16
# Length of the tracks in flight, by which their memory goes, for each job: ten minutes.
SECONDS_A_JOB = 600.0

Item = TypeVar("Item")


class StoppedError(BaseException):
    """What ends a track in another thread than the interrupted one; no fault of the track's."""


def number_of_jobs(session: Session, num_tracks: int) -> int:
    """How many tracks of a list are analysed at the same time.

    What was asked for, and at most one for each track. By default one for each core that may be used, at most
    `MOST_JOBS`; 1 where MLX runs, whose arrays belong to the thread that made them.

    Raises
    ------
    BackendError
        If more than one was asked for where MLX runs.
    """
    asked = session.settings.jobs
    if session.keeps_to_one_thread:
        if asked is not None and asked > 1:
            raise BackendError(
                f"jobs: {asked}; expected 1, because MLX's arrays belong to the thread that made them. Leave jobs out"
            )
        return 1
    if asked is None:
        asked = min(at_most_usable(session.settings.num_threads), MOST_JOBS)
    return max(1, min(at_most_usable(asked), num_tracks))


class Room:
    """Admission by size: what is inside is together at most `size`, or is one thing alone that is larger."""

    def __init__(self, size: float) -> None:
        self._size = size
        self._inside: list[float] = []
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def taken(self, size: float) -> Iterator[None]:
        """Wait until there is room for that much, and hold it while the block runs."""
        with self._changed:
            self._changed.wait_for(lambda: not self._inside or sum(self._inside) + size <= self._size)
            self._inside.append(size)
        try:
            yield
        finally:
            with self._changed:
                self._inside.remove(size)
                self._changed.notify_all()


def run_side_by_side(
    items: Iterable[Item],
    jobs: int,
    run: Callable[[int, Item, Callable[[], None]], None],
    stopping: threading.Event,
) -> None:
    """Run ``run(index, item, begun)`` for every item, at most `jobs` at a time.

    They are begun in their order, each when the one before has called ``begun()``, or has ended. After an error no
    further one is taken. It is raised when those that were taken have ended; of several, that of the foremost item.

    One at a time they run in the calling thread, as MLX needs it; several in threads beside it.

    Parameters
    ----------
    items : iterable
    jobs : int
    run : callable
    stopping : Event
        Set when the calling thread is interrupted. What runs then is to raise `StoppedError` soon; the interruption is
        raised when it has.
    """
    turn, next_index = threading.Condition(), 0

    def run_in_turn(entry: tuple[int, Item]) -> None:
        index, item = entry

        def begun() -> None:
            nonlocal next_index
            with turn:
                next_index = max(next_index, index + 1)
                turn.notify_all()

        with turn:
            turn.wait_for(lambda: next_index == index)
        try:
            if not stopping.is_set():
                run(index, item, begun)
        except StoppedError:
            pass
        finally:
            begun()

    with ThreadPool(jobs, "track", caller_waits=True) as pool:
        try:
            pool.map(run_in_turn, enumerate(items))
        except BaseException:
            stopping.set()
            raise
