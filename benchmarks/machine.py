"""What the system says: open files, memory and processor time of a process, what kind of machine this is."""

import os
import platform
import resource
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tests.services.guard import process_tree

TICKS = os.sysconf("SC_CLK_TCK")
SPARE_FILES = 300  # that a process with sockets needs for all else
PACKAGES = ("uvicorn", "websockets", "daphne", "Twisted", "autobahn", "uvloop", "Django", "channels", "picows")


def raise_open_files() -> int:
    """Raises the soft limit of open files to the hard one, for this process and those that it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def most_sockets() -> int:
    """How many sockets one process may have open here."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_FILES


def resident_kb(pid: int | str) -> int:
    """What the process has in memory (Rss of smaps_rollup), in kB; without what the kernel buffers for its sockets."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise OSError(f"/proc/{pid}/smaps_rollup has no Rss")


def processor_seconds(pid: int) -> float:
    """The processor time that the process has had, its own and the kernel's on its behalf."""
    # The clock of another process, made as glibc's clock_getcpuclockid does it: /proc counts in steps of 10 ms.
    return time.clock_gettime(~pid << 3 | 2)


class Bystanders:
    """How many processor cores the rest of the machine has kept busy since this was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._before = self._others()

    def cores(self) -> float:
        seconds = time.monotonic() - self._began
        return max(self._others() - self._before, 0.0) / seconds

    def _others(self) -> float:
        user, nice, system, _, _, irq, softirq, steal, *_ = Path("/proc/stat").read_text().split()[1:]
        busy = sum(map(int, (user, nice, system, irq, softirq, steal))) / TICKS
        return busy - sum(map(_ticks, process_tree(os.getpid()))) / TICKS


def _ticks(pid: int) -> int:
    """Of the process, and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0
    return sum(map(int, fields[11:15]))


def description() -> dict[str, Any]:
    """For whoever compares numbers of two machines."""
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "load": round(os.getloadavg()[0], 2),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
