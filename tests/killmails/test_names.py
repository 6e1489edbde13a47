"""Names of those on killmails: asked for before they are stored, and filled afterwards."""

import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from django.db import connection, connections
from django.db.models import Q
from django.db.models.functions import Now

from killboard.engine import engine
from killmails.errors import UpstreamUnreachable
from killmails.fake_eve import Fault
from killmails.ingest import details, gaps, names
from killmails.ingest.names import NameAsker, fill_names
from killmails.ingest.store import store_killmail
from killmails.models import (
    Alliance,
    Character,
    Constellation,
    Corporation,
    FeedGap,
    InventoryGroup,
    InventoryType,
    Killmail,
    KillmailEvent,
    Region,
    SolarSystem,
    UnfilledKillmail,
)  # fmt: skip
from killmails.records import parse_package
from killmails.upstream.budget import Budget, MemoryStore
from killmails.upstream.esi import Esi
from killmails.upstream.zkillboard import Zkillboard
from tests.builders import NOW, attacker, esi_body, raw_package
from tests.fake_r2z2 import FakeR2Z2

pytestmark = pytest.mark.django_db

PILOTS = {2100000001, 2100000002, 2100000003}
CORPORATIONS, ALLIANCES = {98000001, 98000002}, {99000001, 99000002}


