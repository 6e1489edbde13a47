"""A small process that outlives its parent for a moment: kills what that started, removes its folder.

Neither a `finally` nor an exit handler runs after `kill -9`; the end of a pipe is seen whatever the end was.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path


class Guard:
    """Give it each process that must not outlive this one; close it when all are stopped."""

    def __init__(self, folder: Path) -> None:
        """`folder` is removed when this process ends, and by close()."""
        self._process = subprocess.Popen(
            [sys.executable, "-I", __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def watch(self, pid: int) -> None:
        self._tell(f"+{pid}")

    def forget(self, pid: int) -> None:
        """To be called when the process is gone: its number may belong to another one soon."""
        self._tell(f"-{pid}")

    def close(self) -> None:
        """Kill what is still watched, remove the folder, and return when that is done. May run twice."""
        if self._process.poll() is None:
            # Said, and not only shown by the end of the pipe: a forked child of ours may hold its other end.
            self._tell(".")
            self._process.wait()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()


def process_tree(pid: int) -> list[int]:
    """The process and all its descendants, parents first. PostgreSQL's children leave its process group."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything: the fields are counted from its end.
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    tree = [pid]
    for member in tree:
        tree.extend(children.get(member, []))
    return tree


def signal_tree(pid: int, signum: signal.Signals) -> None:
    """Send a signal to the process and all that descend from it."""
    for member in process_tree(pid):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(member, signum)


def kill_tree(pid: int) -> None:
    """Kill the process and all that descend from it; stopped first, so that none makes children meanwhile."""
    signal_tree(pid, signal.SIGSTOP)
    signal_tree(pid, signal.SIGKILL)


def _remove(folder: Path) -> None:
    # What was killed a moment ago may still write its last file.
    for _ in range(50):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)


def _main() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    watched: set[int] = set()
    for line in sys.stdin:
        if line.startswith("."):
            break
        change = watched.add if line.startswith("+") else watched.discard
        change(int(line[1:]))
    for pid in watched:
        kill_tree(pid)
    _remove(Path(sys.argv[1]))


if __name__ == "__main__":
    _main()
