"""Whole feeds: real killmails with keys that nobody knows, everything three times, everything out of order."""

import hashlib
import itertools
import os
import random
from datetime import datetime
from typing import Any

import pytest

from killmails.ingest.store import Stored, store_killmail
from killmails.models import Attacker, FeedCursor, Killmail, KillmailEvent, LogHead, RejectedKillmail
from killmails.recording.tape import php_json
from killmails.records import parse_package
from tests.builders import NOW, dump, esi_body, package, raw_package, some_real_killmails, zkb_block
from tests.fake_r2z2 import FakeR2Z2
from tests.feeding import cursor, feed_at

# Real transactions: hundreds of savepoints within the one of a test would be slow.
pytestmark = pytest.mark.django_db(transaction=True)


def follow(fake: FakeR2Z2, first: int, last: int) -> None:
    feed = feed_at(first, fake.url)
    for _ in range(first, last + 1):
        feed.step()
    assert cursor().next_sequence == last + 1


# P17


UNHEARD_OF = [
    None, True, -1, 2**63 + 1, 1e-7, 0.1, "", "text\x00\ud800\u00e9/", [], [{}], {"deeper": [1, {"and": "deeper"}]},
]  # fmt: skip


def sprinkle(value: Any, chance: random.Random) -> Any:
    """The same with keys that nobody knows, at every level."""
    if isinstance(value, list):
        return [sprinkle(each, chance) for each in value]
    if not isinstance(value, dict):
        return value
    new = {key: sprinkle(each, chance) for key, each in value.items()}
    for _ in range(chance.randrange(3)):
        new[f"new_{chance.randrange(10**6)}"] = chance.choice(UNHEARD_OF)
    return new


def expect_columns_equal(killmail: Killmail, esi: dict[str, Any]) -> None:
    """Every key of ESI's that we know, field by field; written down here once more, not taken from the code."""
    victim = esi["victim"]
    assert killmail.time == datetime.fromisoformat(esi["killmail_time"])
    assert (killmail.pk, killmail.solar_system_id) == (esi["killmail_id"], esi["solar_system_id"])
    assert (killmail.war_id, killmail.moon_id) == (esi.get("war_id"), esi.get("moon_id"))
    assert (killmail.victim_character_id, killmail.victim_corporation_id) == (
        victim.get("character_id"), victim.get("corporation_id"),
    )  # fmt: skip
    assert (killmail.victim_alliance_id, killmail.victim_faction_id) == (
        victim.get("alliance_id"), victim.get("faction_id"),
    )  # fmt: skip
    assert (killmail.victim_ship_type_id, killmail.damage_taken) == (victim["ship_type_id"], victim["damage_taken"])
    position = victim.get("position")
    assert (killmail.position_x, killmail.position_y, killmail.position_z) == (
        (position["x"], position["y"], position["z"]) if position else (None, None, None)
    )
    assert killmail.attacker_count == len(esi["attackers"])
    stored = Attacker.objects.filter(killmail=killmail).order_by("ordinal")
    for ordinal, (row, sent) in enumerate(itertools.zip_longest(stored, esi["attackers"])):
        expected = [
            ordinal, sent.get("character_id"), sent.get("corporation_id"), sent.get("alliance_id"),
            sent.get("faction_id"), sent.get("ship_type_id"), sent.get("weapon_type_id"), sent["damage_done"],
            sent["final_blow"], sent["security_status"],
        ]  # fmt: skip
        assert expected == [
            row.ordinal, row.character_id, row.corporation_id, row.alliance_id, row.faction_id, row.ship_type_id,
            row.weapon_type_id, row.damage_done, row.final_blow, row.security_status,
        ]  # fmt: skip


def test_p17_every_real_killmail_with_unknown_keys_everywhere_is_stored_and_nothing_is_lost(fake):
    chance = random.Random(17)
    sent = {}
    for sequence, killmail in enumerate(some_real_killmails(), start=1):
        whole = {"uploaded_at": 1_790_000_000 + sequence, "sequence_id": sequence}
        whole |= {key: killmail[key] for key in ("killmail_id", "hash", "esi", "zkb")}
        whole = sprinkle(whole, chance)
        raw = php_json(whole)
        sent[killmail["killmail_id"]] = (hashlib.sha256(raw).hexdigest(), whole["esi"])
        fake.put(sequence, raw)
    follow(fake, 1, len(sent))
    assert RejectedKillmail.objects.count() == 0
    assert Killmail.objects.count() == len(sent)
    for killmail in Killmail.objects.select_related("package"):
        digest, esi = sent[killmail.pk]
        assert hashlib.sha256(killmail.package.raw()).hexdigest() == digest
        assert killmail.package.esi() == esi
        expect_columns_equal(killmail, esi)


