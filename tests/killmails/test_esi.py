"""What the client of ESI makes of its answers, right and wrong ones."""

import gzip
import json
import time
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from email.utils import format_datetime
from types import SimpleNamespace

import pytest

from killmails.errors import (
    BudgetSpent,
    EsiUnknown,
    Reason,
    Unacceptable,
    Unreadable,
    UpstreamRefused,
    UpstreamUnreachable,
)
from killmails.fake_eve import Fault
from killmails.recording.tape import killmail_hash
from killmails.upstream import esi as esi_module
from killmails.upstream import esi_questions
from killmails.upstream.esi import (
    Affiliation,
    AllianceRecord,
    ConstellationRecord,
    CorporationRecord,
    DayPrice,
    GroupRecord,
    KillmailRef,
    Name,
    SolarSystemRecord,
    TypeRecord,
)
from killmails.upstream.esi_questions import Questions
from killmails.upstream.http import BODY_CAP
from tests.builders import esi_body
from tests.fake_r2z2 import gzip_bomb
from tests.killmails.budgets import Clock

PILOT, OTHER, UNKNOWN = 2100000001, 2100000002, 2100000099
RIFTER = {
    "name": "Rifter", "group_id": 25, "market_group_id": 64,
    "dogma_attributes": [{"attribute_id": 1547, "value": 1.0}, {"attribute_id": 1211, "value": 40.5}],
}  # fmt: skip


@pytest.fixture
def fake(fake_esi):
    return fake_esi


@pytest.fixture
def quick(monkeypatch):
    """Pauses between repetitions are short, so that a test is."""
    monkeypatch.setattr(esi_questions, "PAUSE", 0.001)


# Names


def test_names_of_all_kinds_come_in_one_question(fake, esi):
    fake.world.types[587] = {"name": "Rifter"}
    assert esi.fetch_names([PILOT, 98000001, 99000001, 500001, 587, PILOT, 0, -1, 2**63]) == {
        PILOT: Name("Character 2100000001", "character"),
        98000001: Name("Corporation 98000001", "corporation"),
        99000001: Name("Alliance 99000001", "alliance"),
        500001: Name("Faction 500001", "faction"),
        587: Name("Rifter", "inventory_type"),
    }
    assert [(one.path, json.loads(one.body)) for one in fake.asked] == [
        ("/universe/names", [587, 500001, 98000001, 99000001, PILOT])
    ]
    assert fake.violations == []


def test_nobody_is_asked_for_no_ids(fake, esi):
    assert (esi.fetch_names([]), esi.fetch_affiliations([0]), fake.asked) == ({}, [], [])


def test_more_than_a_thousand_ids_are_several_questions(fake, esi):
    fake.world.types = {number: {"name": f"Thing {number}"} for number in range(1, 2502)}
    assert len(esi.fetch_names(range(1, 2502))) == 2501
    assert sorted(len(json.loads(one.body)) for one in fake.asked) == [501, 1000, 1000]


def test_one_unknown_id_among_a_thousand_costs_ten_halvings(fake, esi):
    fake.world.types = {number: {"name": f"Thing {number}"} for number in range(1, 1000)}
    names = esi.fetch_names(range(1, 1001))
    assert (len(names), names.unknown, names.cut_short_by) == (999, {1000}, None)
    assert fake.counts() == {("/universe/names", 404): 11, ("/universe/names", 200): 10}


def test_names_of_ids_that_nobody_asked_for_and_what_is_no_name_are_left_out(fake, esi):
    rows = [
        {"category": "character", "id": PILOT, "name": "Pilot"},
        {"category": "character", "id": 666, "name": "Intruder"},
        *({"category": "character", "id": OTHER, "name": name} for name in ("", "a\0b", "\ud800", "x" * 256, 5, None)),
        "nonsense",
        {"category": "character", "name": "Nobody"},
    ]
    fake.fail("/universe/names", Fault(200, json.dumps(rows).encode()))
    names = esi.fetch_names([PILOT, OTHER])
    assert (names, names.unknown) == ({PILOT: Name("Pilot", "character")}, {OTHER})


def test_names_that_came_in_time_are_returned_though_others_did_not(fake, esi, monkeypatch):
    """On a clock on which nothing passes but what the questions take: the first half a second, the others all."""
    first = [{"category": "inventory_type", "id": number, "name": f"Thing {number}"} for number in range(1001, 2001)]
    fake.fail("/universe/names", Fault(200, json.dumps(first).encode()))
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    for module in (esi_module, esi_questions):
        monkeypatch.setattr(module, "time", clock)
    given, send = [], Questions._send

    def slow(self, question, etag, seconds):
        given.append(seconds)
        clock.now += 0.5 if len(given) == 1 else seconds
        if len(given) > 1:
            raise UpstreamUnreachable("no complete answer")
        return send(self, question, etag, 60.0)

    monkeypatch.setattr(Questions, "_send", slow)
    names = esi.fetch_names(range(1, 2001), within=2.0)
    assert (len(names), names.unknown, type(names.cut_short_by)) == (1000, set(), UpstreamUnreachable)
    with pytest.raises(UpstreamUnreachable):
        esi.fetch_names(range(1, 2001), within=2.0)
    assert given == [2.0, 1.5, 2.0]


