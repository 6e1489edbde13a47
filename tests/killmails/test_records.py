"""Parsing a package: every field read, real killmails accepted, changed ones not believed."""

import copy
import dataclasses
import json
import random
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from killmails.errors import Reason, Unacceptable
from killmails.recording.tape import php_json
from killmails.records import (
    AttackerRecord,
    KillmailRecord,
    Placeholder,
    VictimRecord,
    ZkbRecord,
    killmail_hash,
    parse_package,
)
from tests.builders import NOW, attacker, esi_body, package, raw_package, real_killmails, without, zkb_block


def parse(whole: dict) -> KillmailRecord:
    return parse_package(php_json(whole), whole["sequence_id"], NOW)


# The record


def test_every_field_of_a_package_is_read():
    raw = raw_package(5, sequence_updated=3)
    record = parse_package(raw, 5, NOW)
    assert record == KillmailRecord(
        killmail_id=1005,
        killmail_hash=package(5)["hash"],
        time=datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC),
        solar_system_id=30000142,
        war_id=700001,
        moon_id=40009082,
        victim=VictimRecord(
            2100000001, 98000001, 99000001, 500001, 587, 1234, (-1.5e11, 2.25e10, 3.0), frozenset({2048, 3465, 34})
        ),
        attackers=(
            AttackerRecord(2100000002, 98000002, 99000002, 500002, 603, 3178, 1000, True, -1.5),
            AttackerRecord(2100000003, 98000002, 99000002, 500002, 603, 3178, 234, False, -1.5),
        ),
        zkb=ZkbRecord(
            40009082, Decimal("1000000.25"), Decimal("5.00"), Decimal("2000000.50"), Decimal("2000005.50"),
            7, False, False, True, ("tz:au", "cat:6", "#:2+", "pvp"),
        ),
        sequence=5,
        uploaded_at=1_790_000_005,
        sequence_updated=3,
        raw=raw,
    )  # fmt: skip


def test_what_esi_leaves_out_is_none():
    victim = {"ship_type_id": 587, "damage_taken": 0}
    alone = {"damage_done": 0, "final_blow": True, "security_status": 0}
    esi = {
        "killmail_id": 1005,
        "killmail_time": "2007-12-05T00:00:00Z",
        "solar_system_id": 30000142,
        "victim": victim,
        "attackers": [alone],
    }
    record = parse(package(5, esi, zkb=None))
    assert (record.war_id, record.moon_id, record.sequence_updated) == (None, None, None)
    assert record.victim == VictimRecord(None, None, None, None, 587, 0, None, frozenset())
    assert record.attackers == (AttackerRecord(None, None, None, None, None, None, 0, True, 0.0),)
    assert record.zkb == ZkbRecord(None, None, None, None, None, None, None, None, None, ())


def test_package_without_a_zkb_block_is_taken():
    assert parse(without(package(5), "zkb")).zkb.total_value is None


@pytest.mark.parametrize(
    ("value", "isk"),
    [
        (0, "0.00"),
        (5, "5.00"),
        (0.01, "0.01"),
        (0.1 + 0.2, "0.30"),
        (123456789012.34, "123456789012.34"),
        (1e15, "1E+15"),
    ],
)
def test_isk_is_read_to_a_hundredth(value, isk):
    assert parse(package(5, zkb=zkb_block(totalValue=value))).zkb.total_value == Decimal(isk)


def test_package_without_id_and_hash_is_a_placeholder():
    assert parse(package(5, killmail_id=None, hash=None)) == Placeholder(5)


def test_error_brings_the_bytes_along():
    with pytest.raises(Unacceptable) as caught:
        parse_package(b"<html>", 5, NOW)
    assert (caught.value.reason, caught.value.raw) == (Reason.NOT_JSON, b"<html>")


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse(package(5)).killmail_id = 1


# The hash


@pytest.mark.parametrize(
    ("victim", "final_blow", "ship", "time", "expected"),
    [
        (2119359110, None, 670, "2021-11-27T00:01:48+00:00", "5adb1c66974eb42517d1289d1d1d02a87a0eb56e"),
        (None, 154193148, 12198, "2021-11-27T00:19:56+00:00", "25cddd4dfe9ceeb7e3c04682f83e5a1b35e02b50"),
    ],
)
def test_hash_is_the_one_that_ccp_gave(victim, final_blow, ship, time, expected):
    assert killmail_hash(victim, final_blow, ship, datetime.fromisoformat(time)) == expected


