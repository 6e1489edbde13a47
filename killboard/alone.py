"""With PubSub in memory a board is one process: the first one holds a lock in DATA_DIR, and who it is stands in it."""

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from django.conf import settings

WAIT = 1.0  # seconds; who was stopped a moment ago may still be ending

_held: IO[str] | None = None  # for as long as this process lives, and children that it forks


def claim(kind: str) -> None:
    """Makes this process (a server, worker, beat) the one of its DATA_DIR, unless another one is; `other` tells."""
    global _held  # noqa: PLW0603
    if _held is not None:
        return
    file = _open()
    ends_at = time.monotonic() + WAIT
    while not _lock(file, fcntl.LOCK_EX):
        if _is_parent(file) or time.monotonic() > ends_at:
            file.close()
            return
        time.sleep(0.05)
    file.truncate(0)
    file.write(f"{os.getpid()} {kind}")
    file.flush()
    _held = file


def other() -> str:
    """Which other process of the board runs in DATA_DIR ("worker, process 4242"), or "".

    Children of that process are a part of it: those of a pool, and what `runserver` starts anew after each change.
    """
    if _held is not None:
        return ""
    with _open() as file:
        if _lock(file, fcntl.LOCK_SH) or _is_parent(file):
            return ""
        pid, kind = _read(file)
        return f"{kind}, process {pid}"


def _open() -> IO[str]:
    return Path(settings.DATA_DIR, "process").open("a+")


def _lock(file: IO[str], how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_parent(file: IO[str]) -> bool:
    return _read(file)[0] == str(os.getppid())


def _read(file: IO[str]) -> tuple[str, str]:
    file.seek(0)
    pid, _, kind = file.read(100).partition(" ")
    return pid or "?", kind or "a process that is starting"