# Who and where


def test_affiliations_are_today_s_and_halved_as_names_are(fake, esi):
    assert esi.fetch_affiliations([PILOT, UNKNOWN]) == [Affiliation(PILOT, 98000001, 99000001, 500001)]
    fake.world.characters[PILOT] = {"name": "Pilot", "corporation_id": 98000009}
    assert esi.fetch_affiliations([PILOT]) == [Affiliation(PILOT, 98000009, None, None)]


def test_records_hold_what_esi_tells(fake, esi):
    fake.world.types |= {587: RIFTER, 34: {"name": "Tritanium", "group_id": 18}}
    fake.world.groups[25] = {"name": "Frigate", "category_id": 6}
    fake.world.categories[6] = {"name": "Ship"}
    fake.world.systems[30000142] = {"name": "Jita", "constellation_id": 20000020, "security_status": 0.945913}
    fake.world.constellations[20000020] = {"name": "Kimotoro", "region_id": 10000002}
    fake.world.regions[10000002] = {"name": "The Forge"}
    assert esi.fetch_corporation(98000001) == CorporationRecord("Corporation 98000001", "C0001", 99000001, 500001)
    assert esi.fetch_alliance(99000001) == AllianceRecord("Alliance 99000001", "A0001")
    assert esi.fetch_type(587) == TypeRecord("Rifter", 25, 64, 1, None, True)
    assert esi.fetch_type(34) == TypeRecord("Tritanium", 18, None, None, None, False)
    assert esi.fetch_group(25) == GroupRecord("Frigate", 6)
    assert esi.fetch_category_name(6) == "Ship"
    assert esi.fetch_solar_system(30000142) == SolarSystemRecord("Jita", 20000020, 0.945913)
    assert esi.fetch_constellation(20000020) == ConstellationRecord("Kimotoro", 10000002)
    assert esi.fetch_region_name(10000002) == "The Forge"
    assert fake.violations == []


def test_what_esi_does_not_know_is_none(esi):
    asked = (esi.fetch_corporation, esi.fetch_alliance, esi.fetch_type, esi.fetch_group, esi.fetch_solar_system)
    assert [fetch(123456) for fetch in asked] == [None] * 5
    assert (esi.fetch_price_history(123456), esi.fetch_average_prices()) == ([], {})


# Prices


def test_prices_are_to_a_hundredth_and_those_that_cannot_be_are_left_out(fake, esi):
    days = [
        {"date": "2026-11-02", "average": 5.255},
        {"date": "2026-11-01", "average": 5},
        {"date": "2026-11-03", "average": -1.0},
        {"date": "2026-11-04", "average": 1e16},
        {"date": "2026-11-05", "average": "7"},
        {"date": "yesterday", "average": 7.0},
        {"average": 7.0},
        {"date": "2026-11-06"},
    ]
    fake.world.history[10000002, 34] = days
    fake.world.prices = [
        {"type_id": 34, "average_price": 4.999, "adjusted_price": 3.0},
        {"type_id": 35, "adjusted_price": 3.0},
        {"type_id": -1, "average_price": 4.0},
        {"type_id": 36, "average_price": -4.0},
    ]
    assert esi.fetch_price_history(34) == [
        DayPrice(date(2026, 11, 1), Decimal("5.00")),
        DayPrice(date(2026, 11, 2), Decimal("5.26")),
    ]
    assert esi.fetch_average_prices() == {34: Decimal("5.00")}
    assert fake.asked[0].path == "/markets/10000002/history?type_id=34"


# Killmails


def test_killmail_comes_as_it_was_sent(fake, esi):
    body = esi_body(1)
    assert json.loads(esi.fetch_killmail(1, killmail_hash(body))) == body
    assert fake.asked[0].headers["X-Compatibility-Date"] == "2026-08-18"
    assert "tests@example.com" in fake.asked[0].headers["User-Agent"]


def test_e1_wrong_pair_of_id_and_hash_is_final_and_asked_once(fake, esi):
    with pytest.raises(EsiUnknown) as caught:
        esi.fetch_killmail(1, "0" * 40)
    assert (caught.value.status, fake.counts()) == (422, {("/killmails/1", 422): 1})
    assert esi.budget.told()["left"]["killmail"] == 3595


