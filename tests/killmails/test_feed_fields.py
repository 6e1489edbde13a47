"""What the feed does with packages whose fields are wrong or odd: the cases F10 to F15, F17 and F18, over real HTTP."""

from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from killmails.models import Attacker
from tests.builders import attacker, esi_body, package, without, zkb_block
from tests.feeding import changed, expect_quarantine, expect_stored

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("value", ["123", 0, -1, 2**63, 1.5, True, [], {}, None])
@pytest.mark.parametrize("path", ["killmail_id", "esi.killmail_id", "esi.solar_system_id"])
def test_f10_id_that_is_none_is_a_bad_field_named_by_its_path(fake, path, value):
    expect_quarantine(fake, changed(path, value), "BAD_FIELD", f"{path}: ")


@pytest.mark.parametrize("value", ["123", 0, -1, 2**63, 1.5, True])
@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("esi.war_id", "esi.war_id"),
        ("esi.victim.ship_type_id", "esi.victim.ship_type_id"),
        ("esi.victim.character_id", "esi.victim.character_id"),
        ("esi.attackers.1.weapon_type_id", "esi.attackers[1].weapon_type_id"),
        ("esi.victim.items.1.items.0.item_type_id", "esi.victim.items[1].items[0].item_type_id"),
        ("zkb.locationID", "zkb.locationID"),
    ],
)
def test_f10_ids_further_inside_are_named_by_their_path_as_well(fake, path, named, value):
    expect_quarantine(fake, changed(path, value), "BAD_FIELD", f"{named}: ")


@pytest.mark.parametrize(
    "value",
    [
        "a" * 39,
        "A" * 40,
        "../../oauth",
        None,
        "",
        5,
        "g" * 40,
        "a" * 40 + "\n",
        "a" * 41,
        "CCP VERIFIED",
        "\u0661" * 40,
    ],
)
def test_f11_hash_that_is_none_is_a_bad_field(fake, value):
    expect_quarantine(fake, changed("hash", value), "BAD_FIELD", "hash: ")


@pytest.mark.parametrize("value", [4, 6, "5", None, 5.0])
def test_f12_package_of_another_number_is_a_bad_field(fake, value):
    expect_quarantine(fake, changed("sequence_id", value), "BAD_FIELD", "sequence_id: ")


@pytest.mark.parametrize(
    ("whole", "named"),
    [
        (package(5, esi=esi_body(1005)) | {"esi": without(esi_body(1005), "attackers")}, "esi.attackers"),
        (changed("esi.attackers", None), "esi.attackers"),
        (changed("esi.attackers", {}), "esi.attackers"),
        (changed("esi.attackers.1", 5), "esi.attackers[1]"),
        (package(5) | {"esi": without(esi_body(1005), "victim")}, "esi.victim"),
        (without(package(5), "esi"), "esi"),
        (without(package(5), "hash"), "hash"),
        (without(package(5), "killmail_id"), "killmail_id"),
        (without(package(5), "uploaded_at"), "uploaded_at"),
        (changed("esi.victim.position", {"x": 1, "y": 2}), "esi.victim.position.z"),
        (changed("esi.victim.items", "none"), "esi.victim.items"),
        (changed("esi.victim.damage_taken", -1), "esi.victim.damage_taken"),
        (changed("esi.victim.items.0.flag", 2**31), "esi.victim.items[0].flag"),
        (changed("esi.victim.items.0.quantity_destroyed", "1"), "esi.victim.items[0].quantity_destroyed"),
        (package(5, zkb=zkb_block(totalValue=-1)), "zkb.totalValue"),
        (package(5, zkb=zkb_block(totalValue=2e15)), "zkb.totalValue"),
        (package(5, zkb=zkb_block(points=2**31)), "zkb.points"),
        (package(5, zkb=zkb_block(labels=["a", 5])), "zkb.labels"),
        (package(5, zkb=zkb_block(npc="no")), "zkb.npc"),
        (package(5, zkb=[]), "zkb"),
    ],
)  # fmt: skip
def test_f13_what_is_missing_or_of_another_kind_is_a_bad_field(fake, whole, named):
    expect_quarantine(fake, whole, "BAD_FIELD", f"{named}: ")


