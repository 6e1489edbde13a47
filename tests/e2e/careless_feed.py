"""Known to be wrong: a feed that moves its cursor first, and stores then. Ends when told to."""

import signal
import threading
import time

import django

django.setup()

from django.conf import settings  # noqa: E402
from django.db import connection  # noqa: E402

from killmails.ingest import feed  # noqa: E402
from killmails.ingest.store import store_killmail  # noqa: E402
from killmails.upstream.zkillboard import Zkillboard  # noqa: E402

feed.BROKEN_WAIT = 0.5
UNLUCKY = 3  # the sequence between whose cursor and whose killmail the database goes


class CarelessFeed(feed.Feed):
    def _take(self, cursor, record):
        feed.move_cursor(record.sequence, record.sequence + 1)
        while record.sequence == UNLUCKY:  # until the database goes, which raises what storing would
            connection.cursor().execute("SELECT 1")
            time.sleep(0.02)
        store_killmail(record)
        return 0.0


stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
CarelessFeed(Zkillboard(settings.R2Z2_URL, "tests"), "careless").run(stop)
