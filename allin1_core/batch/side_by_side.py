"""Tracks of a list side by side: threads that take them in the order of the list, and bounds on what is in flight."""

from __future__ import annotations

import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from allin1_core.errors import BackendError
from allin1_core.session import Session
from allin1_core.threads import Lock, at_most_usable

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

    They are begun in their order: the next item is taken when the last one has called ``begun()``, or has ended. After
    an error none is taken. It is raised when those that were begun have ended; of several, that of the foremost item.

    One at a time they run in the calling thread, as MLX needs it. Several run in threads of their own while the calling
    one waits: an interruption (Ctrl-C) comes to the main thread, and so never to one that holds a lock of the others.

    Parameters
    ----------
    items : iterable
    jobs : int
    run : callable
    stopping : Event
        Set when the calling thread is interrupted. What runs then is to raise `StoppedError` soon; the interruption is
        raised when it has.
    """
    todo, order = enumerate(items), Lock()
    errors: dict[int, BaseException] = {}

    def work() -> None:
        while not (errors or stopping.is_set()):
            with contextlib.ExitStack() as turn:
                turn.enter_context(order)
                entry = next(todo, None)
                if entry is None:
                    return
                try:
                    run(*entry, turn.close)
                except StoppedError:
                    return
                except BaseException as error:
                    errors[entry[0]] = error
                    if not isinstance(error, Exception):
                        stopping.set()

    number = at_most_usable(jobs)
    if number == 1:
        work()
    else:
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()

        def work_beside() -> None:
            try:
                work()
            finally:
                ended.put(None)

        context = contextvars.copy_context
        threads = [
            threading.Thread(target=context().run, args=(work_beside,), name=f"track_{index}", daemon=True)
            for index in range(1, number + 1)
        ]
        try:
            for thread in threads:
                thread.start()
            for _ in threads:
                ended.get()  # not join: interrupted, it takes a thread for ended that is not (Python 3.11)
        except BaseException:
            stopping.set()
            raise
        finally:
            for thread in threads:
                if thread.ident is not None:
                    thread.join()
    try:
        if errors:
            # What is no error of an item, as an interruption, goes before.
            raise errors[min(errors, key=lambda index: (isinstance(errors[index], Exception), index))]
    finally:
        errors.clear()  # it would be a circle: the error's traceback leads here
