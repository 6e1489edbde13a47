"""An upstream that refuses, is silent or is away: the cursor stays, and the upstream has its rest (P15)."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from killmails.ingest import lease
from killmails.ingest.feed import Feed
from killmails.models import FeedCursor, FeedGap
from tests.builders import counts, raw_package
from tests.fake_r2z2 import FakeR2Z2, Reply
from tests.feeding import cursor, events, feed_at, let_pass, place, silence, steps

pytestmark = pytest.mark.django_db


def refuse(fake: FakeR2Z2, status: int, header: str | None) -> Feed:
    """A feed at 5 that was refused once; the cursor stays, and nothing is stored."""
    headers = {"Retry-After": header} if header else {}
    fake.script(5, Reply(b"no", status=status, headers=headers), Reply(raw_package(5)))
    feed = feed_at(5, fake.url)
    feed.step()
    assert (place(), counts(), cursor().tries) == ((5, 0, 0), {}, 0)
    return feed


def expect_silence(fake: FakeR2Z2, least: float, most: float) -> None:
    """Not asked again before that, not even by a worker that was started anew; then the feed goes on."""
    written = silence()
    assert least <= written <= most
    let_pass(written - 0.5)
    feed_at(5, fake.url, holder="started anew").step()
    let_pass(lease.LEASE.total_seconds() + 1)  # the other worker's lease; its rest of the silence as well
    FeedCursor.objects.update(not_before=cursor().not_before + lease.LEASE + timedelta(seconds=1))
    anew = feed_at(5, fake.url, holder="started anew")
    assert anew.step() == 0.5
    assert fake.asked == ["5"]
    let_pass(0.5)
    anew.step()
    assert fake.asked == ["5", "5"]
    assert place() == (6, 0, 0)
    assert events() == [(1, "ADDED", 1005)]


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 60), ("soon", 60), ("", 60), ("-5", 60), ("37", 37), ("0", 6), ("5", 6), ("3600", 3600)],
)
def test_429_is_answered_with_the_silence_that_was_asked_for(fake, header, seconds):
    refuse(fake, 429, header)
    expect_silence(fake, seconds, seconds)


def test_429_until_a_date_is_silence_until_then(fake):
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=90)
    refuse(fake, 429, format_datetime(until, usegmt=True))
    expect_silence(fake, (until - datetime.now(UTC)).total_seconds(), 90)


def test_429_until_a_date_that_has_passed_is_a_short_silence(fake):
    refuse(fake, 429, "Wed, 21 Oct 2015 07:28:00 GMT")
    expect_silence(fake, 6, 6)


@pytest.mark.parametrize(("header", "seconds"), [(None, 600), ("5", 600), ("x", 600), ("3600", 3600)])
def test_403_is_answered_with_at_least_ten_minutes_of_silence(fake, header, seconds):
    refuse(fake, 403, header)
    expect_silence(fake, seconds, seconds)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 420, 401, 301, 204])
def test_other_answers_are_answered_with_some_seconds_of_silence(fake, status):
    refuse(fake, status, None)
    expect_silence(fake, 6, 6 * 1.3)


def test_503_with_retry_after_is_left_alone_for_that_long(fake):
    refuse(fake, 503, "120")
    expect_silence(fake, 120, 120)


@pytest.mark.parametrize("header", ["999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
@pytest.mark.parametrize("status", [429, 403, 503])
def test_silence_for_years_is_not_believed(fake, status, header):
    feed = refuse(fake, status, header)
    assert silence() <= 24 * 3600
    let_pass(24 * 3600)
    feed.step()
    assert place() == (6, 0, 0)


def test_silence_grows_with_each_failure_to_a_minute_and_ends_with_success(fake):
    fake.script(5, *[Reply(status=503)] * 8, Reply(raw_package(5)))
    fake.script(6, Reply(status=503))
    feed = feed_at(5, fake.url)
    for expected in (6, 12, 24, 48, 60, 60, 60, 60):
        feed.step()
        assert expected <= silence() <= expected * 1.3
        let_pass(expected * 1.3)
    steps(feed, 2)
    assert place() == (6, 0, 0)
    assert 6 <= silence() <= 6 * 1.3


def test_upstream_that_is_away_for_days_is_still_left_alone_between_two_questions(fake):
    fake.script(5, Reply(status=503))
    feed = feed_at(5, fake.url)
    feed._failures = 5000
    feed.step()
    assert 60 <= silence() <= 78
    assert place() == (5, 0, 0)


def test_silence_holds_for_what_is_owed_as_well(fake):
    fake.put(5, raw_package(5, sequence_updated=4))
    fake.script(6, Reply(status=429))
    feed = feed_at(5, fake.url)
    steps(feed, 6)
    assert fake.asked == ["5", "6"]
    assert FeedGap.objects.get().outcome == ""


@pytest.mark.parametrize(
    "reply", [Reply(silent_for=30), Reply(b"x" * 100, drip=0.2), Reply(b"x" * 10, declared=20, drip=0.05)]
)
def test_upstream_that_does_not_finish_leaves_the_cursor(fake, reply):
    fake.script(5, reply)
    feed = feed_at(5, fake.url, deadline=0.5)
    steps(feed, 1)
    assert (place(), counts(), cursor().tries) == ((5, 0, 0), {}, 0)
    assert 6 <= silence() <= 6 * 1.3
    let_pass(8)
    fake.put(5, raw_package(5))
    feed._upstream._client._deadline = 60.0  # half a second may be too short for a right answer, too
    feed.step()
    assert place() == (6, 0, 0)


def test_upstream_that_cannot_be_reached_leaves_the_cursor(fake):
    with FakeR2Z2() as gone:
        url = gone.url
    feed = feed_at(5, url)
    steps(feed, 3, apart=100)
    assert (place(), counts()) == ((5, 0, 0), {})


def test_refusal_while_looking_ahead_leaves_the_cursor(fake):
    fake.script(6, Reply(status=429))
    feed = feed_at(5, fake.url)
    steps(feed, 1, apart=61)
    feed.step()
    assert (place(), counts()) == ((5, 0, 0), {})
    assert silence() == 60
