"""The feed as a part of a Celery worker: a thread beside the pool, so that a broker that is away does not stop it."""

import logging
import os
import secrets
import socket
import threading
from typing import Any

from celery.bootsteps import StartStopStep
from django.conf import settings

from killboard.queues import FEED_QUEUE, names_of

logger = logging.getLogger(__name__)

STOP_LIMIT = 5.0  # seconds


class FeedStep(StartStopStep):
    """Follows the feed in each worker that serves the queue `feed`; all but one of them stand by."""

    # After the pool: its children are forked by then, and inherit nothing of ours.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, feed_url: str | None = None, **options: Any) -> None:
        super().__init__(worker, **options)
        self._given_url = feed_url
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._upstream: Any = None

    def include_if(self, worker: Any) -> bool:
        # A recording is played by `manage.py serve` alone; nobody else may bring real killmails into its database.
        wanted = settings.FEED == "live" or (settings.FEED == "recorded" and self._given_url is not None)
        return wanted and FEED_QUEUE in names_of(worker.app.amqp.queues.consume_from)

    def start(self, worker: Any) -> None:
        # Models can be imported only now, when Django is set up.
        from killmails.ingest.esi import esi
        from killmails.ingest.feed import Feed
        from killmails.upstream.zkillboard import Zkillboard

        if settings.FEED == "live" and not settings.CONTACT:
            logger.warning("CONTACT is not set: tell zKillboard who you are, or it may block this board.")
        holder = _holder(settings.WORKER_ID)
        url = self._given_url or settings.R2Z2_URL
        self._upstream = Zkillboard(url, settings.CONTACT)
        feed = Feed(self._upstream, holder, esi())
        self._thread = threading.Thread(target=feed.run, args=[self._stop], name="feed", daemon=True)
        self._thread.start()
        logger.info("Following the feed at %s as %s.", url, holder)

    def stop(self, worker: Any) -> None:
        self._stop.set()
        if self._thread:
            self._upstream.hang_up()  # an answer under way may take as long as its deadline
            self._thread.join(STOP_LIMIT)

    terminate = stop


def _holder(worker_id: str) -> str:
    """Who holds the lease: no two alike, and told to people. `worker 2 at host:pid:token`, or without the number."""
    process = f"{socket.gethostname()[:40]}:{os.getpid()}:{secrets.token_hex(3)}"
    return f"worker {worker_id[:30]} at {process}" if worker_id else process