def test_first_attacker_with_the_final_blow_counts_for_the_hash():
    fleet = [attacker(character_id=1), attacker(character_id=2, final_blow=True), attacker(character_id=3)]
    whole = package(5, esi_body(1005, attackers=fleet))
    expected = killmail_hash(2100000001, 2, 587, datetime(2026, 11, 20, 12, 34, 56, tzinfo=UTC))
    assert whole["hash"] == expected
    assert parse(whole).killmail_hash == expected


@pytest.mark.parametrize("killmail_id", [107220741, 108794056])
def test_p18_killmails_made_by_ccps_staff_are_taken_by_their_id(killmail_id):
    fleet = [attacker(), attacker(character_id=5)]
    whole = package(5, esi_body(killmail_id, attackers=fleet), hash="CCP VERIFIED")
    assert parse(whole).killmail_hash == "CCP VERIFIED"


def test_p18_same_text_as_hash_of_another_killmail_is_refused():
    with pytest.raises(Unacceptable, match="hash: "):
        parse(package(5, esi_body(107220742), hash="CCP VERIFIED"))


# P17: all real killmails. P18: none of them changed.


def test_p17_every_real_killmail_is_read():
    killmails = real_killmails()
    for number, killmail in enumerate(killmails, start=1):
        whole = {key: killmail[key] for key in ("killmail_id", "hash", "esi", "zkb")}
        record = parse(whole | {"uploaded_at": 1, "sequence_id": number})
        assert record.killmail_id == killmail["killmail_id"]
        assert len(record.attackers) == len(killmail["esi"]["attackers"])
    assert len(killmails) >= 70


def mutate(whole: dict, chance: random.Random) -> str:
    """Changes one thing that the hash covers, or an id, to another value; says what."""
    esi = whole["esi"]
    final_blow = next((one for one in esi["attackers"] if one["final_blow"]), None)
    targets = [(whole, "killmail_id"), (whole, "hash"), (esi, "killmail_id"), (esi, "killmail_time"),
               (esi["victim"], "character_id"), (esi["victim"], "ship_type_id"), (whole, "sequence_id")]  # fmt: skip
    targets += [(final_blow, "character_id")] if final_blow else []
    holder, key = chance.choice(targets)
    old = holder.get(key)
    kind = chance.choice(["other", "gone", "text"]) if old is not None else "other"
    if kind == "gone":
        holder[key] = None
    elif kind == "text":
        holder[key] = str(old) + "0"
    else:
        holder[key] = another(key, old, chance)
    return f"{key}: {old} became {holder[key]}"


def another(key: str, old: object, chance: random.Random) -> object:
    if key == "hash":
        place = chance.randrange(40)
        return (
            old[:place]
            + chance.choice([digit for digit in "0123456789abcdef" if digit != old[place]])
            + old[place + 1 :]
        )
    if key == "killmail_time":
        return old[:-3] + f"{(int(old[-3:-1]) + chance.randrange(1, 60)) % 60:02}Z"
    return (old or 0) + chance.randrange(1, 10**6)


def test_p18_a_thousand_changed_bodies_are_a_thousand_refusals():
    chance = random.Random(1)
    killmails = [killmail for killmail in real_killmails() if len(killmail["hash"]) == 40]
    reasons = set()
    for number in range(1000):
        killmail = copy.deepcopy(chance.choice(killmails))
        whole = {key: killmail[key] for key in ("killmail_id", "hash", "esi", "zkb")}
        whole |= {"uploaded_at": 1, "sequence_id": 7}
        what = mutate(whole, chance)
        try:
            taken = parse_package(json.dumps(whole).encode(), 7, NOW)
        except Unacceptable as error:
            reasons.add(error.reason)
        else:
            pytest.fail(f"mutation {number} was believed ({what}): {taken!r:.200}")
    assert reasons == {Reason.HASH_MISMATCH, Reason.BAD_FIELD}
