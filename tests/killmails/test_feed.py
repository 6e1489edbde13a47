"""The feed's steps over real HTTP: holes, hints, reposts: the cases F1, F2, F9 and F19.

Packages that are wrong are in test_feed_packages.py and test_feed_fields.py, the pointer in
test_feed_pointer.py, refusals in test_feed_refusals.py.
"""

import logging
import threading

import pytest

from killmails.ingest import feed as feed_module
from killmails.ingest import lease
from killmails.models import FeedGap, Killmail, RejectedKillmail
from killmails.recording.server import RecordingServer, load_recording
from tests.builders import counts, esi_body, raw_package, zkb_block
from tests.feeding import cursor, events, feed_at, let_pass, place, silence, steps

pytestmark = pytest.mark.django_db


# The beginning, and going on


def test_new_board_begins_at_the_pointers_own_number(fake):
    fake.point(700)
    fake.put(700, raw_package(700))
    feed = feed_at(None, fake.url)
    assert feed.step() == 0.0
    assert (place(), counts()) == ((700, 0, 0), {})
    feed.step()
    assert place() == (701, 0, 0)
    assert events() == [(1, "ADDED", 1700)]
    assert fake.asked == ["sequence", "700"]


def test_restart_goes_on_at_the_stored_number_and_asks_no_pointer(fake):
    fake.point(900)
    fake.put(701, raw_package(701))
    feed_at(701, fake.url).step()
    let_pass(23 * 3600)
    feed_at(5, fake.url, holder="another").step()
    assert fake.asked == ["701", "702"]


def test_each_stored_package_moves_the_cursor_by_one_and_has_the_next_position(fake):
    for sequence in range(5, 15):
        fake.put(sequence, raw_package(sequence))
    steps(feed_at(5, fake.url), 10)
    assert place() == (15, 0, 0)
    assert events() == [(position, "ADDED", 1004 + position) for position in range(1, 11)]


# 404


def test_f1_number_that_is_not_there_is_asked_for_again_after_six_seconds(fake):
    feed = feed_at(5, fake.url)
    assert feed.step() == lease.RENEW, "a holder that waits renews its lease meanwhile"
    assert silence() == 6.0
    assert (place(), counts(), fake.asked) == ((5, 0, 0), {}, ["5"])
    let_pass(5.5)
    assert feed.step() == 0.5
    assert fake.asked == ["5"]
    let_pass(0.5)
    feed.step()
    assert fake.asked == ["5", "5"]
    fake.put(5, raw_package(5))
    let_pass(6)
    feed.step()
    assert place() == (6, 0, 0)
    assert (cursor().missing_since, cursor().not_before, cursor().last_answer) == (None, None, "200")


def test_f2_number_that_never_comes_is_skipped_after_a_minute_and_owed(fake):
    fake.put(6, raw_package(6))
    feed = feed_at(5, fake.url)
    steps(feed, 10, apart=6)
    assert (place(), counts(), set(fake.asked)) == ((5, 0, 0), {}, {"5"})
    steps(feed, 1)
    assert place() == (6, 0, 0)
    assert counts() == {"FeedGap": 1}
    gap = FeedGap.objects.get()
    assert (gap.first_sequence, gap.last_sequence, gap.reason, gap.outcome) == (5, 5, "MISSING", "")
    feed.step()
    assert fake.asked.count("6") == 1, "it was asked for just now"
    let_pass(6)
    feed.step()
    assert place() == (7, 0, 0)
    assert events() == [(1, "ADDED", 1006)]


def test_f2_several_numbers_in_a_row_that_never_come_are_owed_one_by_one(fake):
    fake.put(25, raw_package(25))
    fake.point(3)
    feed = feed_at(5, fake.url)
    steps(feed, 1, apart=61)
    feed.step()
    assert place() == (25, 0, 0), "twenty numbers ahead are looked at"
    gaps = FeedGap.objects.order_by("first_sequence").values_list("first_sequence", "last_sequence", "reason")
    assert list(gaps) == [(sequence, sequence, "MISSING") for sequence in range(5, 25)]


