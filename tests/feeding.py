"""Driving the real feed step by step against the fake upstream, and what has to be seen afterwards."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db.models import DateTimeField, Model, Value
from django.db.models.functions import Now

from killmails.ingest.feed import Feed
from killmails.ingest.lease import FEED
from killmails.models import FeedCursor, FeedGap, Killmail, KillmailEvent, RejectedKillmail
from killmails.recording.tape import php_json
from killmails.upstream.zkillboard import Zkillboard
from tests.builders import counts, package, raw_package
from tests.fake_r2z2 import FakeR2Z2


def feed_at(sequence: int | None, url: str, holder: str = "test", deadline: float = 60.0) -> Feed:
    """A worker on the feed, whose cursor stands at `sequence`; an existing cursor stays where it is."""
    FeedCursor.objects.get_or_create(name=FEED, defaults={"next_sequence": sequence})
    return Feed(Zkillboard(url, "tests@example.com", deadline), holder)


def cursor() -> FeedCursor:
    return FeedCursor.objects.get(name=FEED)


def stop_database_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database's clock stands still, for the board and for the test: nothing passes but what `let_pass` makes pass.

    Else a machine that is busy for half a second would look like a feed that waits half a second too little.
    """
    moment = datetime.now(UTC)
    for name in ("as_postgresql", "as_sqlite"):
        monkeypatch.setattr(Now, name, lambda now, compiler, *_, **__: compiler.compile(Value(moment, DateTimeField())))


def let_pass(seconds: float) -> None:
    """The same as that many seconds of waiting: every time that the feed has written down moves into the past."""
    back = timedelta(seconds=seconds)
    _move_back(cursor(), back, "not_before", "missing_since", "lease_expires_at")
    for gap in FeedGap.objects.all():
        _move_back(gap, back, "next_try_at", "found_at")


def _move_back(row: Model, back: timedelta, *names: str) -> None:
    times = {name: getattr(row, name) for name in names}
    moved = {name: time - back for name, time in times.items() if time is not None}
    if moved:
        type(row).objects.filter(pk=row.pk).update(**moved)


def silence() -> float:
    """Seconds for which the upstream is to be left alone, from now on."""
    not_before, now = FeedCursor.objects.filter(name=FEED).values_list("not_before", Now()).get()
    return (not_before - now).total_seconds() if not_before else 0.0


def steps(feed: Feed, count: int, apart: float = 0.0) -> None:
    """So many steps, with so many seconds after each."""
    for _ in range(count):
        feed.step()
        let_pass(apart)


def place() -> tuple[int | None, int, int]:
    """The next sequence, placeholders skipped, hints ignored."""
    now = cursor()
    return now.next_sequence, now.placeholders, now.ignored_updates


def events() -> list[tuple]:
    return list(KillmailEvent.objects.order_by("position").values_list("position", "kind", "killmail_id"))


def at_rest(sequence: int) -> bool:
    """Whether the cursor is there, and nothing else is noted about it."""
    now = cursor()
    return (now.next_sequence, now.tries, now.missing_since, now.placeholders, now.ignored_updates) == (
        sequence, 0, None, 0, 0,
    ) and now.not_before is None  # fmt: skip


def expect_quarantine(fake: FakeR2Z2, content: bytes | dict, reason: str, *detail: str, tries: int = 1) -> None:
    """Package 5 is `content`: it is kept byte for byte, nothing else changes, and package 6 is stored."""
    raw = content if isinstance(content, bytes) else php_json(content)
    fake.put(5, raw)
    fake.put(6, raw_package(6))
    feed = feed_at(5, fake.url)
    for number in range(1, tries):
        feed.step()
        assert (cursor().next_sequence, cursor().tries) == (5, number)
        assert counts() == {}
        assert silence() == 6.0
        feed.step()
        assert fake.asked == ["5"] * number, "asked again before 6 s had passed"
        let_pass(6)
    feed.step()
    assert at_rest(6)
    assert counts() == {"RejectedKillmail": 1}
    rejected = RejectedKillmail.objects.get()
    assert (rejected.sequence, rejected.reason, rejected.state) == (5, reason, "OPEN")
    assert bytes(rejected.raw) == raw
    for part in detail:
        assert part in rejected.detail
    expect_next_stored(fake, feed)
    assert fake.asked == ["5"] * tries + ["6"]


def expect_next_stored(fake: FakeR2Z2, feed: Feed) -> None:
    feed.step()
    assert at_rest(7)
    assert Killmail.objects.get().pk == 1006


def expect_stored(fake: FakeR2Z2, content: dict | bytes) -> Killmail:
    """Package 5 is `content`, is stored, and its bytes are kept as they were."""
    raw = content if isinstance(content, bytes) else php_json(content)
    fake.put(5, raw)
    feed_at(5, fake.url).step()
    assert at_rest(6)
    assert "RejectedKillmail" not in counts()
    killmail = Killmail.objects.get()
    assert killmail.package.raw() == raw
    return killmail


def changed(path: str, value: object) -> dict:
    """Package 5 with one value replaced, by its path; the hash stays that of the unchanged body."""
    whole = package(5)
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
    inner = whole
    for parent in parents:
        inner = inner[parent]
    inner[last] = value
    return whole
