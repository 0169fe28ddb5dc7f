"""Recording of timings: one record per stage, written as JSON lines (schema in docs/timings.md).

A time is the wall time of a stage with the device synchronised before and after. Both MLX and CUDA return from a
call before its work is done; without the synchronisation that work is charged to whichever stage first looks at
the numbers, and the stage that asked for it seems free. Every line also says which implementation ran and why, so
that two runs can be compared without knowing how they were started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from allin1_core.backends import RECORDED, Choice, devices
from allin1_core.errors import OutputError
from allin1_core.files.writing import append_line, expand_user
from allin1_core.threads import Lock
from allin1_core.timings.machine import machine, versions
from allin1_core.timings.schema import SCHEMA_VERSION, STAGES, StageTiming


@dataclasses.dataclass
class Stage:
    """What a stage reports about itself while it runs: set `output`, and add to `details`."""

    choice: Choice | None = None
    output: Any = None
    audio_seconds: float | None = None
    cached: bool = False
    details: dict[str, Any] = dataclasses.field(default_factory=dict)


class Timings:
    """Collects the timings of a run in memory and, if a path is given, appends them to a file line by line.

    Parameters
    ----------
    path : path-like, optional
        File of JSON lines; lines of earlier runs are kept.
    on_start : callable, optional
        Called with the name of each stage that starts and is not beside others, for a progress display.
    on_progress : callable, optional
        Called by stages that take long with the part that is done, from 0 to 1.
    before_stage : callable, optional
        Called before each stage, in its thread; what it raises is raised instead, and leaves no line.
    concurrent : int
        Tracks of the run that are analysed at the same time.

    Raises
    ------
    OutputError
        If the file cannot be opened for writing.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        on_start: Callable[[str], None] | None = None,
        on_progress: Callable[[float], None] | None = None,
        before_stage: Callable[[], None] | None = None,
        concurrent: int = 1,
    ) -> None:
        self._on_start = on_start
        self.report_progress = on_progress
        self._before_stage = before_stage
        self._concurrent = concurrent
        self.path = expand_user(path) if path is not None else None
        self.records: list[StageTiming] = []
        self.run_id = uuid.uuid4().hex
        self.run_started = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        self._zero = time.perf_counter()
        self._lock = Lock()
        self._open = threading.local()
        self._at_work: set[threading.Thread] = set()
        if self.path is not None:
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.open("ab").close()
            except OSError as error:
                raise OutputError(
                    f"{self.path}: timings cannot be written ({error.strerror or error}); choose another path"
                ) from error

    @contextlib.contextmanager
    def stage(
        self,
        name: str,
        *,
        track: str | None = None,
        choice: Choice | None = None,
        audio_seconds: float | None = None,
        cached: bool = False,
        in_background: bool = False,
        **details: Any,
    ) -> Iterator[Stage]:
        """Time the block as a stage; what the block assigns to `Stage.output` is evaluated before the clock stops.

        `in_background` says that a thread of its own runs it, beside the run's other stages. Whichever thread those
        run in is ``main`` to the records, as long as it is alone, and no track is beside another.

        Raises
        ------
        OutputError
            If the line cannot be written (see `append_line`), unless the block itself raised: then that is raised.
        """
        assert name in STAGES, f"{name!r} is not a stage"
        if self._before_stage is not None:
            self._before_stage()
        stage = Stage(choice=choice, audio_seconds=audio_seconds, cached=cached, details=details)
        parents: list[str] = self._open.__dict__.setdefault("stages", [])
        parent = parents[-1] if parents else None
        failure: str | None = None
        thread = threading.current_thread()
        with self._lock:
            is_beside = in_background or self._concurrent > 1 or bool(self._at_work - {thread})
            if not in_background:
                self._at_work.add(thread)
        parents.append(name)
        start = time.perf_counter() - self._zero
        try:
            if self._on_start is not None and not is_beside:
                self._on_start(name)
            synchronize(choice)
            start = time.perf_counter() - self._zero
            yield stage
            synchronize(stage.choice, stage.output)
        except BaseException as error:
            failure = f"{type(error).__name__}: {error}"
            raise
        finally:
            end = time.perf_counter() - self._zero
            parents.pop()
            if not parents:
                with self._lock:
                    self._at_work.discard(thread)
            record = StageTiming(
                schema=SCHEMA_VERSION,
                run_id=self.run_id,
                run_started=self.run_started,
                stage=name,
                parent=parent,
                start=start,
                end=end,
                duration=end - start,
                track=track,
                audio_seconds=stage.audio_seconds,
                **{name: getattr(stage.choice, name, None) for name in RECORDED},
                synchronized=failure is None,
                cached=stage.cached,
                thread=thread.name if is_beside else "main",
                concurrent=self._concurrent,
                error=failure,
                details=stage.details,
                machine=machine(),
                versions=versions(),
            )
            # What the stage raised is what its caller must see, whatever becomes of the line.
            with contextlib.nullcontext() if failure is None else contextlib.suppress(OutputError):
                self._add(record)

    @contextlib.contextmanager
    def lines_together(self) -> Iterator[None]:
        """Within it, lines of the stages of the calling thread are kept in memory; at its end they are written.

        Each line takes several calls to the system, after each of which a thread waits for the interpreter's lock:
        not while it has a device that others wait for.

        Raises
        ------
        OutputError
            If they cannot be written (see `append_line`), unless the block itself raised: then that is raised.
        """
        lines: list[StageTiming] = []
        self._open.lines = lines
        try:
            yield
        except BaseException:
            self._open.lines = None
            with contextlib.suppress(OutputError):
                self._write(lines)
            raise
        self._open.lines = None
        self._write(lines)

    def _add(self, record: StageTiming) -> None:
        with self._lock:
            self.records.append(record)
        kept: list[StageTiming] | None = getattr(self._open, "lines", None)
        if kept is None:
            self._write([record])
        else:
            kept.append(record)

    def _write(self, records: Sequence[StageTiming]) -> None:
        if self.path is None or not records:
            return
        # Not `dataclasses.asdict`, which copies each value of each line.
        lines = "".join(json.dumps(vars(record)) + "\n" for record in records).encode()
        with self._lock:
            try:
                append_line(self.path, lines)
            except OSError as error:
                raise OutputError(
                    f"{self.path}: timings cannot be written ({error.strerror or error}); free space first"
                ) from error


def synchronize(choice: Choice | None, output: Any = None) -> None:
    """Wait until the device of `choice` is idle and `output` is computed.

    Parameters
    ----------
    choice : Choice, optional
        Work on the CPU outside MLX is never pending; only MLX, CUDA and Metal are waited for.
    output : optional
        An MLX array, or a tuple, list, mapping or dataclass of them, to be evaluated.
    """
    if choice is None:
        return
    if choice.library == "mlx" or choice.device == "mlx":
        import mlx.core as mx

        mx.eval(_mlx_arrays(output, mx.array))
        mx.synchronize()
    else:
        devices.synchronize(choice.device)


def _mlx_arrays(tree: Any, array_type: type) -> list[Any]:
    if isinstance(tree, array_type):
        return [tree]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        tree = [getattr(tree, field.name) for field in dataclasses.fields(tree)]
    elif isinstance(tree, Mapping):
        tree = list(tree.values())
    if isinstance(tree, tuple | list):
        return [array for item in tree for array in _mlx_arrays(item, array_type)]
    return []
