"""Where a server's time goes: py-spy beside it, while events are measured."""

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Self

RATE = 150  # samples a second
SHOWN = 25
# Threads that wait for work stand here, and py-spy takes them for busy ones.
WAITING = ("Condition.wait ", "_worker (concurrent/futures/thread.py:81)", "EpollSelector.select ")


class Profile:
    """Records while it is open, if there is a folder to record to. What is measured meanwhile is slower."""

    def __init__(self, pid: int, folder: Path | None, name: str) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if folder is None:
            return
        beside = Path(sys.executable).with_name("py-spy")
        program = str(beside) if beside.exists() else shutil.which("py-spy")
        if program is None:
            sys.stderr.write("--profile: py-spy was not found: pip install py-spy\n")
            return
        self._file = folder / f"profile-{name.replace(' ', '-').replace(',', '')}.txt"
        options = ["--rate", str(RATE), "--format", "raw", "--duration", "600"]
        command = [program, "record", "--pid", str(pid), *options, "--output", str(self._file)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal.SIGINT)
        self._process.wait()
        if self._file.exists():
            sys.stderr.write(summary(self._file.read_text()))


def summary(folded: str) -> str:
    """The functions with the most time of their own, and with the most time in all that they call, in per cent.

    Waiting is left out.
    """
    own: Counter[str] = Counter()
    inclusive: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, samples = line.rpartition(" ")
        frames = stack.split(";")
        if frames[-1].startswith(WAITING):
            continue
        own[frames[-1]] += int(samples)
        for frame in set(frames):
            inclusive[frame] += int(samples)
    total = max(sum(own.values()), 1)
    lines = [f"{total} samples"]
    for title, counted in (("of its own", own), ("with all that it calls", inclusive)):
        lines += ["", f"  %  {title}"]
        lines += [f"{100 * samples / total:5.1f}  {frame}" for frame, samples in counted.most_common(SHOWN)]
    return "\n".join(lines) + "\n"
