"""The embedded way: a Celery worker and beat as threads of the server's process."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from celery import Celery
from celery.beat import Service
from celery.worker import WorkController, state

from killboard.celery import app
from killboard.queues import WORK_QUEUES

logger = logging.getLogger(__name__)

BEAT_SLEEP = 1.0  # seconds; beat notices its end only between two sleeps
RESTART = 1.0  # seconds until a worker that has ended by itself is started again
STOP_LIMIT = 6.0  # seconds, for both together


class Worker:
    """Runs from `__enter__` to `__exit__`, serving every queue."""

    def __init__(self, feed_url: str) -> None:
        self._feed_url = feed_url
        self._ending = threading.Event()
        self._beat: Service | None = None
        self._threads = [
            threading.Thread(target=self._keep, args=[one], name=name, daemon=True)
            for name, one in (("celery-worker", self._work), ("celery-beat", self._tick))
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def _keep(self, run: Callable[[], None]) -> None:
        """A worker that ends by itself would take the feed with it, and nothing else would show that."""
        while not self._ending.is_set():
            try:
                run()
            except Exception:
                logger.exception("%s met an error.", threading.current_thread().name)
            if not self._ending.wait(RESTART):
                logger.error("%s has ended by itself; starting it again.", threading.current_thread().name)

    def _work(self) -> None:
        _worker(app, self._feed_url).start()

    def _tick(self) -> None:
        self._beat = Service(app, max_interval=BEAT_SLEEP, scheduler_cls=app.conf.beat_scheduler)
        self._beat.start(embedded_process=True)

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        if self._beat is not None:
            self._beat.stop(wait=False)
        state.should_stop = 0  # the worker's loop looks at it; it installs no signal handlers in a thread
        ends_at = time.monotonic() + STOP_LIMIT
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
            if thread.is_alive():
                logger.warning("%s has not ended within %.0f s; leaving it.", thread.name, STOP_LIMIT)


def _worker(celery: Celery, feed_url: str) -> Any:
    return WorkController(
        app=celery,
        pool="threads",
        concurrency=2,
        queues=[queue.alias for queue in WORK_QUEUES],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        feed_url=feed_url,
    )
