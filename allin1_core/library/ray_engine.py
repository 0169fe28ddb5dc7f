"""The engine ``ray``: workers as Ray actors, each with a loaded `Analyzer`, on one machine or many.

One actor does all stages of a song. Stages as actors of their own would send 29 MB of stems and spectrogram from
process to process for each minute of music; threads of one process pass them on for nothing, and keep its device as
busy: while one call of an actor computes, another one reads, decodes and writes.

This is Ray Core, not Ray Data, whose cost for each song is ten times as high, and which cannot tell the song that
killed its worker from those beside it (docs/library.md has the figures).
"""

from __future__ import annotations

import collections
import dataclasses
import math
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from allin1_core.errors import BackendError, LibraryError
from allin1_core.library.places import reason
from allin1_core.library.sources import Song
from allin1_core.library.tables import Row, failure_row
from allin1_core.library.worker import Job, Worker
from allin1_core.threads import usable_cores

# Songs of a call: the cost of a call is shared, and yet little is begun twice when a worker is lost.
_SONGS_A_CALL = 4
# Of a worker at a time: while one computes, the other reads or writes. No more: what is queued is not on its way.
_CALLS = 2
# A song that was there when so many workers died is not tried again.
_MOST_DEATHS = 3
_PATIENCE = 10.0  # seconds without a call that ended, after which the cluster is looked at
_RESULTS_BYTES = 128 << 20  # rows alone go by Ray's store


@dataclasses.dataclass
class _Call:
    """Songs given to a worker together; without any, its loading."""

    worker: Any
    songs: Sequence[Song]
    is_alone: bool = False


def run(songs: Sequence[Song], job: Job, *, num_workers: int | None, address: str | None) -> Iterator[Row]:
    """The rows of songs, as they are done.

    Parameters
    ----------
    songs : sequence of Song
    job : Job
    num_workers : int, optional
        By default one for each GPU of the cluster, or without any, or with ``device="cpu"``, for each core.
    address : str, optional
        Of a Ray cluster (``auto`` finds the one of this machine); by default Ray is started here, and ended.

    Raises
    ------
    BackendError
        If Ray is not installed.
    LibraryError
        If there is no cluster at the address.
    Allin1Error
        What fails every song, as `Worker.run` raises it.
    """
    try:
        import ray
    except ImportError as error:
        raise BackendError(
            "engine: 'ray' needs Ray, which is not installed; pip install 'allin1-core[ray]'"
        ) from error
    is_ours = not ray.is_initialized()
    if is_ours:
        _start(ray, num_workers, address)
    try:
        yield from _Run(ray, job, num_workers).rows(songs)
    finally:
        if is_ours:
            ray.shutdown()


def _start(ray: Any, num_workers: int | None, address: str | None) -> None:
    # Its own log says what no user needs to know, and its dashboard is one more process.
    quiet = {"logging_level": "WARNING", "log_to_driver": False}
    if address is None:
        cores = max(usable_cores(), num_workers or 0)
        ray.init(
            "local", num_cpus=cores, include_dashboard=False, object_store_memory=_RESULTS_BYTES, **quiet
        )
        return
    host, _, port = address.rpartition(":")
    try:
        if port.isdecimal():  # Ray would try for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, **quiet)
    except (OSError, ValueError, RuntimeError) as error:
        raise LibraryError(
            f"address: {address!r}: no Ray cluster ({' '.join(str(error).split())[:200]}); start one with 'ray start', "
            "or leave the address out: then Ray is started here"
        ) from error


