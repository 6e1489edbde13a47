"""What the feed still owes: late numbers, changed files, and giving up."""

from datetime import timedelta

import pytest
from django.db.models.functions import Now

from killmails.errors import BadPointer, UpstreamRefused
from killmails.ingest import gaps
from killmails.ingest.lease import take_lease
from killmails.models import FeedGap, Killmail, KillmailEvent, RejectedKillmail
from killmails.upstream.zkillboard import Zkillboard
from tests.builders import counts, package, raw_package
from tests.fake_r2z2 import Reply
from tests.feeding import cursor, let_pass

pytestmark = pytest.mark.django_db
DAY = 24 * 3600


@pytest.fixture
def upstream(fake):
    take_lease("test")
    return Zkillboard(fake.url, "tests@example.com")


def owe(sequence: int, reason: str = "MISSING", due: timedelta = timedelta(seconds=-1)) -> FeedGap:
    return FeedGap.objects.create(
        first_sequence=sequence, last_sequence=sequence, reason=reason, next_try_at=Now() + due
    )


def found(gap: FeedGap) -> tuple:
    gap.refresh_from_db()
    return gap.outcome, gap.tries


# Where the feed goes on


@pytest.mark.parametrize(("ahead", "there"), [(1, True), (20, True), (21, False)])
def test_feed_goes_on_at_one_of_the_next_twenty_numbers(fake, upstream, ahead, there):
    fake.point(90)
    fake.put(100 + ahead, b"anything")
    expected = gaps.Found(100 + ahead, jumped=False) if there else None
    assert gaps.find_next(upstream, 100) == expected
    assert ("sequence" in fake.asked) is not there


def test_file_that_is_too_large_is_a_file_all_the_same(fake, upstream):
    fake.put(101, b"x" * 6_000_000)
    assert gaps.find_next(upstream, 100) == gaps.Found(101, jumped=False)


@pytest.mark.parametrize(("pointer", "jumps"), [(100, False), (120, False), (121, True), (5000, True)])
def test_feed_jumps_to_a_pointer_beyond_those_twenty(fake, upstream, pointer, jumps):
    fake.point(pointer)
    if jumps:
        fake.script(pointer, *[Reply(status=404)] * (pointer <= 120), Reply(b"anything"))
    found_next = gaps.find_next(upstream, 99)
    assert found_next == (gaps.Found(pointer, jumped=True) if jumps else None)


def test_pointer_beyond_without_a_file_is_not_followed(fake, upstream):
    fake.point(5000)
    assert gaps.find_next(upstream, 100) is None


@pytest.mark.parametrize(("behind", "refused"), [(51, False), (10_000, False), (10_001, True), (10**6, True)])
def test_pointer_far_behind_is_refused(fake, upstream, behind, refused):
    fake.point(20_000_000 - behind)
    if not refused:
        assert gaps.find_next(upstream, 20_000_000) is None
        return
    with pytest.raises(BadPointer, match="far behind our 20000000"):
        gaps.find_next(upstream, 20_000_000)


def test_hole_is_not_written_down_when_another_worker_was_faster(fake):
    def claim() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gaps.skip(5, gaps.Found(8, jumped=False), claim)
    assert counts() == {}


# What is owed


@pytest.mark.parametrize("late", [10, 600, DAY - 700])
def test_late_number_is_stored(fake, upstream, late):
    gap = owe(5, due=gaps.FIRST_RETRY)
    assert gaps.fetch_one(upstream) is False, "not due yet"
    let_pass(late)
    fake.put(5, raw_package(5))
    assert gaps.fetch_one(upstream) is True
    assert found(gap) == ("STORED", 1)
    assert Killmail.objects.get().pk == 1005
    assert gaps.fetch_one(upstream) is False
    assert fake.asked == ["5"]


