"""The thread pool that everything on the CPU shares its work among, and what a forked child has to forget of threads.

A pool of ``concurrent.futures`` refuses work as soon as the main thread has ended, and one that is kept is without its
threads in a forked child, where whoever waits for them waits for ever. So pools here are made of plain threads, and
last for a ``with`` block.
"""

from __future__ import annotations

import collections
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from allin1_core.cores import at_most_usable

Item = TypeVar("Item")
Output = TypeVar("Output")


class ThreadPool:
    """The calling thread and helpers beside it, which are started when first needed and end with the ``with`` block.

    Parameters
    ----------
    num_threads : int, optional
        With the calling one; by default one for each core of this process. `limited_cores` holds for both.
    name : str
        Of the helpers.

    Attributes
    ----------
    num_threads : int
    """

    def __init__(self, num_threads: int | None = None, name: str = "allin1-core") -> None:
        self.num_threads = at_most_usable(num_threads)
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._helpers: list[threading.Thread] = []

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(self, *exception: object) -> None:
        for _ in self._helpers:
            self._jobs.put(None)
        for helper in self._helpers:
            helper.join()

    def map(self, run: Callable[[Item], Output], items: Iterable[Item]) -> list[Output]:
        """``run(item)`` for every item, in the order of the items.

        After an error no further item is begun. It is raised when all that were begun have ended; of several, that of
        the foremost item.
        """
        todo = collections.deque(enumerate(items))
        outputs: dict[int, Output] = {}
        errors: dict[int, BaseException] = {}
        ended: queue.SimpleQueue[None] = queue.SimpleQueue()

        def work() -> None:
            while todo:
                try:
                    index, item = todo.popleft()
                except IndexError:  # another thread was quicker
                    return
                try:
                    outputs[index] = run(item)
                except BaseException as error:
                    errors[index] = error
                    todo.clear()

        def help_out() -> None:
            work()
            ended.put(None)

        helpers = min(self.num_threads, len(todo)) - 1
        try:
            for number in range(helpers):
                if number == len(self._helpers):
                    self._start_helper()
                self._jobs.put(help_out)
            work()
            for _ in range(helpers):
                ended.get()
            if errors:
                # An interruption (Ctrl-C) goes before what is wrong with an item.
                raise errors[min(errors, key=lambda index: (isinstance(errors[index], Exception), index))]
            return [outputs[index] for index in range(len(outputs))]
        finally:
            todo.clear()
            errors.clear()  # it would be a circle: the error's traceback leads here

    def _start_helper(self) -> None:
        # A daemon, so that not even an interruption right here leaves a thread that the process's end waits for.
        helper = threading.Thread(
            target=self._help, name=f"{self._name}_{len(self._helpers) + 1}", daemon=True
        )
        helper.start()
        self._helpers.append(helper)

    def _help(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class Lock:
    """A lock for ``with`` blocks that a forked child finds free: the thread that held it does not exist there."""

    def __init__(self) -> None:
        self.reset_in_child()
        call_in_child(self)

    def reset_in_child(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


class DependsOnThreads(Protocol):
    """What another thread may be at work on when this process is forked."""

    def reset_in_child(self) -> None:
        """Called in the child, where there is no other thread."""


_DEPENDING: weakref.WeakSet[DependsOnThreads] = weakref.WeakSet()


def call_in_child(depending: DependsOnThreads) -> None:
    """Have it reset in every child that this process is forked into, for as long as it lives."""
    _DEPENDING.add(depending)


def _reset_all() -> None:
    for depending in _DEPENDING:
        depending.reset_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