def test_f13_killmail_without_attackers_is_stored_without_a_final_blow(fake):
    killmail = expect_stored(fake, package(5, esi_body(1005, attackers=[])))
    assert (killmail.attacker_count, killmail.final_blow, Attacker.objects.count()) == (0, None, 0)


def test_f13_killmail_with_3753_attackers_is_stored(fake):
    crowd = [attacker(character_id=2_100_000_000 + n, damage_done=n, final_blow=n == 3000) for n in range(3753)]
    with CaptureQueriesContext(connection) as queries:
        killmail = expect_stored(fake, package(5, esi_body(1005, attackers=crowd)))
    assert len(queries) < 100  # many attackers in each
    assert killmail.attacker_count == 3753
    stored = list(Attacker.objects.values_list("ordinal", "character_id", "damage_done", "final_blow"))
    assert stored == [(n, 2_100_000_000 + n, n, n == 3000) for n in range(3753)]
    assert killmail.final_blow.ordinal == 3000


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hash", "a" * 40),
        ("esi.killmail_id", 1006),
        ("esi.killmail_time", "2026-11-20T12:34:57Z"),
        ("esi.victim.character_id", 2100000009),
        ("esi.victim.ship_type_id", 588),
        ("esi.attackers.0.character_id", 2100000009),
    ],
)
def test_f14_body_that_does_not_belong_to_its_hash_is_a_mismatch(fake, path, value):
    expect_quarantine(fake, changed(path, value), "HASH_MISMATCH")


# Odd, but right


def test_f15_unknown_keys_and_items_nested_deeper_are_stored_and_kept(fake):
    esi = esi_body(1005, shiny={"new": [1, None, "x"]})
    esi["victim"]["mood"] = "bad"
    esi["attackers"][0]["skin_id"] = 5
    esi["victim"]["items"][1]["items"][0]["items"] = [
        {"item_type_id": 35, "flag": 0, "singleton": 0, "quantity_dropped": 1, "extra": {}}
    ]
    killmail = expect_stored(fake, package(5, esi, brand_new=1, zkb=zkb_block(totalDroppableValue=7, more=[])))
    assert killmail.package.esi() == esi


def test_f17_nul_and_lone_surrogates_are_kept_as_bytes_and_replaced_in_the_column(fake):
    esi = esi_body(1005, note="a\x00b\ud800c")
    labels = ["pvp", "nul\x00", "half\ud800", "\udc00\x00", "whole\U0001f680"]
    killmail = expect_stored(fake, package(5, esi, zkb=zkb_block(labels=labels)))
    assert killmail.labels == ["pvp", "nul\ufffd", "half\ufffd", "\ufffd\ufffd", "whole\U0001f680"]
    assert killmail.package.esi() == esi


@pytest.mark.parametrize("value", ["nul\x00", "half\ud800"])
def test_f17_nul_and_lone_surrogates_in_a_field_that_we_read_are_a_bad_field(fake, value):
    expect_quarantine(fake, changed("esi.killmail_time", value), "BAD_FIELD", "esi.killmail_time: ")


def at(moment: datetime) -> dict:
    return package(5, esi_body(1005, killmail_time=moment.strftime("%Y-%m-%dT%H:%M:%SZ")))


@pytest.mark.parametrize(
    "text",
    [
        "2099-01-01T00:00:00Z",
        "yesterday",
        "2026-11-20T12:34:56",
        "2026-11-20T12:34:56+00:00",
        "2026-11-20 12:34:56Z",
        "2026-11-20T12:34:56.5Z",
        "2026-02-30T00:00:00Z",
        "2026-11-20T25:00:00Z",
        "0000-01-01T00:00:00Z",
        "\u0662\u0660\u0662\u0666-11-20T12:34:56Z",
        "",
        1790000000,
        None,
    ],
)
def test_f18_time_that_is_none_or_far_in_the_future_is_a_bad_field(fake, text):
    expect_quarantine(fake, changed("esi.killmail_time", text), "BAD_FIELD", "esi.killmail_time: ")


def test_f18_time_up_to_24_hours_ahead_is_accepted(fake):
    moment = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=23, minutes=59)
    assert expect_stored(fake, at(moment)).time == moment


def test_f18_time_more_than_24_hours_ahead_is_a_bad_field(fake):
    expect_quarantine(fake, at(datetime.now(UTC) + timedelta(hours=24, minutes=1)), "BAD_FIELD", "in the future")
