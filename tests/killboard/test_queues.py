"""The settings under which nothing is lost and nothing spins without end, as they were measured."""

import pytest

from killboard import celery
from killboard.queues import DEAD_LETTERS, WORK_QUEUES


def test_no_task_is_lost_with_its_worker_and_nobody_waits_for_a_broker_for_ever() -> None:
    conf = celery.app.conf
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost, conf.task_ignore_result) == (True, True, True)
    assert (conf.worker_prefetch_multiplier, conf.broker_heartbeat, conf.broker_connection_max_retries) == (1, 10, None)
    assert (conf.worker_cancel_long_running_tasks_on_connection_loss, conf.worker_soft_shutdown_timeout) == (True, 20)
    assert conf.task_time_limit < 30 * 60  # when RabbitMQ takes a message back
    assert (conf.task_serializer, conf.accept_content) == ("json", ["json"])
    options = celery._rabbitmq()["broker_transport_options"]
    limits = dict.fromkeys(("confirm_timeout", "connect_timeout", "read_timeout", "write_timeout"), 3)
    assert options == {"confirm_publish": True, **limits}


@pytest.mark.parametrize("queue", WORK_QUEUES, ids=lambda queue: queue.alias)
def test_each_queue_is_a_quorum_queue_that_gives_up_on_what_kills_its_workers(queue) -> None:
    assert queue.durable
    assert queue.queue_arguments == {
        "x-queue-type": "quorum",
        "x-delivery-limit": 5,
        "x-dead-letter-exchange": DEAD_LETTERS.exchange.name,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",
    }


def test_there_are_four_of_them() -> None:
    assert [queue.alias for queue in WORK_QUEUES] == ["feed", "publish", "esi", "bulk"]
