"""What is said of the real RabbitMQ, and of one that does not speak."""

import secrets
import socket
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from django.conf import settings
from kombu import Connection, Consumer, Exchange, Producer, Queue

from health import rabbitmq
from health.part import State, ok
from killboard.queues import work_queue

pytestmark = pytest.mark.services


@pytest.fixture
def queue(monkeypatch) -> Iterator[Queue]:
    """A queue of the board's kind that nobody knows yet, in the place of its own ones."""
    monkeypatch.setattr(rabbitmq, "STEP_LIMIT", 60.0)  # a busy machine is none of its business here
    queue = work_queue(f"tests-{secrets.token_hex(4)}")
    dead = Queue(f"dead-{secrets.token_hex(4)}", Exchange(""))
    conf = SimpleNamespace(task_queues=[queue], dead_letters=dead)
    monkeypatch.setattr(rabbitmq, "current_app", SimpleNamespace(conf=conf))
    yield queue
    with Connection(settings.RABBITMQ_URL) as broker:
        queue(broker.default_channel).delete()


def told(queue: Queue) -> tuple[str, int | None, int | None]:
    part = rabbitmq.check()
    assert part.needed
    assert part.status is (State.DEGRADED if part.hint else State.OK)
    facts = part.facts["queues"][queue.alias]
    return part.hint.partition(":")[0], facts["messages"], facts["consumers"]


def wait_for(queue: Queue, expected: tuple[str, int | None, int | None]) -> None:
    deadline = time.monotonic() + 60
    while told(queue) != expected:
        assert time.monotonic() < deadline, told(queue)
        time.sleep(0.05)


def test_queues_are_counted_and_what_nobody_serves_is_named(queue, monkeypatch) -> None:
    name = queue.alias
    assert told(queue) == (f"The queue {name} has not been made yet", None, None)
    with Connection(settings.RABBITMQ_URL) as broker:
        channel = broker.default_channel
        queue(channel).declare()
        assert told(queue) == ("", 0, 0)
        Producer(channel).publish({}, exchange=queue.exchange, routing_key=queue.routing_key)
        wait_for(queue, (f"Nobody serves the queue {name}", 1, 0))
        channel.basic_qos(0, 1, False)
        with Consumer(channel, [queue], callbacks=[lambda body, message: None]):
            broker.drain_events(timeout=60)
            wait_for(queue, ("", 0, 1))
            monkeypatch.setattr(rabbitmq, "LONG", 0)
            for _ in range(2):  # the one in hand is not done
                Producer(channel).publish({}, exchange=queue.exchange, routing_key=queue.routing_key)
            wait_for(queue, (f"Tasks pile up in the queue {name}", 2, 1))


def test_one_that_takes_connections_and_says_nothing_is_given_up_soon(monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        monkeypatch.setattr(settings, "RABBITMQ_URL", f"amqp://guest:guest@127.0.0.1:{deaf.getsockname()[1]}/")
        with pytest.raises(OSError, match="timed out"):
            rabbitmq.check()
        deaf.accept()[0].close()
        deaf.setblocking(False)
        with pytest.raises(BlockingIOError):  # once, and not again and again: how long that takes is STEP_LIMIT
            deaf.accept()


def test_without_rabbitmq_none_is_needed(monkeypatch) -> None:
    monkeypatch.setattr(settings, "RABBITMQ_URL", "")
    assert rabbitmq.check() == ok(note="not needed: messages are files in DATA_DIR")
