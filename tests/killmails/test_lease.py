"""One worker polls, the others stand by and take over."""

import threading

import pytest

from killmails.errors import UpstreamUnreachable
from killmails.ingest.lease import LEASE, STANDBY, give_up_lease, next_sequence, take_lease
from killmails.models import FeedCursor
from tests.builders import raw_package
from tests.fake_r2z2 import Reply
from tests.feeding import cursor, feed_at, let_pass

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("still")]


def test_first_worker_makes_the_cursor_and_holds_the_lease():
    assert next_sequence() is None
    taken = take_lease("a")
    assert (taken.lease_holder, taken.fence, taken.next_sequence) == ("a", 1, None)
    assert FeedCursor.objects.count() == 1


def test_second_worker_waits_and_changes_nothing():
    take_lease("a")
    before = FeedCursor.objects.values().get()
    assert take_lease("b") is None
    assert FeedCursor.objects.values().get() == before


def test_renewing_keeps_the_fence_and_moves_the_end():
    first = take_lease("a")
    let_pass(5)
    again = take_lease("a")
    assert again.fence == 1
    assert again.lease_expires_at == first.lease_expires_at  # by let_pass it was five seconds less


@pytest.mark.parametrize(("passed", "taken"), [(LEASE.total_seconds() - 1, False), (LEASE.total_seconds() + 1, True)])
def test_lease_is_taken_over_when_it_has_run_out_and_not_before(passed, taken):
    take_lease("a")
    let_pass(passed)
    assert (take_lease("b") is not None) is taken
    assert cursor().lease_holder == ("b" if taken else "a")
    assert cursor().fence == (2 if taken else 1)
    assert (take_lease("a") is None) is taken


def test_lease_that_was_given_up_is_taken_at_once():
    take_lease("a")
    give_up_lease("a")
    assert take_lease("b").fence == 2


def test_only_the_holder_can_give_up():
    take_lease("a")
    give_up_lease("b")
    assert take_lease("b") is None


def test_fence_grows_with_each_new_holder_only():
    fences = []
    for holder in "aabba":
        fences.append(take_lease(holder).fence)
        if holder == "b":
            fences.append(take_lease(holder).fence)
        give_up_lease(holder)
    assert fences == [1, 1, 2, 2, 2, 2, 3]


def test_a2_worker_that_stands_by_says_once_who_follows_the_feed_and_since_when(fake, caplog):
    feed_at(5, fake.url, "first").step()
    since = cursor().lease_since
    caplog.clear()
    caplog.set_level("INFO")
    second = feed_at(5, fake.url, "second")
    assert [second.step() for _ in range(3)] == [STANDBY] * 3
    (line,) = [record.getMessage() for record in caplog.records if "Standing by" in record.getMessage()]
    assert line == f"Standing by: first since {since:%Y-%m-%d %H:%M:%S} UTC follows the feed."
    assert fake.asked == ["5"]


def test_worker_without_the_lease_asks_nothing_and_takes_over_after_a_crash(fake):
    for sequence in (5, 6):
        fake.put(sequence, raw_package(sequence))
    first, second = feed_at(5, fake.url, "first"), feed_at(5, fake.url, "second")
    first.step()
    assert second.step() == STANDBY
    assert fake.asked == ["5"]
    let_pass(LEASE.total_seconds() + 0.1)  # the first one is dead
    second.step()
    assert fake.asked == ["5", "6"]
    assert (next_sequence(), cursor().lease_holder) == (7, "second")
    assert first.step() == STANDBY


def test_late_answer_of_a_worker_that_lost_the_lease_does_not_end_the_silence_of_a_403(fake):
    """P15: at least ten minutes of silence, whatever another worker still hears."""
    first, second = feed_at(5, fake.url, "first"), feed_at(5, fake.url, "second")
    stale = take_lease("first")
    let_pass(LEASE.total_seconds() + 0.1)
    fake.script(5, Reply(status=403))
    second.step()
    silence = cursor().not_before
    first._leave_alone(stale, UpstreamUnreachable("no answer"))
    assert cursor().not_before == silence
    assert cursor().last_answer == "status 403"


@pytest.mark.django_db(transaction=True)
def test_worker_that_is_stopped_lets_the_next_begin_at_once(fake):
    first, second, stop = feed_at(5, fake.url, "first"), feed_at(5, fake.url, "second"), threading.Event()
    thread = threading.Thread(target=first.run, args=[stop])
    thread.start()
    while not fake.asked:
        stop.wait(0.01)
    assert second.step() == STANDBY
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert second.step() != STANDBY
    assert (cursor().lease_holder, cursor().fence) == ("second", 2)