@pytest.mark.parametrize("wrong", ["CCP VERIFIED", "a/../b", ""])
def test_hash_that_is_none_is_not_asked_for(fake, esi, wrong):
    with pytest.raises(EsiUnknown):
        esi.fetch_killmail(107220741, wrong)
    assert fake.asked == []


def test_another_killmail_than_that_asked_for_is_refused(fake, esi):
    fake.fail("/killmails", Fault(200, json.dumps(esi_body(2)).encode()))
    with pytest.raises(Unacceptable, match="killmail_id: is 2, not 1") as caught:
        esi.fetch_killmail(1, killmail_hash(esi_body(1)))
    assert caught.value.reason is Reason.BAD_FIELD


@pytest.mark.parametrize(
    "body", [b'{"error": "no"}', b'{"killmail_id": 2}', b"[]", b"null", b"<html>", b'{"killmail_id": 1' + b" " * 5000]
)
def test_body_that_cannot_be_accepted_is_kept_for_the_quarantine(fake, esi, body):
    fake.fail("/killmails", Fault(200, body))
    with pytest.raises(Unacceptable) as caught:
        esi.fetch_killmail(1, killmail_hash(esi_body(1)))
    assert caught.value.raw == body


# Pages


def test_all_pages_of_a_war_are_read(fake, esi):
    fake.world.killmails = {number: esi_body(number) for number in range(1, 4002)}
    refs = esi.fetch_war_killmails(700001)
    assert refs[0] == KillmailRef(1, killmail_hash(esi_body(1)))
    assert [ref.killmail_id for ref in refs] == list(range(1, 4002))
    assert [one.path for one in fake.asked] == [f"/wars/700001/killmails{page}" for page in ("", "?page=2", "?page=3")]
    assert esi.fetch_war_killmails(1) == []


@pytest.mark.parametrize(("told", "read"), [("abc", 1), ("-1", 1), ("1000000000", 100), ("9" * 400, 100)])
def test_e10_number_of_pages_that_cannot_be_is_bounded_and_logged(fake, esi, caplog, told, read):
    page = json.dumps([{"killmail_id": 1, "killmail_hash": "a" * 40}]).encode()
    fake.fail("/wars", Fault(200, page, headers={"X-Pages": told}), times=0)
    assert len(esi.fetch_war_killmails(700001)) == read
    assert f"as ESI says; {read} are read" in caplog.text


def test_page_that_fails_fails_them_all(fake, esi, quick):
    page = json.dumps([{"killmail_id": 1, "killmail_hash": "a" * 40}]).encode()
    fake.fail("/wars", Fault(200, page, headers={"X-Pages": "2"}))
    fake.fail("/wars", Fault(500), times=0)
    with pytest.raises(UpstreamRefused, match="500"):
        esi.fetch_war_killmails(700001)


# Answers that are wrong


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"error": "x"}', Reason.BAD_FIELD),
        (b"[]", Reason.BAD_FIELD),
        (b"null", Reason.BAD_FIELD),
        (b"<html>", Reason.NOT_JSON),
        (b"", Reason.NOT_JSON),
        (b'{"name": ', Reason.BAD_JSON),
    ],
)
def test_e5_answer_of_another_shape_is_refused(fake, esi, body, reason):
    fake.fail("/corporations", Fault(200, body))
    with pytest.raises(Unacceptable) as caught:
        esi.fetch_corporation(98000001)
    assert (caught.value.reason, len(fake.asked)) == (reason, 1)


def test_e5_error_in_the_place_of_a_list_is_refused(fake, esi):
    fake.fail("/universe/names", Fault(200, b'{"error": "x"}'))
    with pytest.raises(Unacceptable, match="BAD_FIELD"):
        esi.fetch_names([PILOT])


def test_gzip_bomb_is_left_at_the_cap(fake, esi):
    fake.fail("/universe", Fault(200, headers={"Content-Encoding": "gzip"}, stream=lambda: gzip_bomb(2**30)))
    with pytest.raises(Unacceptable, match=f"TOO_LARGE: the body exceeds {BODY_CAP} bytes"):
        esi.fetch_names([PILOT])
    fake.fail("/universe", Fault(200, b"no gzip", headers={"Content-Encoding": "gzip"}))
    with pytest.raises(Unreadable):
        esi.fetch_names([PILOT])
    packed = gzip.compress(json.dumps([{"category": "character", "id": PILOT, "name": "Pilot"}]).encode())
    fake.fail("/universe", Fault(200, packed, headers={"Content-Encoding": "gzip"}))
    assert esi.fetch_names([PILOT]) == {PILOT: Name("Pilot", "character")}


