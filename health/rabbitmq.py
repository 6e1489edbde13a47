"""RabbitMQ: does it shake hands, how long are the queues, and does somebody serve them."""

from typing import Any

from amqp.exceptions import NotFound
from celery import current_app
from django.conf import settings
from kombu import Connection, Queue

from health.part import Part, State, ok

STEP_LIMIT = 0.6  # seconds for connecting, and for each answer
LONG = 10_000  # messages in line
AWAY = "RabbitMQ does not answer, or refuses us: start it, or correct RABBITMQ_URL; tasks wait, killmails are stored."

Facts = dict[str, dict[str, int | None]]


def check() -> Part:
    if not settings.RABBITMQ_URL:
        return ok(note="not needed: messages are files in DATA_DIR")
    facts = _ask()
    hint = _hint(facts)
    return Part(State.DEGRADED if hint else State.OK, hint, True, {"queues": facts})


def _ask() -> Facts:
    limits = {"read_timeout": STEP_LIMIT, "write_timeout": STEP_LIMIT}
    broker = Connection(settings.RABBITMQ_URL, connect_timeout=STEP_LIMIT, transport_options=limits)
    shaken = broker.transport.establish_connection()  # broker.connect() would try twice, seconds apart
    try:
        return {queue.alias or queue.name: _length(shaken, queue) for queue in _queues()}
    finally:
        broker.transport.close_connection(shaken)


def _queues() -> list[Queue]:
    return [*current_app.conf.task_queues, current_app.conf.dead_letters]


def _length(shaken: Any, queue: Queue) -> dict[str, int | None]:
    try:
        # A channel for each: a queue that is not there closes it.
        told = queue.bind(shaken.channel()).queue_declare(passive=True)
    except NotFound:
        return {"messages": None, "consumers": None}
    return {"messages": told.message_count, "consumers": told.consumer_count}


def _hint(facts: Facts) -> str:
    """What to do about the first queue that needs it."""
    for queue in current_app.conf.task_queues:
        name, told = queue.alias or queue.name, facts[queue.alias or queue.name]
        if told["messages"] is None:
            return f"The queue {name} has not been made yet: start a worker, `celery -A killboard worker -Q {name}`."
        if told["messages"] and not told["consumers"]:
            return f"Nobody serves the queue {name}: start a worker, `celery -A killboard worker -Q {name}`."
        if told["messages"] > LONG:
            return f"Tasks pile up in the queue {name}: start more workers for it, or read the log of those that run."
    return ""
