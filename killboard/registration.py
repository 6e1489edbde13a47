"""Workers and beat tell that they live, as servers do: to `/health`, and to each other."""

import atexit
import os
import socket
from typing import Any

from celery.bootsteps import StartStopStep
from django.conf import settings

from killboard.queues import names_of


class RegistryStep(StartStopStep):
    """In each worker, also in that of `manage.py serve`, which sends none of a worker's signals."""

    # After the pool: its children are forked by then, and count as parts of us.
    requires = ("celery.worker.components:Pool",)

    def start(self, worker: Any) -> None:
        from health import registry  # models can be imported only now, when Django is set up

        number = f"worker {settings.WORKER_ID}" if settings.WORKER_ID else "worker"
        queues = names_of(worker.app.amqp.queues.consume_from)
        registry.start("worker", f"{number} {worker.hostname}", queues, _facts)

    def stop(self, worker: Any) -> None:
        """As soon as it takes no new tasks; those in hand may take their time."""
        from health import registry

        registry.stop("worker")

    terminate = stop


def _facts() -> dict[str, Any]:
    """What the feed of this process has done, for /metrics."""
    from killmails.ingest.store import outcomes
    from killmails.upstream.http import answers

    return {"upstream": dict(answers), "stored": dict(outcomes)}


def register_beat() -> None:
    """Celery has no signal for its end."""
    from health import registry

    registry.start("beat", f"beat {socket.gethostname()}:{os.getpid()}")
    atexit.register(registry.stop, "beat")