@pytest.fixture(autouse=True)
def live(settings):
    settings.FEED = "live"


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A busy machine is no slow ESI: whoever waits, waits for long, but where the wait is what is tested."""
    for module, name in ((names, "PATIENCE"), (names, "FRESH"), (names, "TURN"), (details, "TURN")):
        monkeypatch.setattr(module, name, 300.0)


@pytest.fixture
def fake(fake_esi):
    return fake_esi


def record(sequence, **changes):
    """Uploaded this moment."""
    raw = raw_package(sequence, esi_body(1000 + sequence, **changes), uploaded_at=int(time.time()))
    return parse_package(raw, sequence, NOW)


def named(model):
    return set(model.objects.filter(name__isnull=False).values_list("pk", flat=True))


def kinds():
    return list(KillmailEvent.objects.order_by("position").values_list("kind", "killmail_id"))


def asked(fake, path="/universe/names"):
    return [one for one in fake.asked if one.path.startswith(path)]


# Before it is stored


def test_all_names_of_a_package_come_in_one_question_and_are_asked_for_once(fake, esi):
    asker = NameAsker(esi)
    for sequence in (1, 2):
        asker.ask(record(sequence))
        store_killmail(record(sequence))
    assert (named(Character), named(Corporation), named(Alliance)) == (PILOTS, CORPORATIONS, ALLIANCES)
    assert Character.objects.get(pk=2100000001).name == "Character 2100000001"
    assert len(asked(fake)) == 1
    assert UnfilledKillmail.objects.count() == 0
    assert kinds() == [("ADDED", 1001), ("ADDED", 1002)]


PATIENCE, BREAK = names.PATIENCE, names.BREAK


class SlowEsi:
    """Takes all the time that it is given, and tells nothing: `waits` are those times."""

    def __init__(self):
        self.waits, self.now = [], 0.0

    def fetch_names(self, ids, within, most_unknown):
        self.waits.append(within)
        self.now += within
        raise UpstreamUnreachable("no complete answer")


@pytest.fixture
def slow(monkeypatch):
    """With a clock on which nothing passes but what ESI takes."""
    slow = SlowEsi()
    monkeypatch.setattr(names, "PATIENCE", PATIENCE)
    monkeypatch.setattr(names, "time", SimpleNamespace(time=time.time, monotonic=lambda: slow.now))
    return slow


def test_killmail_waits_two_seconds_at_most_and_the_next_ones_not_at_all(slow):
    asker = NameAsker(slow)
    for sequence in range(1, 30):
        asker.ask(record(sequence))
    assert slow.waits == [2.0]
    slow.now += BREAK
    asker.ask(record(30))
    assert slow.waits == [2.0, 2.0]


def test_without_the_break_each_killmail_would_wait(slow, monkeypatch):
    """Known to be wrong."""
    monkeypatch.setattr(names, "BREAK", 0.0)
    asker = NameAsker(slow)
    for sequence in range(1, 5):
        asker.ask(record(sequence))
    assert slow.waits == [2.0] * 4


def test_esi_that_is_silent_is_left_when_the_patience_is_over(fake, esi, monkeypatch):
    monkeypatch.setattr(names, "PATIENCE", 0.3)
    fake.fail("/universe/names", Fault(silent_for=30.0), times=0)
    asker = NameAsker(esi)
    begun = time.monotonic()
    asker.ask(record(1))
    assert 0.2 < time.monotonic() - begun < 25  # and not 30
    assert named(Character) == set()


def test_the_next_killmail_does_not_ask_again_for_whom_esi_does_not_know(fake, esi):
    """Each of them makes ESI refuse the whole question, and it allows a hundred refusals in a minute."""
    del fake.world.characters[2100000003]
    asker = NameAsker(esi)
    asker.ask(record(1))
    store_killmail(record(1))
    assert named(Character) == PILOTS - {2100000003}
    before = len(asked(fake))
    asker.ask(record(2))
    assert len(asked(fake)) == before
    assert Character.objects.get(pk=2100000003).fill_tries == 1
    assert UnfilledKillmail.objects.get().missing == {"character": [2100000003]}


@pytest.mark.parametrize("ask", [lambda esi: NameAsker(esi).ask(fleet()), fill_names], ids=["asker", "filler"])
def test_many_whom_esi_does_not_know_do_not_spend_the_errors_of_all(fake, esi, ask):
    """Each of them costs a refusal, and the half that it is in another one: of 100 in a minute."""
    store_killmail(fleet())
    ask(esi)
    assert 10 < [one.status for one in asked(fake)].count(404) <= names.REFUSALS


def test_a_fight_of_unknown_pilots_costs_as_many_refusals_in_a_minute_as_one_killmail(fake, esi, monkeypatch):
    """However many killmails it has: each has other pilots."""
    now = SimpleNamespace(monotonic=0.0)
    monkeypatch.setattr(names, "time", SimpleNamespace(time=time.time, monotonic=lambda: now.monotonic))
    asker = NameAsker(esi)

    def refusals():
        return [one.status for one in asked(fake)].count(404)

    for number in range(1, 21):
        now.monotonic += BREAK / 5  # so that breaks end in between
        pilots = [attacker(character_id=2100001000 + 10 * number + each, final_blow=each == 0) for each in range(3)]
        asker.ask(record(number, attackers=pilots))
    assert names.REFUSALS - 3 <= refusals() <= names.REFUSALS
    now.monotonic += names.MINUTE
    asker.ask(fleet())
    assert refusals() > names.REFUSALS + 10


def fleet():
    """Forty pilots whom ESI does not know."""
    pilots = [attacker(character_id=2100000100 + number, final_blow=number == 0) for number in range(40)]
    return record(1, attackers=pilots)


def test_name_of_another_category_is_not_believed_before_storing_either(fake, esi):
    fake.world.characters.pop(2100000001)
    fake.world.corporations[2100000001] = {"name": "A corporation"}
    NameAsker(esi).ask(record(1))
    assert named(Character) == PILOTS - {2100000001}
    assert named(Corporation) == CORPORATIONS


def test_names_are_asked_for_a_package_that_the_feed_owed(fake, esi):
    FeedGap.objects.create(first_sequence=1, last_sequence=1, reason=FeedGap.Reason.MISSING, next_try_at=Now())
    with FakeR2Z2() as r2z2:
        r2z2.put(1, raw_package(1, uploaded_at=int(time.time())))
        assert gaps.fetch_one(Zkillboard(r2z2.url, "tests@example.com"), NameAsker(esi).ask) is True
    assert (named(Character), kinds()) == (PILOTS, [("ADDED", 1001)])
    assert UnfilledKillmail.objects.count() == 0


def test_who_catches_up_asks_for_no_single_killmail(fake, esi):
    raw = raw_package(1, esi_body(1001), uploaded_at=int(time.time()) - 600)  # and 300 s would be too long
    NameAsker(esi).ask(parse_package(raw, 1, NOW))
    NameAsker(None).ask(record(2))
    assert fake.asked == []


# The filler


def store_unnamed(*sequences, **changes):
    for sequence in sequences:
        store_killmail(record(sequence, **changes))


def test_killmail_is_published_again_once_when_its_names_have_come(fake, esi):
    store_unnamed(1, 2)
    (missing,) = UnfilledKillmail.objects.filter(pk=1001).values_list("missing", flat=True)
    assert missing == {"character": sorted(PILOTS), "corporation": sorted(CORPORATIONS), "alliance": sorted(ALLIANCES)}
    for _ in range(2):
        fill_names(esi)
    assert named(Character) == PILOTS
    assert kinds() == [("ADDED", 1001), ("ADDED", 1002), ("UPDATED", 1001), ("UPDATED", 1002)]
    assert UnfilledKillmail.objects.count() == 0


def test_a_recording_asks_for_nobody(settings):
    settings.FEED = "recorded"
    store_unnamed(1)
    assert UnfilledKillmail.objects.count() == 0


@pytest.mark.usefixtures("still")
def test_what_esi_does_not_know_is_found_by_halves_and_asked_for_later(fake, esi):
    del fake.world.characters[2100000003]
    store_unnamed(1)
    fill_names(esi)
    assert named(Character) == PILOTS - {2100000003}
    # Nobody can tell when it comes: what is known is told now, and the rest when it is.
    assert kinds() == [("ADDED", 1001), ("UPDATED", 1001)]
    assert UnfilledKillmail.objects.get().missing == {"character": [2100000003]}
    lost = Character.objects.annotate(wait=names.F("fill_not_before") - Now()).get(pk=2100000003)
    assert lost.fill_tries == 1
    assert lost.wait == timedelta(seconds=60)
    before = len(asked(fake))
    fill_names(esi)
    assert all(b"2100000003" not in one.body for one in asked(fake)[before:])
    fake.world.characters[2100000003] = {"name": "Newcomer"}
    Character.objects.update(fill_not_before=None)
    fill_names(esi)
    assert Character.objects.get(pk=2100000003).name == "Newcomer"
    assert kinds()[2:] == [("UPDATED", 1001)]
    assert UnfilledKillmail.objects.count() == 0


def test_who_was_refused_once_does_not_spoil_the_question_for_the_others(fake, esi):
    Character.objects.create(pk=2100000099, fill_tries=3)
    store_unnamed(1)
    fill_names(esi)
    fresh, *_, last = asked(fake)
    assert all(str(id_).encode() in fresh.body for id_ in PILOTS)
    assert (b"2100000099" in fresh.body, last.body) == (False, b"[2100000099]")


def test_killmail_whose_pilot_esi_never_knows_waits_no_longer_after_some_days(fake, esi):
    del fake.world.characters[2100000003]
    store_unnamed(1)
    fill_names(esi)
    for tries, waits in ((13, 1), (14, 0)):
        Character.objects.filter(pk=2100000003).update(fill_tries=tries)
        fill_names(esi)
        assert UnfilledKillmail.objects.count() == waits
    assert kinds() == [("ADDED", 1001), ("UPDATED", 1001)]


def test_package_that_replaces_another_waits_for_its_own_names(fake, esi):
    store_unnamed(1)
    fewer = esi_body(1001, attackers=[attacker(final_blow=True, character_id=2100000009)])
    fake.world.add_killmails([fewer])
    store_killmail(parse_package(raw_package(2, fewer, uploaded_at=int(time.time()) + 1), 2, NOW))
    assert UnfilledKillmail.objects.get().missing["character"] == [2100000001, 2100000009]
    for _ in range(2):
        fill_names(esi)
    assert kinds() == [("ADDED", 1001), ("UPDATED", 1001), ("UPDATED", 1001)]
    assert UnfilledKillmail.objects.count() == 0


@pytest.mark.parametrize(("tries", "seconds"), [(0, 60), (1, 120), (5, 1920), (50, 86_400)])
@pytest.mark.usefixtures("still")
def test_waits_grow_to_a_day(esi, fake, tries, seconds):
    Character.objects.create(pk=2100000099, fill_tries=tries)
    fill_names(esi)
    wait = Character.objects.annotate(wait=names.F("fill_not_before") - Now()).get(pk=2100000099).wait
    assert wait == timedelta(seconds=seconds)


def test_those_for_whom_most_killmails_wait_come_first(fake, esi, monkeypatch):
    monkeypatch.setattr(names, "REFUSED_AT_ONCE", 0)
    for id_, name in ((99000001, "A"), (99000002, "B")):
        Alliance.objects.create(pk=id_, name=name)
    for id_ in CORPORATIONS:
        Corporation.objects.create(pk=id_, name="C")
    Character.objects.create(pk=2100000001)  # for whom nobody waits, and that is found first by itself
    Character.objects.create(pk=2100000003)
    for sequence, pilots in ((1, [2100000008, 2100000009]), (2, [2100000008]), (3, [2100000009]), (4, [2100000009])):
        victim = esi_body(1)["victim"] | {"character_id": pilots[0]}
        attackers = [attacker(character_id=pilots[-1], final_blow=True)]
        store_unnamed(sequence, attackers=attackers, victim=victim)
    in_turn = []
    while claimed := names._claim(Q(fill_tries=0), 1):
        in_turn += claimed.get("character", [])
    assert in_turn[:2] == [2100000009, 2100000008]
    assert set(in_turn[2:]) == {2100000001, 2100000003}


def test_name_of_another_kind_is_not_believed(fake, esi):
    fake.world.characters.pop(2100000001)
    fake.world.stations[2100000001] = {"name": "A station"}
    store_unnamed(1)
    fill_names(esi)
    lost = Character.objects.get(pk=2100000001)
    assert (lost.name, lost.fill_tries) == (None, 1)


def test_esi_that_is_away_loses_nothing_and_its_return_fills_all(fake, esi):
    store_unnamed(1)
    fake.fail("/universe/names", Fault(status=503), times=0)
    fill_names(esi)
    assert (named(Character), kinds()) == (set(), [("ADDED", 1001)])
    assert not Character.objects.filter(fill_not_before__gt=Now()).exists()
    fake.heal()
    ends_at = time.monotonic() + 60  # the budget leaves an ESI that is down alone for a while
    while not fill_names(esi):
        assert time.monotonic() < ends_at
        time.sleep(0.1)
    assert (named(Character), kinds()) == (PILOTS, [("ADDED", 1001), ("UPDATED", 1001)])


@pytest.mark.django_db(transaction=True)
def test_two_fillers_share_the_work_and_publish_once(fake, esi):
    fake.world.types |= {id_: {"name": f"type {id_}"} for id_ in (34, 587, 603, 2048, 3178, 3465)}
    fake.world.systems[30000142] = {"name": "Jita"}
    store_unnamed(*range(1, 6))

    def fill():
        fill_names(esi)
        connections.close_all()

    fillers = [threading.Thread(target=fill) for _ in range(2)]
    for one in fillers:
        one.start()
    for one in fillers:
        one.join()
    fill_names(esi)
    assert sorted(kinds()) == [(kind, 1000 + number) for kind in ("ADDED", "UPDATED") for number in range(1, 6)]
    ids = [int(id_) for one in asked(fake) for id_ in one.body.strip(b"[]").split(b",")]
    assert len(ids) == len(set(ids))


def test_filler_that_was_killed_between_names_and_publishing_is_made_good(fake, esi, monkeypatch):
    store_unnamed(1)
    monkeypatch.setattr(names, "publish_filled", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fill_names(esi)
    assert (named(Character), kinds()) == (PILOTS, [("ADDED", 1001)])
    monkeypatch.undo()
    fill_names(esi)
    assert kinds() == [("ADDED", 1001), ("UPDATED", 1001)]


def test_names_are_asked_for_again_after_a_month(fake, esi):
    Character.objects.create(pk=2100000001, name="before", filled_at=Now() - timedelta(days=31))
    Character.objects.create(pk=2100000002, name="kept", filled_at=Now() - timedelta(days=29))
    fill_names(esi)
    found = dict(Character.objects.values_list("pk", "name"))
    assert found == {2100000001: "Character 2100000001", 2100000002: "kept"}


# Details


def test_memberships_and_tickers_are_filled_and_told(fake, esi):
    fake.world.characters[2100000001].update(corporation_id=98000002, alliance_id=99000002)
    fake.world.corporations[98000001].update(alliance_id=99000001)
    fake.world.corporations[98000002].update(ticker="KILL", alliance_id=99000002)
    fake.world.alliances[99000002].update(ticker="BOOM")
    store_unnamed(1)
    fill_names(esi)
    details.fill_details(esi)
    query = """{ killmail(id: 1001) { victim { corporation { ticker currentAlliance { id } } character { name
        currentCorporation { id name ticker currentAlliance { ticker } } currentAlliance { id name ticker } } } } }"""
    victim = engine.result(engine.prepare(query, {}, None)).data["killmail"]["victim"]
    assert victim["character"] == {
        "name": "Character 2100000001",
        "currentCorporation": {
            "id": "98000002", "name": "Corporation 98000002", "ticker": "KILL", "currentAlliance": {"ticker": "BOOM"},
        },
        "currentAlliance": {"id": "99000002", "name": "Alliance 99000002", "ticker": "BOOM"},
    }  # fmt: skip
    assert victim["corporation"] == {"ticker": "C0001", "currentAlliance": {"id": "99000001"}}
    before = len(fake.asked)
    details.fill_details(esi)
    assert len(fake.asked) == before
    Character.objects.update(details_at=Now() - timedelta(days=2))
    details.fill_details(esi)
    assert [one.path for one in fake.asked[before:]] == ["/characters/affiliation"]


def test_what_the_static_data_does_not_know_is_asked_of_esi(fake, esi):
    attributes = [{"attribute_id": 1547, "value": 1.0}]
    fake.world.types[587] = {"name": "Rifter", "group_id": 25, "dogma_attributes": attributes}
    fake.world.groups[25] = {"name": "Frigate", "category_id": 6}
    fake.world.categories[6] = {"name": "Ship"}
    fake.world.systems[30000142] = {"name": "Jita", "constellation_id": 20000020, "security_status": 0.9459}
    fake.world.constellations[20000020] = {"name": "Kimotoro", "region_id": 10000002}
    fake.world.regions[10000002] = {"name": "The Forge"}
    store_unnamed(1)
    fill_names(esi)
    assert details.fill_details(esi) is True
    assert details.fill_details(esi) is False
    ship = InventoryType.objects.get(pk=587)
    assert (ship.name, ship.group.name, ship.group.category.name, ship.rig_size) == ("Rifter", "Frigate", "Ship", 1)
    killmail = Killmail.objects.get()
    assert (killmail.region_id, killmail.security_band) == (10000002, "HIGH")
    assert SolarSystem.objects.get(pk=30000142).constellation.region.name == "The Forge"
    assert (InventoryGroup.objects.count(), Constellation.objects.count(), Region.objects.count()) == (1, 1, 1)


RIFTER, FRIGATE, SHIP, JITA, KIMOTORO, FORGE = 587, 25, 6, 30000142, 20000020, 10000002


@pytest.fixture
def places_and_things(fake):
    """An ESI that knows a ship and a system, and what they belong to."""
    fake.world.types[RIFTER] = {"name": "Rifter", "group_id": FRIGATE}
    fake.world.groups[FRIGATE] = {"name": "Frigate", "category_id": SHIP}
    fake.world.categories[SHIP] = {"name": "Ship"}
    fake.world.systems[JITA] = {"name": "Jita", "constellation_id": KIMOTORO, "security_status": 0.9459}
    fake.world.constellations[KIMOTORO] = {"name": "Kimotoro", "region_id": FORGE}
    fake.world.regions[FORGE] = {"name": "The Forge"}
    InventoryType.objects.create(pk=RIFTER, name="Rifter")
    SolarSystem.objects.create(pk=JITA, name="Jita")
    return fake


def chains():
    """The names of the ship, its group and category; of the system, its constellation and region; None: not known."""
    names_of = InventoryType.objects.filter(pk=RIFTER).values_list("name", "group__name", "group__category__name")
    places = SolarSystem.objects.filter(pk=JITA)
    return [*names_of, *places.values_list("name", "constellation__name", "constellation__region__name")]


WHOLE = [("Rifter", "Frigate", "Ship"), ("Jita", "Kimotoro", "The Forge")]


@pytest.mark.parametrize(
    ("missing", "ship", "place"),
    [
        ("groups|constellations", ("Rifter", None, None), ("Jita", None, None)),
        ("categories|regions", ("Rifter", "Frigate", None), ("Jita", "Kimotoro", None)),
    ],
)
@pytest.mark.parametrize("answer", [Fault(404, b"{}"), Fault(200, b"[]")])
def test_group_and_constellation_that_esi_did_not_give_are_asked_for_again(
    places_and_things, esi, missing, ship, place, answer
):
    fake = places_and_things
    fake.fail(f"/universe/({missing})", answer, times=0)
    details.fill_details(esi)
    assert chains() == [ship, place]
    asked = len(fake.asked)
    fake.heal()
    details.fill_details(esi)  # not at once, nor with each turn
    assert len(fake.asked) == asked
    for model in (InventoryType, SolarSystem):
        wait = model.objects.annotate(wait=names.F("fill_not_before") - Now()).get().wait
        assert timedelta(minutes=59) < wait <= timedelta(hours=1)
        model.objects.update(fill_not_before=Now())
    details.fill_details(esi)
    assert chains() == WHOLE
    InventoryType.objects.update(fill_not_before=None)
    assert details.fill_details(esi) is False


def test_group_that_was_written_down_without_its_row_is_asked_for(places_and_things, esi):
    """As earlier versions did."""
    InventoryType.objects.update(group=FRIGATE)
    SolarSystem.objects.update(constellation=KIMOTORO)
    details.fill_details(esi)
    assert chains() == WHOLE


def test_group_that_esi_does_not_know_is_asked_for_once_and_not_for_each_of_its_types(places_and_things, esi):
    InventoryType.objects.update(group=FRIGATE)
    for type_id in range(1, 4):
        places_and_things.world.types[type_id] = {"name": f"type {type_id}", "group_id": FRIGATE}
        InventoryType.objects.create(pk=type_id, name=f"type {type_id}", group_id=FRIGATE)
    places_and_things.fail("/universe/groups", Fault(404, b"{}"), times=0)
    details.fill_details(esi)
    details.fill_details(esi)
    assert places_and_things.counts()["/universe/groups", 404] == 1


@pytest.mark.django_db(transaction=True)
def test_details_wait_when_esi_is_away(fake, esi):
    fake.fail("/", Fault(status=503), times=0)
    Character.objects.create(pk=2100000001, name="known", filled_at=Now())
    details.fill_details(esi)
    assert Character.objects.get().details_at is None
    assert connection.in_atomic_block is False


def test_answer_that_cannot_be_accepted_does_not_stand_in_the_way_of_the_others(fake, esi):
    fake.world.corporations = {98000001: {"name": 5}, 98000002: {"name": "Good", "ticker": "GOOD"}}
    for id_ in CORPORATIONS:
        Corporation.objects.create(pk=id_, name="known", filled_at=Now())
    details.fill_details(esi)
    found = Corporation.objects.order_by("pk").values_list("name", "ticker")
    assert list(found) == [("known", None), ("Good", "GOOD")]
    assert Corporation.objects.filter(details_at=None).count() == 0


def test_pilots_of_the_game_are_not_asked_for_where_they_are(fake, esi):
    Character.objects.create(pk=3_018_000, name="Agent", filled_at=Now())
    details.fill_details(esi)
    assert fake.asked == []


@pytest.mark.usefixtures("still")
def test_one_that_fails_is_asked_again_soon_and_meanwhile_the_others(fake, esi):
    """Of two corporations ESI fails at the one that comes first."""
    fake.fail("/corporations/98000099", Fault(status=500, free=True), times=0)
    for id_ in (98000001, 98000099):
        Corporation.objects.create(pk=id_, name=f"corporation {id_}", filled_at=Now())
    details.fill_details(esi)
    due = Corporation.objects.annotate(wait=names.F("details_at") + details.OTHERS_OLD - Now())
    assert due.get(pk=98000099).wait == timedelta(seconds=30)
    assert due.get(pk=98000001).details_at is None
    details.fill_details(Esi(fake.url, "tests@example.com", Budget(MemoryStore())))
    assert Corporation.objects.get(pk=98000001).ticker == "C0001"
