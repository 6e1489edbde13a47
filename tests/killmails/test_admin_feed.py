"""The admin: feed, log, entities, and whose lists are read."""

import pytest
from django.contrib.auth.models import User

from killmails import models
from killmails.models import FeedCursor, FeedGap, KillmailEvent, KillmailSync, LogHead, UserCharacter
from killmails.models.users import OWN
from tests.killmails.admin_driver import (
    ADMIN,
    KILLMAILS,
    NOW,
    listed,
    page,
    queries_of,
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


@pytest.mark.django_db
def test_lists_tell_whose_they_are_how_they_stand_and_why(admin_client):
    user = User.objects.create_user("pilot")
    secrets = {"refresh_token": "sealed-refresh", "access_token": "sealed-access", "owner_hash": "sealed-owner"}
    UserCharacter.objects.create(pk=5, name="Sigga", user=user, scopes=[OWN], corporation_id=98000001, **secrets)
    models.Corporation.objects.create(pk=98000001, name="Hedion")
    KillmailSync.objects.create(kind="character", eve_id=5, last_success_at=NOW, new_killmails=4711)
    reason = "EVE refused the refresh token."
    refused = KillmailSync.objects.create(kind="corporation", eve_id=98000001, state="OFF", reason=reason)
    path, characters = f"{ADMIN}/killmailsync/", f"{ADMIN}/usercharacter/"
    assert listed(admin_client, path, state__exact="OFF") == [refused.pk]
    assert listed(admin_client, path, q="98000001") == [refused.pk]
    assert listed(admin_client, characters, q="98000001") == [5]
    html = page(admin_client, path)
    for text in ("Sigga", "Hedion", reason, "2026-11-23 12:00:00 ("):
        assert text in html
    html += page(admin_client, f"{path}{refused.pk - 1}/change/") + page(admin_client, f"{characters}5/change/")
    assert "own killmails" in html
    assert "pilot" in html
    assert not [text for text in (*secrets.values(), "4711") if text in html]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["killmailsync", "usercharacter"])
def test_lists_of_users_take_as_many_queries_for_many_rows_as_for_one(admin_client, name):
    def add(number):
        user = User.objects.create_user(f"pilot {number}")
        UserCharacter.objects.create(pk=number, name="Sigga", user=user)
        KillmailSync.objects.create(kind="character", eve_id=number)

    add(1)
    alone = len(queries_of(admin_client, f"{ADMIN}/{name}/"))
    for number in range(2, 9):
        add(number)
    assert len(queries_of(admin_client, f"{ADMIN}/{name}/")) == alone
