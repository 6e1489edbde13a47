"""Tasks that come three times, and in the wrong order (P25, P26): the same state as of one delivery in order."""

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import User
from django.db import connections
from django.db.models import F

from killmails import accounts
from killmails.models import (
    Alliance,
    Character,
    Corporation,
    Faction,
    InventoryType,
    Killmail,
    KillmailEvent,
    KillmailSync,
    PendingKillmail,
    PendingOwner,
    SolarSystem,
)
from killmails.users import pending, rounds
from killmails.users.pending import publish_due
from tests.builders import dump
from tests.killmails.eve import BOTH, KILLER, OTHER, VICTIM, losses, unrelated

TIMES = {"stored_at", "created_at", "since", "position"}


def state():
    """All that may depend on deliveries, without times and the numbers that order gives."""
    killmails = {name: sorted(map(repr, rows)) for name, rows in dump(TIMES).items()}
    return killmails, {
        "events": sorted(KillmailEvent.objects.values_list("killmail_id", "kind")),
        "pending": sorted(PendingKillmail.objects.values_list("killmail_id", "hash", "state", "due_at", "public")),
        "owners": sorted(PendingOwner.objects.values_list("pending__killmail_id", "user__eve_characters")),
        "lists": sorted(KillmailSync.objects.values_list("kind", "eve_id", "state", "newest_id")),
    }


def scene(eve):
    """Three users; the killer is a director, and publishes at once."""
    eve.fake.world.add_killmails([unrelated(3001), *losses(12)])
    eve.fake.world.roles[KILLER] = ("Director",)
    eve.login(VICTIM), eve.login(OTHER)
    accounts.set_publication(eve.login(KILLER, BOTH), True, 0)


@pytest.fixture
def expected(eve):
    """After one delivery of each, in order; the tables are empty again then."""
    scene(eve)
    eve.work()
    publish_due()
    found = state()
    assert Killmail.objects.count() == 12
    KillmailEvent.objects.all().delete()
    for model in (Killmail, PendingKillmail, KillmailSync, User, Alliance, Character, Corporation, Faction):
        model.objects.all().delete()
    InventoryType.objects.all().delete(), SolarSystem.objects.all().delete()
    eve.fake.limits.refill()
    return found


@pytest.mark.django_db
def test_p25_each_task_three_times(eve, expected):
    scene(eve)
    for _ in range(3):
        eve.work()
        publish_due()
    assert state() == expected


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_p25_by_six_workers_at_once(eve, expected):
    scene(eve)
    barrier = threading.Barrier(6)

    def work():
        barrier.wait()
        try:
            eve.work()
            publish_due()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(6) as workers:
        for future in [workers.submit(work) for _ in range(6)]:
            future.result()
    eve.work()
    assert state() == expected
    assert eve.asked("/killmails").count(200) == 24  # each once, in both runs
    assert eve.fake.violations == []


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_it_is_not_blind_workers_who_claim_nothing_ask_for_the_same(eve, monkeypatch):
    scene(eve)
    accounts.set_publication(eve.row(KILLER).user_id, False, 0)
    for sync in KillmailSync.objects.all():
        rounds.read_list(rounds.claim(KillmailSync.objects.filter(pk=sync.pk))[0], eve.esi, eve.sso)
    rows = list(PendingKillmail.objects.all())
    for _ in range(2):
        for row in rows:
            pending.fetch(row, eve.esi, eve.site)
    assert len(eve.asked("/killmails")) > len(rows)


@pytest.mark.django_db
def test_p26_in_any_order(eve, expected):
    """Whoever is first: lists, fetches and publications, in orders of chance."""
    scene(eve)
    chance = random.Random(7)
    for _ in range(30):
        killmails = PendingKillmail.objects.filter(state="TO_FETCH").order_by("killmail_id")
        rows = [*killmails, *KillmailSync.objects.exclude(due_at=None).order_by("kind", "eve_id")]
        chance.shuffle(rows)
        for number, row in enumerate(rows):
            type(row)._default_manager.filter(pk=row.pk).update(priority=number % 4)
        rounds._do_most_urgent(eve.esi, eve.sso, eve.site)
        if chance.random() < 0.3:
            rounds.note_memberships(eve.esi)
            publish_due()
    eve.work()
    publish_due()
    assert state() == expected
    assert not PendingKillmail.objects.filter(fence__lt=F("tries")).exists()