def _share(
    machines: Sequence[Mapping[str, float]], num_workers: int | None, *, use_cards: bool
) -> tuple[int, float, float]:
    """How many workers, and the cores and GPUs of each, so that a machine has room for its share of them.

    Raises
    ------
    LibraryError
        If no machine has a core: none but the head of a cluster is there.
    """
    if not any(machine.get("CPU", 0) >= 1 for machine in machines):
        raise LibraryError("ray: no machine of the cluster has a core for a worker; add one and run again")
    kind = "GPU" if use_cards and any(machine.get("GPU") for machine in machines) else "CPU"
    units = sum(int(machine.get(kind, 0)) for machine in machines)
    number = num_workers or max(1, units)
    on_each = math.ceil(number / max(1, units))  # workers that share a GPU or core
    if kind == "CPU":
        smallest = min(int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1)
        return number, max(1, min(smallest, units // number)) if on_each == 1 else 1 / on_each, 0
    cores = min(int(machine.get("CPU", 1) // machine["GPU"]) for machine in machines if machine.get("GPU"))
    return number, max(1, cores // on_each), 1 / on_each


class _Run:
    def __init__(self, ray: Any, job: Job, num_workers: int | None) -> None:
        self._ray = ray
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        is_on_cpu = str(job.options.get("device")).startswith("cpu")
        self._num_workers, cores, cards = _share(machines, num_workers, use_cards=not is_on_cpu)
        self._needs = {"CPU": cores, "GPU": cards}
        if job.options.get("num_threads") is None:
            job = dataclasses.replace(job, options={**job.options, "num_threads": max(1, int(cores))})
        self._job = job
        self._actor = ray.remote(Worker).options(
            num_cpus=cores, num_gpus=cards, max_concurrency=_CALLS, max_restarts=0
        )
        self._calls: dict[Any, _Call] = {}
        self._deaths: collections.Counter[str] = collections.Counter()
        self._loaded: list[Any] = []
        self._waiting: collections.deque[Song] = collections.deque()
        self._alone: collections.deque[Song] = collections.deque()

    def rows(self, songs: Sequence[Song]) -> Iterator[Row]:
        """Songs go to whichever worker is free; those of a worker that died go to others, each alone."""
        self._waiting.extend(songs)
        # A few at the end of a small library must not all go to one worker.
        self._size = max(1, min(_SONGS_A_CALL, math.ceil(len(songs) / (_CALLS * self._num_workers))))
        for _ in range(min(self._num_workers, math.ceil(len(songs) / self._size))):
            self._start_worker()
        errors = self._ray.exceptions
        died = (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.OutOfMemoryError,
            errors.ObjectLostError,
        )
        while self._waiting or self._alone or any(call.songs for call in self._calls.values()):
            ready, _ = self._ray.wait(list(self._calls), timeout=_PATIENCE)
            if not ready:
                self._check_machines()
                continue
            call = self._calls.pop(ready[0])
            try:
                rows = self._ray.get(ready[0])
            except died as error:
                yield from self._after_death(call, error)
                continue
            except errors.RayTaskError as error:
                raise error.cause from error
            if not call.songs:
                self._loaded.append(call.worker)
            yield from rows or ()
            self._submit(call.worker)

    def _check_machines(self) -> None:
        """`LibraryError` if no machine is left that a worker fits on: Ray would wait for one for ever."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not any(all(machine.get(kind, 0) >= n for kind, n in self._needs.items()) for machine in machines):
            raise LibraryError(
                "ray: no machine of the cluster is left for workers; what is done is kept, run again to go on"
            )

    def _start_worker(self) -> None:
        worker = self._actor.remote(self._job)
        # Nothing is given to it before it is there: a cluster may have lost the machine that it would be on.
        self._calls[worker.load.remote()] = _Call(worker, ())

    def _submit(self, worker: Any) -> None:
        """Give a worker what it has room for; a song that comes alone has the worker to itself."""
        while True:
            busy = [call for call in self._calls.values() if call.worker is worker]
            if len(busy) == _CALLS or any(call.is_alone for call in busy):
                return
            if self._alone:
                if busy:
                    return
                songs, is_alone = [self._alone.popleft()], True
            elif self._waiting:
                number = min(self._size, len(self._waiting))
                songs, is_alone = [self._waiting.popleft() for _ in range(number)], False
            else:
                return
            self._calls[worker.run_all.remote(songs)] = _Call(worker, songs, is_alone)

    def _after_death(self, call: _Call, error: Exception) -> Iterator[Row]:
        """After a worker died: its songs are tried again, each alone, or fail; and another worker is started."""
        if not call.songs:  # it died before it had any
            self._deaths[""] += 1
            if self._deaths[""] > _MOST_DEATHS * self._num_workers:
                raise LibraryError(
                    f"ray: workers die as they load ({reason(error)}); give them more memory"
                ) from error
        for song in call.songs:
            self._deaths[song.location] += 1
            if self._deaths[song.location] < _MOST_DEATHS:
                self._alone.append(song)
            else:
                message = f"{song.location}: its worker died {_MOST_DEATHS} times ({reason(error)})"
                yield failure_row(song, "WorkerDied", message)
        if not any(other.worker is call.worker for other in self._calls.values()):
            self._start_worker()
        self._loaded = [worker for worker in self._loaded if worker is not call.worker]
        # Those that had nothing to do are given them, for there may be no room for the new one.
        for worker in self._loaded:
            self._submit(worker)
