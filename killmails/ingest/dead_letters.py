"""Dead letters: carried from RabbitMQ, where nobody looks, to a table, and queued again when somebody says so."""

import hashlib
import json
import logging
from datetime import UTC, datetime
from typing import Any

from celery import Celery
from django.db.models.functions import Now
from kombu import Queue
from kombu.message import Message

from killmails.ingest.quarantine import storable
from killmails.models import DeadLetter

logger = logging.getLogger(__name__)

KEPT = 64 * 1024  # bytes of a body
MOST = 1000  # letters at a time


def collect(queue: Queue, tasks: frozenset[str], most_deliveries: int) -> int:
    """Empties the queue (bound to a channel) into the table. How many rows are new.

    `tasks`: the names of ours. `most_deliveries`: after so many RabbitMQ gives up, and does not say how many.

    The row is committed before the message is acknowledged, and bears the message's own key: a letter may come
    twice, and is kept once.
    """
    new = 0
    for _ in range(MOST):
        message = queue.get()
        if message is None:
            break
        if not _has_expired(message):
            new += _keep(message, tasks, most_deliveries)
        message.ack()
    return new


def replay_letter(app: Celery, letter_id: int, connection: Any) -> None:
    """Puts the task in its queue again, as a new message. Raises what the broker's client raises.

    Only for letters of a task of ours: `task` names it.
    """
    letter = DeadLetter.objects.get(pk=letter_id)
    app.send_task(letter.task, args=letter.arguments, connection=connection, retry=False)


def _keep(message: Message, tasks: frozenset[str], most_deliveries: int) -> int:
    raw = _raw(message)
    deaths = _deaths(message)
    last: dict[str, Any] = deaths[0] if deaths else {}
    task, arguments = _task(message, raw, tasks)
    key = hashlib.sha256(repr((message.headers.get("id"), last.get("time"), raw)).encode()).hexdigest()
    letter = DeadLetter(
        key=key,
        task=task,
        arguments=arguments,
        reason=storable(str(last.get("reason", "unknown")))[:30],
        queue=storable(str(last.get("queue", "")))[:200],
        deliveries=most_deliveries if last.get("reason") == "delivery_limit" else 1,
        raw=raw[:KEPT],
        died_at=_moment(last.get("time")) or Now(),
    )
    known = DeadLetter.objects.filter(key=key).exists()
    DeadLetter.objects.bulk_create([letter], ignore_conflicts=True)
    if not known:
        logger.error(
            "A dead letter (%s, %s): look at /admin/killmails/deadletter/.", task or "no task of ours", letter.reason
        )
    return not known


def _raw(message: Message) -> bytes:
    """As it came: never decoded by what its headers name."""
    body = message.body
    return body.encode("utf-8", "surrogatepass") if isinstance(body, str) else bytes(body)


def _deaths(message: Message) -> list[dict[str, Any]]:
    """RabbitMQ's x-death, the latest first. Anybody may write headers, so nothing is taken for granted."""
    deaths = message.headers.get("x-death")
    return [death for death in deaths if isinstance(death, dict)] if isinstance(deaths, list) else []


def _has_expired(message: Message) -> bool:
    """What beat asks for four times a minute, and nobody took in time: the next one asks for the same."""
    deaths = _deaths(message)
    return bool(deaths) and deaths[0].get("reason") == "expired"


def _task(message: Message, raw: bytes, tasks: frozenset[str]) -> tuple[str, list[int]]:
    """The task and its ids; ("", []) unless it is one of ours with nothing but whole numbers."""
    name = message.headers.get("task")
    if not isinstance(name, str) or name not in tasks or message.content_type != "application/json":
        return "", []
    try:
        arguments, named, *_ = json.loads(raw)
    except (ValueError, TypeError, RecursionError):
        return "", []
    if not isinstance(arguments, list) or named or not all(type(argument) is int for argument in arguments):
        return "", []
    return name, arguments


def _moment(value: object) -> datetime | None:
    """AMQP's times are in UTC, and say so nowhere."""
    return value.replace(tzinfo=UTC) if isinstance(value, datetime) else None
