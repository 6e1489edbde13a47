"""While the feed is behind it asks, once a minute, how far."""

import pytest

from killmails.ingest import feed as feed_module
from killmails.models import Killmail
from tests.builders import raw_package
from tests.feeding import cursor, feed_at, silence, steps

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def minutes(monkeypatch):
    """A clock that stands still until it is moved."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(feed_module, "time", clock)
    return clock


@pytest.fixture
def behind(fake, minutes):
    """A feed that has had nothing but packages for a minute."""
    for sequence in range(5, 12):
        fake.put(sequence, raw_package(sequence))
    fake.point(300)
    feed = feed_at(5, fake.url)
    steps(feed, 2)
    assert fake.asked == ["5", "6"]
    minutes.now += 60
    return feed


def test_after_a_minute_of_packages_the_pointer_is_asked_once_and_kept(fake, behind, minutes):
    steps(behind, 2)
    assert fake.asked[2:] == ["sequence", "7", "8"]
    assert (cursor().next_sequence, cursor().pointer) == (9, 300)
    assert cursor().pointer_at is not None
    minutes.now += 59
    steps(behind, 1)
    minutes.now += 1
    fake.point(301)
    steps(behind, 1)
    assert fake.asked[5:] == ["9", "sequence", "10"]
    assert cursor().pointer == 301


def test_whoever_has_caught_up_asks_for_no_pointer(fake, minutes):
    feed = feed_at(5, fake.url)
    for _ in range(8):
        steps(feed, 1, apart=7)
        minutes.now += 7
    assert fake.asked == ["5"] * 8
    assert cursor().pointer is None


def test_a_pointer_that_is_nonsense_holds_up_nothing(fake, behind, caplog):
    fake.point(b'{"sequence":"abc"}')
    steps(behind, 1)
    assert (cursor().next_sequence, cursor().pointer, silence()) == (8, None, 0.0)
    assert Killmail.objects.count() == 3
    assert "It is not known how far behind we are." in caplog.text
