"""The embedded way: a Celery worker and beat as threads of the server's process."""

import logging
import threading
import time
from typing import Any, Self

from celery import Celery
from celery.beat import Service
from celery.worker import WorkController, state

from killboard.celery import app
from killboard.queues import BULK_QUEUE, FEED_QUEUE

logger = logging.getLogger(__name__)

BEAT_SLEEP = 1.0  # seconds; beat notices its end only between two sleeps
STOP_LIMIT = 6.0  # seconds, for both together


class Worker:
    """Runs from `__enter__` to `__exit__`, serving every queue."""

    def __init__(self, feed_url: str) -> None:
        self._worker = _worker(app, feed_url)
        self._beat = Service(app, max_interval=BEAT_SLEEP, scheduler_cls=app.conf.beat_scheduler)
        self._threads = [
            threading.Thread(target=self._worker.start, name="celery-worker", daemon=True),
            threading.Thread(target=self._beat.start, args=[True], name="celery-beat", daemon=True),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
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
        queues=[FEED_QUEUE, BULK_QUEUE],
        without_gossip=True,
        without_mingle=True,
        without_heartbeat=True,
        loglevel="WARNING",
        feed_url=feed_url,
    )
