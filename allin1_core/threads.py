"""Thread pools and locks that survive a fork, and the number of cores that may be used."""

from __future__ import annotations

import collections
import concurrent.futures
import contextlib
import contextvars
import functools
import numbers
import os
import queue
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from allin1_core.errors import OptionError

_LIMIT: contextvars.ContextVar[int | None] = contextvars.ContextVar("limit", default=None)
_READERS: contextvars.ContextVar[int] = contextvars.ContextVar("readers", default=1)


def usable_cores() -> int:
    """Cores that this process may use, which may be fewer than the machine has; see `limited_cores`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    limit = _LIMIT.get()
    return cores if limit is None else min(cores, limit)


def at_most_usable(num_threads: int | None) -> int:
    """Threads for who asks for that many: not more than `limited_cores` allows; for None `usable_cores`."""
    if num_threads is None:
        return usable_cores()
    limit = _LIMIT.get()
    return num_threads if limit is None else min(num_threads, limit)


def check_count(name: str, count: int | None, none: str) -> None:
    """Raise `OptionError` unless it is a whole number of at least 1, or None, which stands for what `none` says."""
    if count is not None and not (isinstance(count, numbers.Integral) and count >= 1):
        raise OptionError(f"{name}: {count!r}; expected at least 1. Leave it out for {none}")


@contextlib.contextmanager
def limited_cores(most: int) -> Iterator[None]:
    """Inside the block, thread pools that the calling thread starts have at most that many threads.

    It holds for what allin1-core starts; BLAS and torch have settings of their own.

    Parameters
    ----------
    most : int
        At least 1.

    Raises
    ------
    ValueError
        If `most` is not positive.
    """
    if most < 1:
        raise ValueError(f"most: {most}; expected at least 1 core")
    token = _LIMIT.set(most)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def cores_of_a_reader() -> int:
    """Cores that the reading of one file may use; see `readers`."""
    return max(1, usable_cores() // _READERS.get())


@contextlib.contextmanager
def readers(number: int) -> Iterator[None]:
    """Inside the block, the calling thread and those that its pools start are of that many times more that read files.

    A block within another one multiplies: tracks side by side, of each the stems.
    """
    token = _READERS.set(_READERS.get() * number)
    try:
        yield
    finally:
        _READERS.reset(token)


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
    caller_waits : bool
        Whether several threads are all helpers, while the calling one waits: an interruption (Ctrl-C) comes to the main
        thread, and so never to one that holds a lock of the others.

    Attributes
    ----------
    num_threads : int
    """

    def __init__(
        self, num_threads: int | None = None, name: str = "allin1-core", *, caller_waits: bool = False
    ) -> None:
        self.num_threads = at_most_usable(num_threads)
        self._name = name
        self._caller_works = self.num_threads == 1 or not caller_waits
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._helpers: list[threading.Thread] = []

    def __enter__(self) -> ThreadPool:
        return self

    def __exit__(self, *exception: object) -> None:
        for _ in self._helpers:
            self._jobs.put(None)
        for helper in self._helpers:
            if helper.ident is not None:
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

        helpers = min(self.num_threads, len(todo)) - self._caller_works
        try:
            for number in range(helpers):
                if number == len(self._helpers):
                    self._start_helper()
                self._jobs.put(help_out)
            if self._caller_works:
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

    def map_ahead(
        self, run: Callable[[Item], Output], items: Iterable[Item], most_ahead: int
    ) -> Iterator[Output]:
        """``run(item)`` for every item, in the order of the items, by helpers while the calling thread takes them.

        At most `most_ahead` items are begun, or have ended, behind the one that was taken last. An error is raised in
        its place.
        """
        begun: collections.deque[concurrent.futures.Future[Output]] = collections.deque()

        def fulfil(future: concurrent.futures.Future[Output], item: Item) -> None:
            try:
                future.set_result(run(item))
            except BaseException as error:
                future.set_exception(error)
            finally:
                del future  # it would be a circle: the error's traceback leads here

        for item in items:
            if len(begun) == most_ahead:
                yield begun.popleft().result()
            if len(self._helpers) < self.num_threads:
                self._start_helper()
            begun.append(concurrent.futures.Future())
            self._jobs.put(functools.partial(fulfil, begun[-1], item))
        while begun:
            yield begun.popleft().result()

    def _start_helper(self) -> None:
        # A daemon, so that not even an interruption right here leaves a thread that the process's end waits for.
        helper = threading.Thread(
            target=contextvars.copy_context().run,
            args=(self._help,),
            name=f"{self._name}_{len(self._helpers) + 1}",
            daemon=True,
        )
        self._helpers.append(helper)
        helper.start()

    def _help(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class Lock:
    """A lock for ``with`` blocks that a forked child finds free: the thread that held it does not exist there."""

    def __init__(self) -> None:
        self.reset_in_child()
        call_in_child(self)

    def reset_in_child(self) -> None:
        self._lock: threading.Lock | threading.Semaphore = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


class Slots(Lock):
    """As `Lock`, but held by so many threads at a time, and given in the order in which they came."""

    def __init__(self, number: int) -> None:
        self._number = number
        super().__init__()

    def reset_in_child(self) -> None:
        self._lock = threading.Semaphore(self._number)


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


os.register_at_fork(after_in_child=_reset_all)
