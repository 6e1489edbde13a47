"""The admin: feed, log and entities."""

import pytest

from killmails import models
from killmails.models import FeedCursor, FeedGap, KillmailEvent, LogHead
from tests.killmails.admin_driver import (
    ADMIN,
    KILLMAILS,
    NOW,
    listed,
    page,
    store,
)


@pytest.mark.django_db
def test_cursor_tells_how_the_feed_stands(admin_client):
    FeedCursor.objects.create(name="r2z2", next_sequence=4711, last_answer="404", lease_holder="me:1", moved_at=NOW)
    FeedGap.objects.create(first_sequence=1, last_sequence=1, reason="MISSING")
    html = page(admin_client, f"{ADMIN}/feedcursor/r2z2/change/")
    for text in ("4711", "404", "me:1", "2026-11-23 12:00:00 ("):
        assert text in html


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, [3, 2, 1]),
        ({"outcome__exact": ""}, [3, 1]),
        ({"outcome__exact": "STORED"}, [2]),
        ({"reason__exact": "MISSING"}, [2, 1]),
        ({"reason__exact": "EXPIRED", "outcome__exact": ""}, [3]),
        ({"q": "20"}, [2]),
        ({"q": "39"}, [3]),
    ],
)
def test_gaps_are_filtered_by_reason_and_outcome(admin_client, query, found):
    for number, (reason, outcome) in enumerate((("MISSING", ""), ("MISSING", "STORED"), ("EXPIRED", "")), start=1):
        first = 10 * number
        FeedGap.objects.create(
            pk=number, first_sequence=first, last_sequence=first + 9, reason=reason, outcome=outcome
        )  # fmt: skip
    assert listed(admin_client, f"{ADMIN}/feedgap/", **query) == found


@pytest.mark.django_db
def test_events_are_listed_last_first_with_their_killmails(admin_client):
    store(31), store(32)
    positions = list(KillmailEvent.objects.order_by("-position").values_list("position", flat=True))
    assert listed(admin_client, f"{ADMIN}/killmailevent/") == positions
    html = page(admin_client, f"{ADMIN}/killmailevent/")
    assert f'<a href="{KILLMAILS}32/change/">32</a>' in html
    assert LogHead.objects.get().epoch in page(admin_client, f"{ADMIN}/loghead/")


@pytest.mark.django_db
def test_entities_are_found_by_name_and_by_id(admin_client):
    models.Character.objects.create(pk=5, name="Sigga Halloway")
    models.Character.objects.create(pk=55, name="Agent 5")
    models.Character.objects.create(pk=6)
    path = f"{ADMIN}/character/"
    assert listed(admin_client, path, q="halloWAY") == [5]
    assert listed(admin_client, path, q="5") == [5, 55]
    assert listed(admin_client, path, q="nobody") == []
    assert listed(admin_client, path) == [5, 6, 55]
