"""The board's own feed without the pause between two questions, for tests with many killmails. Ends when told to."""

import signal
import threading

import django

django.setup()

from django.conf import settings  # noqa: E402

from killmails.ingest.feed import Feed  # noqa: E402
from killmails.upstream import zkillboard  # noqa: E402

zkillboard.PACE = 0.0
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
Feed(zkillboard.Zkillboard(settings.R2Z2_URL, "tests"), "fast").run(stop)