# ESI in trouble


def test_e4_502_is_asked_five_times_with_growing_pauses(fake, esi, monkeypatch):
    pauses = []
    monkeypatch.setattr(esi_questions.time, "sleep", pauses.append)
    fake.fail("/alliances", Fault(), times=0)
    with pytest.raises(UpstreamRefused, match="502"):
        esi.fetch_alliance(99000001)
    assert fake.counts() == {("/alliances/99000001", 502): 5}
    assert [0.5 <= pause / (0.25 * 2**n) <= 1.5 for n, pause in enumerate(pauses)] == [True] * 4
    assert len(set(pauses)) == 4


def test_e4_answer_after_two_502_is_the_answer(fake, esi, quick):
    fake.fail("/alliances", Fault(), times=2)
    assert esi.fetch_alliance(99000001) == AllianceRecord("Alliance 99000001", "A0001")
    assert fake.counts() == {("/alliances/99000001", 502): 2, ("/alliances/99000001", 200): 1}


def test_downtime_is_met_with_single_questions_that_come_ever_less_often(fake, esi, quick):
    esi.budget._store._now = Clock()  # else a busy machine may be let ask again
    fake.go_down(600)
    with pytest.raises(UpstreamRefused, match="503"):
        esi.fetch_alliance(99000001)
    for _ in range(20):
        with pytest.raises(BudgetSpent, match="ESI is down") as caught:
            esi.fetch_names([PILOT])
    assert 0 < caught.value.retry_after <= 1
    assert len(fake.asked) == 5


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [("37", 37, 37), (None, 60, 60), ("soon", 60, 60), ("date", 70, 90)],
)
def test_e3_429_is_obeyed_by_its_retry_after(fake, esi, header, least, most):
    if header == "date":
        header = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    fake.fail("/killmails", Fault(429, b"{}", headers={"Retry-After": header} if header else {}))
    with pytest.raises(UpstreamRefused) as caught:
        esi.fetch_killmail(1, killmail_hash(esi_body(1)))
    assert least <= caught.value.retry_after <= most
    with pytest.raises(BudgetSpent, match="ESI has stopped killmail") as caught:
        esi.fetch_killmail(1, killmail_hash(esi_body(1)))
    assert least - 20 < caught.value.retry_after <= most
    assert len(fake.asked) == 1
    assert esi.fetch_names([PILOT])  # the other groups are not concerned


def test_e3_429_of_a_route_without_a_group_stops_that_route(fake, esi):
    fake.fail("/corporations", Fault(429, b"{}", headers={"Retry-After": "37"}))
    with pytest.raises(UpstreamRefused):
        esi.fetch_corporation(98000001)
    with pytest.raises(BudgetSpent, match="/corporations"):
        esi.fetch_corporation(98000002)
    assert esi.fetch_alliance(99000001)


def test_e2_420_stops_every_route_until_the_reset(fake, esi):
    fake.fail(
        "/alliances", Fault(420, b"{}", headers={"X-Esi-Error-Limit-Remain": "0", "X-Esi-Error-Limit-Reset": "41"})
    )
    with pytest.raises(UpstreamRefused) as caught:
        esi.fetch_alliance(99000001)
    assert (caught.value.status, caught.value.retry_after) == (420, 41.0)
    for fetch in (lambda: esi.fetch_killmail(1, "0" * 40), lambda: esi.fetch_names([PILOT]), esi.fetch_average_prices):
        with pytest.raises(BudgetSpent, match="ESI has stopped us") as spent:
            fetch()
        assert 20 < spent.value.retry_after <= 42
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    "fault", [Fault(silent_for=30), Fault(200, b"x" * 1000, drip=0.05)], ids=["e6 silence", "e7 drip"]
)
def test_answer_that_takes_too_long_is_left_at_the_deadline(fake, esi, fault, monkeypatch):
    assert esi_questions.DEADLINE == 15.0
    monkeypatch.setattr(esi_questions, "DEADLINE", 0.5)
    fake.fail("/alliances", fault, times=0)
    began = time.monotonic()
    with pytest.raises(UpstreamUnreachable):
        esi.fetch_alliance(99000001)
    assert 0.4 < time.monotonic() - began < 14  # and not 15
    assert len(fake.asked) <= 1  # where the machine is busy, the time may be over before it is asked at all


def test_e8_redirect_is_not_followed(fake, esi):
    fake.fail("/alliances", Fault(302, b"", headers={"Location": "http://169.254.169.254/latest/meta-data/"}))
    with pytest.raises(UpstreamRefused, match="302"):
        esi.fetch_alliance(99000001)
    assert len(fake.asked) == 1