def test_quiet_feed_is_no_hole(fake):
    fake.point(3)
    feed = feed_at(5, fake.url)
    steps(feed, 30, apart=20)
    assert (place(), counts()) == ((5, 0, 0), {})
    assert fake.asked.count("sequence") == 9


def test_pointer_far_ahead_means_that_files_are_gone_and_that_is_an_error(fake, caplog):
    fake.point(5000)
    fake.put(5000, raw_package(5000))
    feed = feed_at(5, fake.url)
    steps(feed, 1, apart=61)
    with caplog.at_level(logging.ERROR):
        feed.step()
    assert place() == (5000, 0, 0)
    gap = FeedGap.objects.get()
    assert (gap.first_sequence, gap.last_sequence, gap.reason, gap.outcome) == (5, 4999, "EXPIRED", "")
    assert "5 to 4999" in caplog.text


def test_pointer_far_ahead_without_a_file_behind_it_is_not_believed(fake):
    fake.point(2**61)
    feed = feed_at(5, fake.url)
    steps(feed, 5, apart=61)
    assert (place(), counts()) == ((5, 0, 0), {})
    fake.put(5, raw_package(5))
    feed.step()
    assert place() == (6, 0, 0)


# Placeholders and hints


def test_f9_placeholder_is_skipped_and_counted(fake):
    placeholder = {"killmail_id": None, "hash": None, "esi": None, "zkb": {"href": "https://x/killmails///"}}
    fake.put(5, placeholder | {"uploaded_at": 1, "sequence_id": 5})
    fake.put(6, raw_package(6))
    feed = feed_at(5, fake.url)
    feed.step()
    assert (place(), counts()) == ((6, 1, 0), {})
    feed.step()
    assert place() == (7, 1, 0)
    assert events() == [(1, "ADDED", 1006)]


@pytest.mark.parametrize("hint", [5, 6, 2**63, 0, -1, "4", 1.5, True, [], {}])
def test_f19_hint_that_names_no_earlier_file_is_ignored_and_counted(fake, hint):
    fake.put(5, raw_package(5, sequence_updated=hint))
    feed = feed_at(5, fake.url)
    steps(feed, 3, apart=2)
    assert place() == (6, 0, 1)
    assert FeedGap.objects.count() == 0
    assert events() == [(1, "ADDED", 1005)]


def test_f19_hint_at_a_file_that_is_not_there_is_ignored_and_counted(fake):
    fake.put(5, raw_package(5, sequence_updated=4))
    steps(feed_at(5, fake.url), 4)
    assert place() == (6, 0, 1)
    assert FeedGap.objects.get().outcome == "GIVEN_UP"
    assert fake.asked == ["5", "6", "4"]
    assert events() == [(1, "ADDED", 1005)]


# P6: changed files and reposts


def test_changed_file_is_taken_over_with_one_updated_event(fake):
    fake.put(5, raw_package(5))
    fake.put(6, raw_package(6, sequence_updated=5))
    feed = feed_at(5, fake.url)
    steps(feed, 1)
    labels = ["ganked", "pvp"]
    newer = raw_package(5, uploaded_at=1_790_000_100, zkb=zkb_block(labels=labels, points=9))
    fake.put(5, newer)
    steps(feed, 4)
    assert fake.asked == ["5", "6", "7", "5"]
    assert events() == [(1, "ADDED", 1005), (2, "ADDED", 1006), (3, "UPDATED", 1005)]
    killmail = Killmail.objects.get(pk=1005)
    assert (killmail.labels, killmail.points, killmail.package.raw()) == (labels, 9, newer)
    assert Killmail.objects.count() == 2
    assert killmail.attackers.count() == 2
    assert place() == (7, 0, 0)
    assert FeedGap.objects.get().outcome == "STORED"


