"""What our worker mends of Celery's, where a test of a whole board would have to wait for chance."""

import os
from datetime import datetime, timedelta
from types import SimpleNamespace

import pytest
from celery.concurrency.asynpool import AsynPool
from celery.signals import before_task_publish
from celery.worker import request as celery_request
from celery.worker.request import Request
from kombu import Queue
from kombu.asynchronous import Hub

from killboard import celery as board
from killboard.worker import WatchStep


@pytest.fixture
def pool():
    """Two processes: one is watched, of one Celery has let go."""
    reading, writing = os.pipe()
    watched = SimpleNamespace(_sentinel_poll=os.dup(reading), _popen=SimpleNamespace(sentinel=reading))
    let_go = SimpleNamespace(_sentinel_poll=None, _popen=SimpleNamespace(sentinel=reading))
    yield SimpleNamespace(_pool=[watched, let_go], _event_process_exit=lambda *_: None)
    for process in (watched, let_go):
        if getattr(process, "_sentinel_poll", None) is not None:
            os.close(process._sentinel_poll)
    os.close(reading), os.close(writing)


def watch(pool):
    hub = Hub()
    try:
        for process in pool._pool:
            AsynPool._track_child_process(pool, process, hub)
        return [process._sentinel_poll for process in pool._pool]
    finally:
        hub.close()


def test_a_process_that_celery_has_let_go_of_is_watched_again(pool):
    first = pool._pool[0]._sentinel_poll
    WatchStep.start(None, SimpleNamespace(pool=SimpleNamespace(_pool=pool)))
    watched = watch(pool)
    assert watched[0] == first
    assert None not in watched
    assert len({*watched}) == 2


def test_celery_alone_would_end_the_worker(pool):
    with pytest.raises(ValueError, match="file descriptor is None"):
        watch(pool)


def test_a_pool_of_threads_has_no_processes():
    WatchStep.start(None, SimpleNamespace(pool=SimpleNamespace(_pool=None)))


def sent_to(queue):
    """The message as RabbitMQ has it of a task that is asked for as beat does."""
    with board.app.connection_for_write() as connection:
        bound = Queue(queue, board.app.amqp.queues["bulk"].exchange, queue, expires=60)(connection.default_channel)
        bound.declare()
        entry = board.app.conf.beat_schedule["killmails.tasks.fill_names"]
        board.app.send_task(
            entry["task"], connection=connection, exchange=bound.exchange, routing_key=queue, **entry["options"]
        )
        return bound.get(no_ack=True)


def is_dropped(message, monkeypatch, ahead):
    """Whether a worker drops it whose clock is that far ahead."""
    clock = SimpleNamespace(now=lambda zone: datetime.now(zone) + ahead)
    monkeypatch.setattr(celery_request, "datetime", clock)
    return bool(Request(message, app=board.app).maybe_expire())


@pytest.mark.services
def test_p24_what_beat_asks_for_expires_by_the_clock_of_rabbitmq(monkeypatch):
    message = sent_to("killboard.test.clock")
    assert int(message.properties["expiration"]) == 15_000
    assert not is_dropped(message, monkeypatch, timedelta(hours=2))


@pytest.mark.services
def test_p24_is_not_blind_a_worker_that_is_ahead_drops_what_expires_by_its_own_clock(monkeypatch):
    """Known to be wrong: as Celery sends it."""
    before_task_publish.disconnect(board._leave_expiry_to_rabbitmq)
    try:
        message = sent_to("killboard.test.clock")
    finally:
        before_task_publish.connect(board._leave_expiry_to_rabbitmq)
    assert not is_dropped(message, monkeypatch, timedelta())
    assert is_dropped(message, monkeypatch, timedelta(hours=2))
