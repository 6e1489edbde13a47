"""Which workers follow the feed."""

from types import SimpleNamespace

import pytest

from killboard.feed_step import FeedStep, _holder
from killboard.queues import WORK_QUEUES


@pytest.mark.parametrize(
    ("feed", "queues", "given", "follows"),
    [
        ("live", ["feed"], None, True),
        ("live", ["feed", "bulk"], None, True),
        ("live", ["bulk"], None, False),
        ("off", ["feed"], None, False),
        ("recorded", ["feed"], "http://127.0.0.1:9", True),
        # Another worker beside `manage.py serve`: it would bring real killmails among the invented ones.
        ("recorded", ["feed"], None, False),
        ("off", ["feed"], "http://127.0.0.1:9", False),
    ],
)
def test_a_worker_follows_the_feed_when_it_serves_its_queue(settings, feed, queues, given, follows) -> None:
    settings.FEED = feed
    served = {queue.name: queue for queue in WORK_QUEUES if queue.alias in queues}
    worker = SimpleNamespace(app=SimpleNamespace(amqp=SimpleNamespace(queues=SimpleNamespace(consume_from=served))))
    assert FeedStep(worker, feed_url=given).include_if(worker) is follows


def test_a_holder_of_the_lease_is_named_for_people_and_never_twice() -> None:
    assert _holder("2").startswith("worker 2 at ")
    assert _holder("2") != _holder("2")
    assert " " not in _holder("")
    assert len(_holder("x" * 200)) <= 100  # what the column takes