# P25 and P26

ENTRIES = 200


def entries() -> list[bytes]:
    """A feed in which each fifth package is a killmail from before, with a newer block; package n is number n."""
    chance = random.Random(26)
    feed = []
    for sequence in range(1, ENTRIES + 1):
        again = sequence > 5 and sequence % 5 == 0
        killmail_id = 1000 + (chance.randrange(1, sequence) if again else sequence)
        feed.append(raw_package(sequence, esi_body(killmail_id), zkb=zkb_block(points=sequence)))
    return feed


def deliver(raws: list[tuple[int, bytes]]) -> None:
    for sequence, raw in raws:
        store_killmail(parse_package(raw, sequence, NOW))


def expect_dense_log() -> None:
    log = list(KillmailEvent.objects.order_by("position").values_list("position", "kind", "killmail_id"))
    assert [position for position, _, _ in log] == list(range(1, len(log) + 1))
    added = [killmail_id for _, kind, killmail_id in log if kind == "ADDED"]
    assert len(added) == len(set(added)) == Killmail.objects.count()
    assert LogHead.objects.get().position == len(log)


def test_p25_feed_that_is_delivered_three_times_leaves_the_state_of_one(fake):
    for sequence, raw in enumerate(entries()[:100], start=1):
        fake.put(sequence, raw)
    follow(fake, 1, 100)
    once = dump()
    expect_dense_log()
    for _ in range(2):
        FeedCursor.objects.update(next_sequence=1)
        follow(fake, 1, 100)
    assert dump() == once
    assert len(fake.asked) == 3 * 100


def test_p25_each_package_three_times_in_a_row_leaves_the_state_of_one():
    numbered = list(enumerate(entries(), start=1))
    deliver([each for each in numbered for _ in range(3)])
    thrice = dump()
    everything_away()
    deliver(numbered)
    assert dump() == thrice


def everything_away() -> None:
    for model in (KillmailEvent, Killmail):
        model.objects.all().delete()
    LogHead.objects.update(position=0)


@pytest.mark.parametrize("seed", range(10) if os.environ.get("LONG") == "1" else [1])
def test_p26_feed_in_any_order_within_a_hundred_leaves_the_same_killmails(seed):
    numbered = list(enumerate(entries(), start=1))
    deliver(numbered)
    in_order = dump()
    everything_away()
    chance, shuffled = random.Random(seed), []
    for begin in range(0, ENTRIES, 100):
        shuffled += chance.sample(numbered[begin : begin + 100], 100)
    deliver(shuffled)
    expect_dense_log()
    out_of_order = dump()
    # How often an older package was replaced depends on the order, and so does the log; what is stored does not.
    assert in_order.pop("KillmailEvent") != out_of_order.pop("KillmailEvent")
    assert out_of_order == in_order


def test_p26_store_that_takes_whatever_comes_last_is_seen_to_differ():
    """The known-wrong variant: two packages of a killmail, the older one last."""
    older, newer = (raw_package(n, esi_body(1001), zkb=zkb_block(points=n)) for n in (1, 2))
    deliver([(2, newer)])
    assert store_killmail(parse_package(older, 1, NOW)) is Stored.KNOWN
    right = dump()
    Killmail.objects.update(uploaded_at=0, sequence=0)
    assert store_killmail(parse_package(older, 1, NOW)) is Stored.UPDATED
    assert dump() != right


def test_packages_shuffled_over_their_numbers_leave_the_same_killmails(fake):
    """The feed itself out of order: the same hundred uploads under other numbers."""
    uploads = [package(1, esi_body(2000 + n), uploaded_at=1_790_000_000 + n) for n in range(100)]
    for sequence, upload in enumerate(uploads, start=1):
        fake.put(sequence, upload | {"sequence_id": sequence})
    follow(fake, 1, 100)
    in_order = dump({"sequence", "deflated"})
    everything_away()
    for sequence, upload in enumerate(random.Random(5).sample(uploads, 100), start=1):
        fake.put(sequence, upload | {"sequence_id": sequence})
    FeedCursor.objects.update(next_sequence=1)
    follow(fake, 1, 100)
    expect_dense_log()
    out_of_order = dump({"sequence", "deflated"})
    assert in_order.pop("KillmailEvent") != out_of_order.pop("KillmailEvent")
    assert out_of_order == in_order