def test_file_uploaded_again_is_taken_over_from_the_recorded_feed(monkeypatch):
    monkeypatch.setattr(feed_module, "close_old_connections", lambda: None)
    first, second = load_recording()[:2]
    with RecordingServer([], rate=0) as server:
        server.publish(first)
        feed = feed_at(1, server.url)
        feed.step()
        Killmail.objects.update(uploaded_at=1)  # upstream's clock counts seconds, and a test is faster
        server.republish(1, first | {"zkb": first["zkb"] | {"points": 99}})
        server.publish(second)
        steps(feed, 4)
    assert [kind for _, kind, _ in events()] == ["ADDED", "ADDED", "UPDATED"]
    assert Killmail.objects.get(pk=first["killmail_id"]).points == 99
    assert Killmail.objects.count() == 2


def test_repost_under_a_new_number_replaces_the_zkb_block(fake):
    fake.put(5, raw_package(5))
    fake.put(6, raw_package(6, esi_body(1005), zkb=zkb_block(totalValue=7)))
    steps(feed_at(5, fake.url), 2)
    assert place() == (7, 0, 0)
    assert events() == [(1, "ADDED", 1005), (2, "UPDATED", 1005)]
    killmail = Killmail.objects.get()
    assert (killmail.total_value, killmail.sequence, killmail.attackers.count()) == (7, 6, 2)


def test_repost_without_a_difference_is_no_event(fake):
    fake.put(5, raw_package(5))
    fake.put(6, raw_package(6, esi_body(1005)))
    steps(feed_at(5, fake.url), 2)
    assert place() == (7, 0, 0)
    assert events() == [(1, "ADDED", 1005)]
    assert Killmail.objects.get().sequence == 6


# Two workers that both believe to hold the lease


@pytest.mark.parametrize(
    ("content", "left"),
    [
        (raw_package(5), {"Killmail": 1, "position": 1}),
        (raw_package(5, hash=None), {"RejectedKillmail": 1}),
        (raw_package(5, killmail_id=None, hash=None), {}),
    ],
    ids=["package", "bad package", "placeholder"],
)
def test_worker_that_was_outrun_changes_nothing(fake, monkeypatch, content, left):
    fake.put(5, content)
    fake.put(6, raw_package(6))
    slow, fast = feed_at(5, fake.url), feed_at(5, fake.url)
    fetch = slow._upstream.fetch_package

    def fetch_while_the_other_goes_on(sequence: int) -> bytes | None:
        raw = fetch(sequence)
        fast.step()
        return raw

    monkeypatch.setattr(slow._upstream, "fetch_package", fetch_while_the_other_goes_on)
    assert slow.step() == lease.STANDBY
    assert place() == (6, 0 if left else 1, 0)
    assert {
        name: count for name, count in counts().items() if name in ("Killmail", "RejectedKillmail", "position")
    } == left
    assert fake.asked == ["5", "5"]


# Going on by itself


@pytest.mark.django_db(transaction=True)
def test_run_goes_on_after_an_error_of_our_own_and_gives_the_lease_back(fake, monkeypatch):
    monkeypatch.setattr(feed_module, "BROKEN_WAIT", 0.01)
    fake.put(5, raw_package(5))
    feed, stop = feed_at(5, fake.url), threading.Event()
    real, broken = feed._take, [True]

    def take(*arguments):
        if broken.pop() if broken else False:
            raise ZeroDivisionError
        if fake.asked.count("5") > 1:
            stop.set()
        return real(*arguments)

    monkeypatch.setattr(feed, "_take", take)
    thread = threading.Thread(target=feed.run, args=[stop])
    thread.start()
    thread.join(60)
    assert not thread.is_alive()
    assert place() == (6, 0, 0)
    assert cursor().lease_expires_at is None
    assert RejectedKillmail.objects.count() == 0
    assert fake.asked == ["5", "5"]
