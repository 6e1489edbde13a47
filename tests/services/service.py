"""What the three services have in common: a port, a folder, a process to start, stop, kill and freeze."""

import contextlib
import fcntl
import os
import random
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.services.guard import Guard, kill_tree, signal_tree

START_SECONDS = 120
STOP_SECONDS = 60


class ServiceError(Exception):
    """A service is not installed, did not start, or did not stop; the message holds the end of its log."""


class Service(ABC):
    """One service, to be used as a context manager, or by start() and close().

    The port stays the same until close(): clients find the service again after stop(), kill() and start().
    Everything ends with this process, also when it is killed.
    """

    name: str
    stop_signal = signal.SIGTERM

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"killboard-{self.name}-"))
        # A service that runs as another user has to reach its own part of the folder.
        self.folder.chmod(0o711)
        self.log = self.folder / "log"
        self._guard = Guard(self.folder)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The address for clients."""

    @abstractmethod
    def _launch(self) -> subprocess.Popen[bytes]:
        """Start the process; do not wait until it answers."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether the service does its work for a client. May raise OSError."""

    def start(self) -> Self:
        """Start, or start again with the data that is there, and return when the service answers."""
        self.launch()
        self.wait_until_ready()
        return self

    def launch(self) -> None:
        """Start without waiting, so that several services can come up at the same time."""
        if self._process is not None:
            raise ServiceError(f"{self.name} runs already, on port {self.port}")
        self._process = self._launch()

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            if self._process is None or self._process.poll() is not None:
                raise ServiceError(f"{self.name} ended while starting. {self._end_of_log()}")
            if time.monotonic() > deadline:
                raise ServiceError(f"{self.name} is silent after {START_SECONDS} s. {self._end_of_log()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End in the service's own orderly way; its data stays for start(). May run twice."""
        if self._process is None:
            return
        self.resume()
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise ServiceError(f"{self.name} outlived stop(). {self._end_of_log()}") from None
        self._forget()

    def kill(self) -> None:
        """SIGKILL for the service and all its children; its data stays for start()."""
        if self._process is not None:
            kill_tree(self._process.pid)
            self._process.wait()
            self._forget()

    def restart(self) -> None:
        self.stop()
        self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT: go on after pause()."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop, and leave nothing behind. May run twice."""
        try:
            self.stop()
        finally:
            self._guard.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self._guard.close()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _spawn(
        self,
        command: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: int | None = None,
        group: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a process of the service, out of reach of the terminal's Ctrl-C, and have it guarded."""
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                command,
                env=env,
                cwd=cwd or self.folder,
                user=user,
                group=group,
                extra_groups=None if user is None else [],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guard.watch(process.pid)
        return process

    def answers(self) -> bool:
        """Whether the service does its work for a client now."""
        with contextlib.suppress(OSError):
            return self._answers()
        return False

    def _signal(self, signum: signal.Signals) -> None:
        if self._process is not None:
            signal_tree(self._process.pid, signum)

    def _forget(self) -> None:
        assert self._process is not None
        self._guard.forget(self._process.pid)
        self._process = None

    def _end_of_log(self) -> str:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "The end of its log:\n" + "\n".join(text.splitlines()[-20:])


def free_port() -> int:
    """A loopback port that nobody uses, below those that the system gives to outgoing connections.

    One of the latter could be taken by a client while the service that owns it is down.
    """
    for _ in range(200):
        port = random.SystemRandom().randrange(20000, 32000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if claim(port):
                return port
    raise ServiceError("no free port between 20000 and 32000 on 127.0.0.1")


_locks: dict[int, int] = {}  # by process, which a fork changes: the file in which it has locked its ports
_ports: set[tuple[int, int]] = set()  # process and port: nobody locks himself out


def claim(port: int) -> bool:
    """Whether no other test on this machine has chosen it; none chooses it then until this process ends.

    Between the choice of a port and the start of what listens there seconds may pass, and other runs choose too.
    """
    pid = os.getpid()
    if pid not in _locks:
        path = Path(tempfile.gettempdir()) / f"killboard-ports-{os.getuid()}"
        _locks[pid] = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
    if (pid, port) in _ports:
        return False
    with contextlib.suppress(OSError):
        fcntl.lockf(_locks[pid], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        _ports.add((pid, port))
        return True
    return False


def environment_without(*prefixes: str) -> dict[str, str]:
    """The environment without the variables that begin so, in which a service would find settings."""
    return {key: value for key, value in os.environ.items() if not key.startswith(prefixes)}
