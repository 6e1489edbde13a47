"""What our Celery worker does otherwise than Celery's: dead letters instead of lost ones, and an end in time."""

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from billiard import active_children
from celery.apps.worker import Worker, install_worker_term_handler
from celery.bootsteps import StartStopStep
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import reserved_requests
from kombu.exceptions import ContentDisallowed, DecodeError

from killboard.queues import DEAD_LETTERS

logger = logging.getLogger(__name__)

SHAPELESS = (ValueError, TypeError, LookupError, AttributeError, RecursionError, DecodeError, ContentDisallowed)
LOOK = 1.0  # seconds
SOFT_SHUTDOWN = 20.0  # seconds that tasks in hand have, once the worker is asked to end


class Consumer(CeleryConsumer):
    """Refuses what is no task in JSON; RabbitMQ puts it among the dead letters."""

    class Blueprint(CeleryConsumer.Blueprint):
        # What is to be done later stands in the database; Celery would make 56 exchanges and queues for it, and say in
        # the log that it cannot, when a worker of one queue starts before those of another.
        default_steps = [step for step in CeleryConsumer.Blueprint.default_steps if "delayed_delivery" not in step]

    def __init__(self, *arguments: Any, worker_options: dict[str, Any] | None = None, **others: Any) -> None:
        """Workers tell each other nothing through RabbitMQ: frozen, it would hold up all their work."""
        silent = {f"without_{what}": True for what in ("heartbeat", "gossip", "mingle")}
        super().__init__(*arguments, worker_options={**(worker_options or {}), **silent}, **others)

    def create_task_handler(self, *arguments: Any) -> Callable[[Any], None]:
        """Celery itself would acknowledge some of these, and others would end one worker after the other."""
        handle = super().create_task_handler(*arguments)

        def handle_or_refuse(message: Any) -> None:
            try:
                _check_shape(message)
            except SHAPELESS as error:
                logger.error("A message that is no task (%s) is a dead letter now.", type(error).__name__)
                message.reject_log_error(logger, self.connection_errors)
            else:
                handle(message)

        return handle_or_refuse


def _check_shape(message: Any) -> None:
    """Raises one of SHAPELESS unless this is a task message of version 2 with a body in JSON.

    Source: https://docs.celeryq.dev/en/stable/internals/protocol.html
    """
    headers = message.headers
    if not (isinstance(headers["task"], str) and isinstance(headers["id"], str)):
        raise TypeError("task and id must be text")
    arguments, named, _ = message.payload  # refuses every content type but JSON
    if not (isinstance(arguments, list) and isinstance(named, dict)):
        raise TypeError("the arguments must be a list and an object")
    hard, soft = headers.get("timelimit") or (None, None)
    if not all(isinstance(limit, int | float | None) for limit in (hard, soft)):
        raise TypeError("time limits must be numbers")


class DeadLetterStep(StartStopStep):
    """The queue of dead letters is there before the first of them."""

    requires = ("celery.worker.consumer.connection:Connection",)

    def include_if(self, consumer: Any) -> bool:
        return consumer.app.conf.dead_letters is not None

    def start(self, consumer: Any) -> None:
        with consumer.connection.channel() as channel:
            DEAD_LETTERS(channel).declare()


class WatchStep(StartStopStep):
    """A process of the pool that was killed is missed within a second: Celery looks each five."""

    requires = ("celery.worker.consumer.tasks:Tasks",)
    _timer: Any = None

    def start(self, consumer: Any) -> None:
        """With each new connection, before the pool is watched again.

        Of a process that Celery has let go of it takes None for a file, and ends the whole worker: seen once, after
        RabbitMQ was killed and then frozen.
        """
        for process in getattr(getattr(consumer.pool, "_pool", None), "_pool", ()):
            if getattr(process, "_sentinel_poll", 0) is None:
                del process._sentinel_poll  # it takes a new one

    def register_with_event_loop(self, consumer: Any, loop: Any) -> None:
        """Called again with each new connection to the broker."""
        if self._timer is not None:
            self._timer.cancel()
        if hasattr(consumer.pool, "maintain_pool"):
            self._timer = loop.call_repeatedly(LOOK, consumer.pool.maintain_pool)


class CtrlCStep(StartStopStep):
    """Ctrl-C is what SIGTERM is: Celery would end with exit code 1 then."""

    def include_if(self, worker: Any) -> bool:
        return isinstance(worker, Worker)  # a thread of `manage.py serve` has no signals

    def start(self, worker: Any) -> None:
        install_worker_term_handler(worker, sig="SIGINT")


_asked: set[str] = set()


def end_in_time(how: str, sig: str, **_: object) -> None:
    """A warm shutdown waits for tasks without bound. What is not done by then goes back to the queue.

    Whoever sends the same signal twice waits no longer; a terminal and a supervisor may send one each.
    """
    if how == "Warm":
        clock = threading.Timer(0.0 if sig in _asked else SOFT_SHUTDOWN, _give_back)
        clock.daemon = True
        clock.start()
        _asked.add(sig)


def _give_back() -> None:
    """RabbitMQ gives the messages of a connection that is gone to the next worker. If it hangs, idle ones end here."""
    left = len(reserved_requests)
    logger.warning("This worker ends now; %d tasks that are not done go back to the queue.", left)
    for child in active_children():
        with suppress(ProcessLookupError):
            os.kill(child.pid, signal.SIGKILL)
    os._exit(1 if left else 0)
