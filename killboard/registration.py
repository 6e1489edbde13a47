"""Workers and beat tell that they live, as servers do: to `/health`, and to each other."""

import atexit
import logging
import os
import socket
from typing import Any

from celery.bootsteps import StartStopStep
from django.conf import settings

from killboard.queues import names_of

logger = logging.getLogger(__name__)


class RegistryStep(StartStopStep):
    """In each worker, also in that of `manage.py serve`, which sends none of a worker's signals."""

    # After the pool: its children are forked by then, and count as parts of us.
    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        from health import registry  # models can be imported only now, when Django is set up

        number = f"worker {settings.WORKER_ID}" if settings.WORKER_ID else "worker"
        queues = names_of(worker.app.amqp.queues.consume_from)
        registry.start("worker", f"{number} {worker.hostname}", queues, _facts)
        logger.info("%s %s serves %s.", number, worker.hostname, ", ".join(sorted(queues)))

    def stop(self, worker: Any) -> None:
        """As soon as it takes no new tasks; those in hand may take their time."""
        from health import registry

        registry.stop("worker")

    terminate = stop


def _facts() -> dict[str, Any]:
    """For /metrics: what this worker and its pool have asked and stored, what all workers have of ESI's.

    `upstream` is the feed, `others` all that is asked for users and for tables.
    """
    from killmails.ingest.esi import esi
    from killmails.ingest.store import outcomes
    from killmails.upstream.http import answers

    client = esi()
    shared = client.budget.told() if client else {}
    others = answers()
    return {"upstream": others.pop("zkillboard", {}), "others": others, "stored": outcomes.told(), "esi": shared}


def register_beat() -> None:
    """Celery has no signal for its end."""
    from health import registry

    registry.start("beat", f"beat {socket.gethostname()}:{os.getpid()}")
    atexit.register(registry.stop, "beat")
