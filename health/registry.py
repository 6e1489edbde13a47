"""Each process of the board tells that it lives: a thread of its own writes its row every five seconds.

Nothing here may harm the process. Whatever goes wrong is told once and tried again with the next heartbeat.
"""

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.models.functions import Now

from health.connection import use_own_connection
from health.models import Process
from health.redis import identity

logger = logging.getLogger(__name__)

BEAT = 5.0  # seconds between two heartbeats
AGAIN = 1.0  # seconds after one that failed
STOP_LIMIT = 2.0  # seconds that an end waits for the row to be deleted; one that is left over counts as gone after 15 s
KEPT = timedelta(days=1)  # how long rows of processes stay that ended without a word
SWEEP = 3600.0  # seconds between two looks for such rows

Facts = Callable[[], dict[str, Any]]


class _Heart:
    """The thread of one process, or of one part of it where several share a process."""

    def __init__(self, kind: str, name: str, queues: Iterable[str], facts: Facts) -> None:
        self.id = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"
        self._kind = kind
        self._name = name[:200]
        self._queues = sorted(queues)
        self._facts = facts
        self._began = time.monotonic()
        self._swept = -SWEEP
        self._failing = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"registry-{kind}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(STOP_LIMIT)

    def _run(self) -> None:
        use_own_connection()
        while True:
            self._try(self._beat)
            if self._stop.wait(AGAIN if self._failing else BEAT):
                break
        self._try(lambda: Process.objects.filter(pk=self.id).delete())
        connections["default"].close()

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
            self._failing = False
        except Exception as error:  # noqa: BLE001  (a process lives whether it can say so or not)
            if not self._failing:  # once, and not with each heartbeat
                logger.warning("%s cannot tell that it lives (%s).", self._name, type(error).__name__)
            self._failing = True
            connections["default"].close()

    def _beat(self) -> None:
        now = {"redis": identity(), "facts": self.told(), "seen_at": Now()}
        if not Process.objects.filter(pk=self.id).update(**now):
            began = Now() - timedelta(seconds=time.monotonic() - self._began)
            Process.objects.create(pk=self.id, **self._named(), started_at=began, **now)
        Process.objects.succeeded_by(Process.objects.get(pk=self.id)).delete()
        if time.monotonic() - self._swept >= SWEEP:
            self._swept = time.monotonic()
            Process.objects.filter(seen_at__lt=Now() - KEPT).delete()

    def told(self) -> dict[str, Any]:
        try:
            return self._facts()
        except Exception:
            logger.exception("%s cannot tell its facts.", self._name)
            return {}

    def _named(self) -> dict[str, Any]:
        worker_id = settings.WORKER_ID if self._kind == Process.Kind.WORKER else ""
        return {"kind": self._kind, "name": self._name, "worker_id": worker_id, "queues": self._queues}


_hearts: dict[str, _Heart] = {}
_lock = threading.Lock()


def start(kind: str, name: str, queues: Iterable[str] = (), facts: Facts = dict) -> None:
    """From now on this process counts as alive. Twice does no harm; call it after a fork, never before.

    `kind`: server, worker or beat. `facts`: asked in a thread of ours with each heartbeat, for JSON.
    """
    with _lock:
        if kind not in _hearts:
            _hearts[kind] = _Heart(kind, name, queues, facts)


def stop(kind: str) -> None:
    """The process ends, and says so. Twice does no harm."""
    with _lock:
        heart = _hearts.pop(kind, None)
    if heart is not None:
        heart.stop()


def told(kind: str) -> dict[str, Any] | None:
    """The facts of this very process, as they are now; None where it is no such process."""
    heart = _hearts.get(kind)
    return None if heart is None else heart.told()


def id_of(kind: str) -> str | None:
    """The key of the row of this process."""
    heart = _hearts.get(kind)
    return None if heart is None else heart.id


def _forget() -> None:
    """In a forked child: the threads of its parent do not run there."""
    global _hearts, _lock
    _hearts, _lock = {}, threading.Lock()


os.register_at_fork(after_in_child=_forget)
