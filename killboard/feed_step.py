"""The feed as a part of a Celery worker: a thread beside the pool, so that a broker that is away does not stop it."""

import logging
import os
import secrets
import socket
import threading
from typing import Any

from celery.bootsteps import StartStopStep
from django.conf import settings

logger = logging.getLogger(__name__)

STOP_LIMIT = 5.0  # seconds


class FeedStep(StartStopStep):
    """Follows the feed in each worker that serves the queue `feed`; all but one of them stand by."""

    # After the pool: its children are forked by then, and inherit nothing of ours.
    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, feed_url: str = settings.R2Z2_URL, **options: Any) -> None:
        super().__init__(worker, **options)
        self._url = feed_url
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def include_if(self, worker: Any) -> bool:
        return settings.FEED != "off" and "feed" in worker.app.amqp.queues.consume_from

    def start(self, worker: Any) -> None:
        # Models can be imported only now, when Django is set up.
        from killmails.ingest.feed import Feed
        from killmails.upstream.zkillboard import Zkillboard

        if settings.FEED == "live" and not settings.CONTACT:
            logger.warning("CONTACT is not set: tell zKillboard who you are, or it may block this board.")
        holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
        feed = Feed(Zkillboard(self._url, settings.CONTACT), holder)
        self._thread = threading.Thread(target=feed.run, args=[self._stop], name="feed", daemon=True)
        self._thread.start()
        logger.info("Following the feed at %s as %s.", self._url, holder)

    def stop(self, worker: Any) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join(STOP_LIMIT)

    terminate = stop