def test_missing_number_is_asked_for_ever_more_seldom_and_given_up_after_24_hours(fake, upstream, caplog):
    gap = owe(5, due=gaps.FIRST_RETRY)
    waits, passed = [], 0.0
    while found(gap)[0] == "":
        wait = FeedGap.objects.values_list("next_try_at", Now()).get()
        waits.append((wait[0] - wait[1]).total_seconds())
        let_pass(waits[-1] + 1)
        passed += waits[-1] + 1
        assert gaps.fetch_one(upstream) is True
    assert waits[:8] == [10, 20, 40, 80, 160, 320, 600, 600]
    assert set(waits[8:]) == {600}
    assert DAY < passed < DAY + 700
    assert found(gap) == ("GIVEN_UP", len(waits))
    assert "did not come within 24 h" in caplog.text


def test_number_that_comes_broken_is_quarantined(fake, upstream):
    gap = owe(5)
    fake.put(5, package(5, hash="a" * 40))
    assert gaps.fetch_one(upstream) is True
    assert found(gap) == ("REJECTED", 1)
    assert (RejectedKillmail.objects.get().reason, RejectedKillmail.objects.get().sequence) == ("HASH_MISMATCH", 5)
    assert Killmail.objects.count() == 0


def test_number_that_comes_as_a_placeholder_is_given_up(fake, upstream):
    gap = owe(5)
    fake.put(5, package(5, killmail_id=None, hash=None))
    gaps.fetch_one(upstream)
    assert found(gap) == ("GIVEN_UP", 1)
    assert counts() == {"FeedGap": 1}


def test_refusal_leaves_the_debt_open_and_lets_the_others_go_first(fake, upstream):
    refused, other = owe(5, due=timedelta(seconds=-2)), owe(6)
    fake.script(5, Reply(status=503))
    fake.put(6, raw_package(6))
    with pytest.raises(UpstreamRefused):
        gaps.fetch_one(upstream)
    assert found(refused) == ("", 1)
    assert gaps.fetch_one(upstream) is True
    assert found(other) == ("STORED", 1)
    assert fake.asked == ["5", "6"]


def test_number_that_comes_unreadable_is_asked_for_three_times(fake, upstream):
    gap = owe(5)
    fake.put(5, b"<html>")
    for tries in (1, 2):
        assert gaps.fetch_one(upstream) is True
        assert found(gap) == ("", tries)
        let_pass(100)
    assert gaps.fetch_one(upstream) is True
    assert found(gap) == ("REJECTED", 3)
    assert RejectedKillmail.objects.get().reason == "NOT_JSON"


def test_debts_are_asked_for_in_the_order_in_which_they_are_due(fake, upstream):
    for sequence, seconds in ((7, -1), (5, -3), (6, -2), (8, 60)):
        owe(sequence, due=timedelta(seconds=seconds))
        fake.put(sequence, raw_package(sequence))
    while gaps.fetch_one(upstream):
        pass
    assert fake.asked == ["5", "6", "7"]
    assert KillmailEvent.objects.count() == 3


def test_range_that_has_expired_is_not_asked_for(fake, upstream):
    FeedGap.objects.create(first_sequence=5, last_sequence=4000, reason="EXPIRED")
    assert gaps.fetch_one(upstream) is False
    assert fake.asked == []


# Hints


@pytest.mark.parametrize(("changed", "noted"), [(4, True), (1, True), (5, False), (6, False), (0, False), (-1, False)])
def test_only_a_hint_at_an_earlier_file_is_noted(upstream, changed, noted):
    gaps.note_changed(changed, 5)
    assert list(FeedGap.objects.values_list("first_sequence", "reason")) == ([(changed, "CHANGED")] if noted else [])
    assert cursor().ignored_updates == (0 if noted else 1)


def test_hint_that_leads_nowhere_is_given_up_and_counted(fake, upstream):
    gap = owe(4, "CHANGED")
    gaps.fetch_one(upstream)
    assert found(gap) == ("GIVEN_UP", 1)
    assert cursor().ignored_updates == 1
