"""Prices by day: from files and from EVE Ref, and what killmails without zKillboard's block come to with them."""

import bz2
import threading
import time
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.test.utils import CaptureQueriesContext

from killboard.engine import engine
from killmails.errors import BadPrices
from killmails.fake_eve import Fault
from killmails.ingest import esi as process_esi
from killmails.ingest import prices
from killmails.ingest.store import change_killmail, store_killmail
from killmails.ingest.values import revalued
from killmails.models import Blueprint, InventoryGroup, InventoryType, Killmail, KillmailEvent, MarketGroup, Price
from killmails.records import parse_package
from killmails.tasks import load_newest_prices
from killmails.upstream.budget import Budget, MemoryStore
from killmails.upstream.budget_rules import Report
from killmails.upstream.esi_answers import DayPrice, read_average_prices, read_history
from killmails.valuation import valuate
from tests.builders import NOW, attacker, esi_body, raw_package

pytestmark = pytest.mark.django_db

HEAD = "average,date,highest,lowest,order_count,volume,http_last_modified,region_id,type_id\n"
DAY = date(2026, 11, 20)
RIFTER, TRITANIUM = 587, 34


def line(average="1.5", day=DAY, region=10000002, type_id=TRITANIUM):
    return f"{average},{day},9,1,10,100,2026-11-21T11:05:00Z,{region},{type_id}\n"


def read(*lines, head=HEAD):
    return prices.read_market_history((head + "".join(lines)).encode(), "file.csv")


def test_rows_of_the_forge_are_read_packed_or_not():
    text = (HEAD + line() + line("7", region=10000043) + line("2500000.123", type_id=RIFTER)).encode()
    expected = [(DAY, TRITANIUM, Decimal("1.5")), (DAY, RIFTER, Decimal("2500000.123"))]
    assert prices.read_market_history(text, "file") == expected
    assert prices.read_market_history(bz2.compress(text), "file") == expected
    assert prices.read_market_history(b"\xef\xbb\xbf" + text, "file") == expected


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ([line(), line("-1")], "line 3: -1 ISK is no price"),
        ([line("0")], "line 2: 0 ISK is no price"),
        ([line("1e15")], "ISK is no price"),
        ([line("NaN")], "line 2: NaN ISK is no price"),
        ([line("Infinity")], "ISK is no price"),
        ([line("many")], "line 2: has no date, type or average that could be read"),
        ([line(day="2026-13-01")], "line 2: has no date, type or average"),
        ([line(type_id="x")], "line 2: has no date, type or average"),
        ([line(type_id=-5)], "line 2: -5 is no type"),
        (["1.5,2026-11-20,9,1,10,100,x,10000002\n"], "line 2: has no date, type or average"),
    ],
)
def test_row_that_is_wrong_is_named_with_its_line(lines, told):
    with pytest.raises(BadPrices, match=told):
        read(*lines)


@pytest.mark.parametrize(("isk", "is_price"), [("999999999999999.5", True), (f"{10**15}", False), ("1e15", False)])
def test_esi_and_everef_have_the_same_limit_of_prices(isk, is_price):
    found = [
        read_history(b'[{"date": "2026-11-20", "average": %s}]' % isk.encode()),
        read_average_prices(b'[{"type_id": 34, "average_price": %s}]' % isk.encode()),
    ]
    with nullcontext() if is_price else pytest.raises(BadPrices, match="ISK is no price"):
        found.append(read(line(isk)))
    price = Decimal(isk)
    expected = [[DayPrice(DAY, price)], {TRITANIUM: price}, [(DAY, TRITANIUM, price)]]
    assert found == (expected if is_price else [[], {}])


def test_file_that_is_none_is_refused():
    packed = bz2.compress((HEAD + line() * 1000).encode())
    for raw, told in (
        (b"", "line 1: must name the columns"), (b"a,b\n1,2\n", "line 1: must name the columns"),
        (packed[:-20], "is cut short"), (b"BZh9 nonsense", "is neither CSV"), (b"\xff\xfe\x00", "is neither CSV"),
        (b"<html>", "must name the columns"),
    ):  # fmt: skip
        with pytest.raises(BadPrices, match=f"file.csv.*{told}"):
            prices.read_market_history(raw, "file.csv")


def test_file_that_grows_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(prices, "UNPACKED", 10_000)
    with pytest.raises(BadPrices, match="exceeds 10000 bytes"):
        prices.read_market_history(bz2.compress((HEAD + line() * 1000).encode()), "file")


def test_prices_are_stored_once_and_a_newer_word_replaces_them():
    assert prices.store_prices(read(line(), line("3", type_id=RIFTER))) == 2
    assert prices.store_prices(read(line("2.005"))) == 1
    stored = dict(Price.objects.values_list("item_type_id", "average"))
    assert stored == {TRITANIUM: Decimal("2.00"), RIFTER: Decimal("3.00")}


# The command


class FakeEveRef(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = {}, []

    def put(self, day, *lines):
        path = f"/market-history/{day:%Y}/market-history-{day}.csv.bz2"
        self.files[path] = bz2.compress((HEAD + "".join(lines)).encode())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        body = self.server.files.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def everef(settings):
    with FakeEveRef() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        settings.PRICES_URL = f"http://127.0.0.1:{server.server_address[1]}"
        yield server
        server.shutdown()
        thread.join()


def loaded():
    return sorted(Price.objects.values_list("day", "item_type_id").order_by("day"))


def test_missing_days_are_loaded_and_no_day_twice(everef, capsys):
    everef.put(DAY, line(), line(type_id=RIFTER), line(day=DAY - timedelta(days=400), type_id=7))
    everef.put(DAY + timedelta(days=1), line(day=DAY + timedelta(days=1)))
    arguments = ("load_prices", "--from=2026-11-20", "--to=2026-11-22")
    call_command(*arguments)
    assert loaded() == [(DAY, TRITANIUM), (DAY, RIFTER), (DAY + timedelta(days=1), TRITANIUM)]
    assert len(everef.asked) == 3
    assert "2026-11-22: EVE Ref has no file (yet)" in capsys.readouterr().out
    call_command(*arguments)
    assert everef.asked[3:] == ["/market-history/2026/market-history-2026-11-22.csv.bz2"]


def test_files_are_loaded_all_or_none(tmp_path, capsys):
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text(HEAD + line()), bad.write_text(HEAD + line("-1"))
    with pytest.raises(CommandError, match=r"bad.csv line 2: -1 ISK is no price") as refused:
        call_command("load_prices", "--file", str(good), str(bad))
    assert (refused.value.returncode, Price.objects.count()) == (2, 0)
    call_command("load_prices", "--file", str(good))
    assert loaded() == [(DAY, TRITANIUM)]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--from=abc"], "--from abc: is no day like 2026-11-01"),
        (["--to=2026-13-01"], "--to 2026-13-01: is no day"),
        (["--from=2026-11-20", "--to=2026-11-19"], "must be days in order"),
        (["--from=1999-01-01"], "from 2003-10-01 to today"),
        (["--to=2099-01-01"], "to today"),
        (["--file", "/no/such/file"], "--file /no/such/file: No such file or directory"),
        (["--file", "/"], "--file /: Is a directory"),
    ],
)
def test_what_is_no_day_and_no_file_is_refused(arguments, told):
    with pytest.raises(CommandError, match=told) as refused:
        call_command("load_prices", *arguments)
    assert refused.value.returncode == 2


def test_upstream_that_is_away_is_told(settings):
    settings.PRICES_URL = "http://127.0.0.1:9"
    with pytest.raises(CommandError, match="no connection") as refused:
        call_command("load_prices")
    assert refused.value.returncode == 2


@pytest.fixture
def yesterday(monkeypatch):
    """Midnight does not come while the test runs."""
    now = datetime.now(UTC)
    monkeypatch.setattr(prices, "datetime", SimpleNamespace(now=lambda zone: now))
    return now.date() - timedelta(days=1)


def test_the_newest_days_come_by_themselves_once_it_has_begun(everef, settings, yesterday):
    settings.FEED = "live"
    everef.put(yesterday, line(day=yesterday))
    load_newest_prices()
    assert (everef.asked, loaded()) == ([], [])
    Price.objects.create(item_type_id=1, day=yesterday - timedelta(days=3), average=1, source="HISTORY")
    load_newest_prices()
    assert (yesterday, TRITANIUM) in loaded()
    assert len(everef.asked) == 3
    load_newest_prices()
    assert len(everef.asked) == 3


# From ESI


@pytest.fixture
def upstream(fake_esi, settings, monkeypatch):
    """What the command asks; the budget is this test's own."""
    settings.FEED, settings.ESI_URL = "live", fake_esi.url
    monkeypatch.setattr(process_esi, "_store", MemoryStore)
    monkeypatch.setattr(process_esi, "_kept", None)
    fake_esi.world.history[10000002, TRITANIUM] = [
        {"date": "2026-11-19", "average": 4.0}, {"date": "2026-11-20", "average": 2.0},
        {"date": "2026-11-18", "average": -1.0}, {"date": "2020-01-01", "average": 9.0},
    ]  # fmt: skip
    fake_esi.world.history[10000002, 3465] = [{"date": "2026-11-20", "average": 1e16}]
    fake_esi.world.prices = [{"type_id": RIFTER, "average_price": 1000.0}, {"type_id": 3465, "average_price": 50.0}]
    yield fake_esi
    monkeypatch.setattr(process_esi, "_kept", None)


def test_prices_of_what_is_named_come_from_esi(upstream, universe, capsys):
    before = store(1).total_value
    call_command("load_prices", "--esi", "--from=2026-11-19")
    today = datetime.now(UTC).date()
    assert sorted(Price.objects.values_list("item_type_id", "day", "average", "source")) == [
        (TRITANIUM, date(2026, 11, 19), Decimal(4), "ESI"), (TRITANIUM, date(2026, 11, 20), Decimal(2), "ESI"),
        (RIFTER, today, Decimal(1000), "AVERAGE"), (3465, today, Decimal(50), "AVERAGE"),
    ]  # fmt: skip
    assert "1 killmails come to something else now." in capsys.readouterr().out
    killmail = Killmail.objects.get()
    # 3 ISK was Tritanium's mean, and 2 its average of the day; 90 of it build the Damage Control.
    assert (before, killmail.total_value) == (None, Decimal(1000 + 180 + 50) + 5 * 10**9 * 2)
    hull = ask(ASK % 1)[0]["valueBasis"]["lines"][0]
    assert (hull["basis"], hull["unitPrice"], hull["day"], hull["days"]) == ("AVERAGE", 1000.0, str(today), 1)
    assert upstream.violations == []


def test_esi_is_asked_for_what_things_are_built_from_and_not_for_ships_of_attackers(upstream, universe):
    """A container that is only built, from parts that are only built, from a mineral."""
    Blueprint.objects.create(product_id=3465, quantity=1, materials=[[9001, 10]])
    Blueprint.objects.create(product_id=9001, quantity=1, materials=[[35, 1000]])
    upstream.world.history[10000002, 35] = [{"date": "2026-11-20", "average": 3.0}]
    upstream.world.prices = []
    container = {"item_type_id": 3465, "flag": 5, "singleton": 0, "quantity_destroyed": 1}
    store(1, victim=esi_body(1)["victim"] | {"items": [container]})
    call_command("load_prices", "--esi", "--from=2026-11-19")
    asked = {one.path.partition("type_id=")[2] for one in upstream.asked if "/history" in one.path}
    assert asked == {"587", "3465", "9001", "35"}
    # 9 of 900 of the mineral each; the ship has no price.
    assert Killmail.objects.get().total_value == 9 * 900 * 3 + Decimal("0.01")


def test_esis_average_is_for_what_was_never_sold_and_not_for_what_was_sold_before(upstream, universe):
    """Of the ship 40 days before `--from` are told, and one of two years ago; of the container that one alone."""
    days = [date(2026, 11, 1) - timedelta(days=number) for number in range(40)]
    old = {"date": "2024-11-01", "average": 1.0}
    upstream.world.history[10000002, RIFTER] = [*({"date": str(day), "average": 7.0} for day in days), old]
    upstream.world.history[10000002, 3465] = [old]
    store(1)
    call_command("load_prices", "--esi", "--from=2026-11-19")
    assert not Price.objects.filter(source="AVERAGE").exists()
    stored = Price.objects.filter(item_type_id=RIFTER, source="ESI").order_by("-day").values_list("day", flat=True)
    assert list(stored) == days[:34]  # as many as a killmail looks at
    hull, *_, container, _ = ask(ASK % 1)[0]["valueBasis"]["lines"]
    assert (hull["basis"], hull["unitPrice"], hull["day"]) == ("HISTORY", 7.0, "2026-11-01")
    assert container["basis"] == "UNKNOWN"


@pytest.fixture
def waits(upstream, monkeypatch):
    """The seconds that were waited for ESI; after them it takes questions again."""
    waits = []

    def go_on(seconds):
        waits.append(seconds)
        upstream.heal()
        process_esi.esi().budget = process_esi.esi()._questions.budget = Budget(MemoryStore())

    monkeypatch.setattr(time, "sleep", go_on)
    return waits


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (420, {"X-Esi-Error-Limit-Reset": "41"}, 41.0), (420, {}, 60.0),
        (429, {"Retry-After": "37"}, 37.0), (429, {"Retry-After": "0"}, 1.0), (429, {}, 60.0),
    ],
)  # fmt: skip
def test_limit_of_esi_is_waited_for(upstream, universe, capsys, waits, status, headers, seconds):
    store(1)
    upstream.fail("/markets", Fault(status, b"{}", headers=headers), times=0)
    call_command("load_prices", "--esi", "--from=2026-11-19")
    assert waits == [seconds]
    assert f"ESI's limits are reached; going on in {seconds:.0f} s." in capsys.readouterr().out
    assert Price.objects.filter(source="ESI").count() == 2


def test_budget_that_others_have_spent_is_waited_for(upstream, universe, waits):
    store(1)
    budget = process_esi.esi().budget
    budget.settle(budget.reserve("/status", None), Report(420, errors_left=0, errors_reset=3_600_000))
    call_command("load_prices", "--esi", "--from=2026-11-19")
    assert len(waits) == 1
    assert 0 < waits[0] <= 3_601
    assert Price.objects.filter(source="ESI").count() == 2


@pytest.mark.parametrize("status", [403, 401])
def test_what_is_no_limit_of_esi_is_told_at_once(upstream, universe, waits, status):
    store(1)
    upstream.fail("/markets", Fault(status, b"{}"), times=0)
    with pytest.raises(CommandError, match=f"status {status}") as refused:
        call_command("load_prices", "--esi", "--from=2026-11-19")
    assert (refused.value.returncode, waits) == (2, [])


def test_recording_is_not_priced_by_esi(settings):
    settings.FEED = "recorded"
    with pytest.raises(CommandError, match="A recording is not priced") as refused:
        call_command("load_prices", "--esi")
    assert refused.value.returncode == 2


# Killmails


@pytest.fixture
def universe():
    MarketGroup.objects.create(pk=1381), MarketGroup.objects.create(pk=64, parent_id=1381)
    for group, category in ((25, 6), (60, 7), (18, 4)):
        InventoryGroup.objects.create(pk=group, category_id=category)
    for id_, group, more in (
        (RIFTER, 25, {"rig_size": 1, "market_group_id": 64, "has_heat_damage": False}),
        (603, 25, {"rig_size": 1, "has_heat_damage": False}),
        (2048, 60, {"has_heat_damage": True, "meta_level": 5}), (3465, 60, {}), (TRITANIUM, 18, {}),
    ):  # fmt: skip
        InventoryType.objects.create(pk=id_, name=f"type {id_}", group_id=group, **more)
    Blueprint.objects.create(product_id=2048, quantity=1, materials=[[TRITANIUM, 100]])


def store(sequence, zkb=None, **changes):
    """A Rifter with a Damage Control, which was destroyed, and a container with 5 billion Tritanium, which dropped."""
    esi = esi_body(1000 + sequence, **changes)
    store_killmail(parse_package(raw_package(sequence, esi, zkb=zkb), sequence, NOW))
    return Killmail.objects.get(pk=1000 + sequence)


def put_prices():
    for type_id, isk in ((RIFTER, 1000), (TRITANIUM, 2), (3465, 50)):
        Price.objects.create(item_type_id=type_id, day=DAY, average=isk, source="HISTORY")


def test_killmail_without_zkillboards_block_is_reckoned_when_it_is_stored(universe):
    put_prices()
    killmail = store(1)
    assert killmail.values_by == "BOARD"
    # The Damage Control is not sold: 90 Tritanium build it.
    assert (killmail.destroyed_value, killmail.fitted_value) == (Decimal("1180.00"), Decimal("1180.00"))
    assert (killmail.dropped_value, killmail.total_value) == (Decimal("10000000050.00"), Decimal("10000001230.00"))
    assert (killmail.is_npc, killmail.is_solo, killmail.is_awox) == (False, False, False)
    assert killmail.points == 3  # (5 + 3) x 3/4, by two
    assert killmail.labels == ["tz:au", "cat:6", "#:2+", "pvp", "isk:10b+", "capital"]


def test_what_nothing_is_known_of_is_not_guessed():
    killmail = store(1)
    assert (killmail.values_by, killmail.total_value, killmail.points, killmail.labels) == ("BOARD", None, None, [])
    assert (killmail.is_npc, killmail.is_solo, killmail.is_awox) == (False, None, None)


def test_killmail_with_nulls_is_stored_and_read(universe):
    nulls = {"character_id": None, "corporation_id": None, "alliance_id": None, "faction_id": None}
    shooter = attacker(final_blow=True, ship_type_id=None, weapon_type_id=None, **nulls)
    killmail = store(1, victim=esi_body(1)["victim"] | nulls | {"items": None}, attackers=[shooter])
    assert (killmail.is_npc, killmail.points) == (True, 1)
    (read,) = ask("{ killmails(first: 1) { nodes { items { flag } fitting { dna } valueBasis { isNpc } } } }")
    assert read == {"items": [], "fitting": {"dna": "587::"}, "valueBasis": {"isNpc": True}}


def test_killmails_are_revalued_when_prices_come_and_subscribers_are_told_once(universe, tmp_path, capsys):
    before, kept = store(1).total_value, store(2, zkb={"npc": False, "totalValue": 7.0, "labels": []})
    file = tmp_path / "prices.csv"
    file.write_text(HEAD + line("2") + line("1000", type_id=RIFTER) + line("50", type_id=3465))
    for changed in (1, 0):
        call_command("load_prices", "--file", str(file))
        assert f"{changed} killmails come to something else now." in capsys.readouterr().out
    assert (before, Killmail.objects.get(pk=1001).total_value) == (None, Decimal("10000001230.00"))
    assert Killmail.objects.get(pk=1002).total_value == kept.total_value == 7
    events = list(KillmailEvent.objects.order_by("position").values_list("kind", "killmail_id"))
    assert events == [("ADDED", 1001), ("ADDED", 1002), ("UPDATED", 1001)]


def test_zkillboards_word_that_comes_meanwhile_is_not_written_over(universe):
    """Reckoned, then zKillboard's package came, then the reckoning would be written."""
    store(1)
    put_prices()
    ((killmail_id, columns),) = list(revalued(DAY))
    package = raw_package(2, esi_body(1001), zkb={"npc": False, "totalValue": 7.0, "labels": ["pvp"]})
    store_killmail(parse_package(package, 2, NOW))
    assert change_killmail(killmail_id, columns) is False
    killmail = Killmail.objects.get()
    assert (killmail.values_by, killmail.total_value, killmail.labels) == ("ZKILLBOARD", Decimal(7), ["pvp"])


def test_killmails_of_an_unknown_ship_are_valued_when_it_becomes_known():
    put_prices()
    assert store(1).points is None
    InventoryGroup.objects.create(pk=25, category_id=6), InventoryGroup.objects.create(pk=60, category_id=7)
    for id_, group in ((RIFTER, 25), (603, 25), (2048, 60), (3465, 60), (TRITANIUM, 18)):
        InventoryType.objects.filter(pk=id_).update(group=group, has_heat_damage=False)
    assert prices.revalue_newly_known() == 1
    assert (Killmail.objects.get().points, prices.revalue_newly_known()) == (1, 0)


def test_points_need_more_than_names_of_what_was_fitted(universe):
    InventoryType.objects.filter(pk=2048).update(has_heat_damage=None)
    assert store(1).points is None


@pytest.mark.parametrize(("type_id", "group"), [(603, None), (2048, None), (RIFTER, 25), (603, 25)])
def test_nothing_is_guessed_of_other_ships_and_of_modules_either(universe, type_id, group):
    """Unknown, or known by its name and group alone; the structure that it may be would change all of it."""
    InventoryType.objects.filter(pk=type_id).update(group=group, has_heat_damage=None)
    killmail = store(1)
    solo_is_known = group or type_id == 2048
    assert (killmail.points, killmail.is_solo, killmail.is_awox) == (None, False if solo_is_known else None, False)
    assert bool(killmail.labels) == bool(solo_is_known)
    InventoryType.objects.filter(pk=type_id).update(
        group=60 if type_id == 2048 else 25, has_heat_damage=type_id == 2048
    )
    assert prices.revalue_newly_known() == 1
    assert Killmail.objects.values_list("points", "is_solo").get() == (3, False)


def test_capsule_has_its_fixed_price_though_nothing_else_was_ever_sold(universe):
    InventoryGroup.objects.create(pk=29, category_id=6), InventoryType.objects.create(pk=670, group_id=29)
    victim = esi_body(1)["victim"] | {"ship_type_id": 670, "items": []}
    assert store(1, victim=victim).total_value == 10_000


def test_averages_of_esi_alone_do_where_they_tell_of_all_of_it(universe):
    """Else what has no price of that time would count as worthless."""
    Price.objects.create(item_type_id=3465, day=DAY, average=50, source="AVERAGE")
    bare = esi_body(1)["victim"] | {"items": []}
    assert (store(1).total_value, store(2, victim=bare).total_value) == (None, None)
    Price.objects.create(item_type_id=RIFTER, day=DAY, average=1000, source="AVERAGE")
    assert (store(3).total_value, store(4, victim=bare).total_value) == (None, 1000)


@pytest.mark.parametrize(("days", "basis", "isk"), [(0, "HISTORY", 7.0), (365, "HISTORY", 7.0), (366, "AVERAGE", 9.0)])
def test_prices_are_looked_for_365_days_back_whatever_their_number(universe, days, basis, isk):
    """zKillboard's span is their number: docs/values.md names the difference."""
    Price.objects.create(item_type_id=RIFTER, day=DAY - timedelta(days=days), average=7, source="HISTORY")
    Price.objects.create(item_type_id=RIFTER, day=DAY + timedelta(days=9), average=9, source="AVERAGE")
    store(1, victim=esi_body(1)["victim"] | {"items": []})
    hull = ask(ASK % 1)[0]["valueBasis"]["lines"][0]
    assert (hull["basis"], hull["unitPrice"]) == (basis, isk)


def test_what_is_built_from_what_is_built_has_the_same_price_in_any_company(universe):
    Blueprint.objects.create(product_id=3465, quantity=1, materials=[[9001, 10]])
    Blueprint.objects.create(product_id=9001, quantity=1, materials=[[TRITANIUM, 1000]])
    Price.objects.create(item_type_id=TRITANIUM, day=DAY, average=2, source="HISTORY")
    alone = esi_body(1001)
    other = esi_body(1002, victim=alone["victim"] | {"ship_type_id": 9001})
    expected = valuate({1001: alone})[1001].sums.total
    assert valuate({1001: alone, 1002: other})[1001].sums.total == expected
    # 9 of 900 Tritanium each; the Damage Control of 90; five billion of them inside.
    assert expected == Decimal("10000000000") + 9 * 900 * 2 + 180 + Decimal("0.01")


def test_sum_beyond_all_that_there_is_is_none_and_stops_nothing(universe):
    for type_id, isk in ((RIFTER, 9 * 10**14), (TRITANIUM, 9 * 10**14)):
        Price.objects.create(item_type_id=type_id, day=DAY, average=isk, source="HISTORY")
    killmail = store(1)
    assert (killmail.total_value, killmail.points) == (None, 3)


def test_one_bad_day_does_not_keep_the_next_ones_away(everef, settings, caplog, yesterday):
    settings.FEED = "live"
    Price.objects.create(item_type_id=1, day=yesterday - timedelta(days=2), average=1, source="HISTORY")
    everef.put(yesterday - timedelta(days=1), line("-5", day=yesterday - timedelta(days=1)))
    everef.put(yesterday, line(day=yesterday))
    load_newest_prices()
    assert (yesterday, TRITANIUM) in loaded()
    assert "line 2: -5 ISK is no price" in caplog.text


def test_prices_of_some_types_do_not_make_a_day_complete(everef):
    everef.put(DAY, line())
    Price.objects.create(item_type_id=RIFTER, day=DAY, average=1, source="ESI")
    assert prices.missing_days(DAY, DAY) == [DAY]
    call_command("load_prices", "--from=2026-11-20", "--to=2026-11-20")
    assert (prices.missing_days(DAY, DAY), len(loaded())) == ([], 2)


def test_the_third_of_the_same_in_a_quarter_of_an_hour_is_padding(universe):
    found = [store(number, killmail_time=f"2026-11-20T12:3{number}:00Z").labels for number in range(4)]
    assert ["padding" in labels for labels in found] == [False, False, True, True]
    assert "pvp" not in found[2]
    assert "padding" not in store(5, killmail_time="2026-11-20T12:45:00Z").labels
    other = [attacker(final_blow=True, character_id=2100000009)]
    assert "padding" not in store(6, killmail_time="2026-11-20T12:35:00Z", attackers=other).labels


def padded():
    return [number - 1000 for number, labels in Killmail.objects.values_list("pk", "labels") if "padding" in labels]


def test_losses_with_larger_ids_do_not_make_an_earlier_one_padding(universe):
    for number in (4, 3, 2):
        store(number)
    assert padded() == []
    store(5)
    assert padded() == [5]


@pytest.mark.parametrize(("group", "seconds"), [(25, 5), (31, 600)])  # a shuttle's slot is an hour
def test_padding_is_told_when_the_ship_becomes_known(universe, group, seconds):
    InventoryGroup.objects.get_or_create(pk=31, category_id=6)
    InventoryType.objects.filter(pk=RIFTER).update(group=None)
    for number in range(4):
        at = datetime(2026, 11, 20, 12, 0, tzinfo=UTC) + timedelta(seconds=number * seconds)
        assert store(number, killmail_time=at.strftime("%Y-%m-%dT%H:%M:%SZ")).labels == []
    InventoryType.objects.filter(pk=RIFTER).update(group=group)
    assert (prices.revalue_newly_known(), sorted(padded())) == (4, [2, 3])
    assert ["pvp" in killmail.labels for killmail in Killmail.objects.order_by("pk")] == [True, True, False, False]
    # Other reasons to reckon again leave it as it is.
    put_prices()
    assert (prices.revalue(DAY), sorted(padded())) == (4, [2, 3])


ASK = """{ killmails(first: %d) { nodes { valuesBy totalValue valueBasis {
    totalValue droppedValue destroyedValue fittedValue difference points isNpc isSolo isAwox labels
    lines { itemType { id name } flag quantity unitPrice basis day days value } } } } }"""


def ask(query):
    result = engine.result(engine.prepare(query, {}, None))
    assert not result.errors, result.errors
    return result.data["killmails"]["nodes"]


def test_basis_tells_every_price_and_the_difference_to_zkillboards_number(universe):
    put_prices()
    store(1, zkb={"npc": False, "totalValue": 10000001000.0, "labels": []})
    (killmail,) = ask(ASK % 1)
    assert (killmail["valuesBy"], killmail["totalValue"]) == ("ZKILLBOARD", 10000001000.0)
    basis = killmail["valueBasis"]
    assert (basis["totalValue"], basis["difference"], basis["fittedValue"]) == (10000001230.0, 230.0, 1180.0)
    assert (basis["points"], basis["isSolo"], basis["labels"][1]) == (3, False, "cat:6")
    day = {"day": "2026-11-20", "days": 1}
    hull, control, container, inside = basis["lines"]
    assert hull == {"itemType": {"id": "587", "name": "type 587"}, "flag": None, "quantity": 1, "unitPrice": 1000.0,
                    "basis": "HISTORY", **day, "value": 1000.0}  # fmt: skip
    assert (control["basis"], control["unitPrice"], control["day"], control["days"]) == ("BUILD", 180.0, None, 0)
    assert (container["flag"], container["value"]) == (5, 50.0)
    assert (inside["quantity"], inside["value"]) == (5_000_000_000, 1e10)


def test_25_killmails_take_as_many_queries_as_one_and_none_more_where_it_is_not_asked_for(universe):
    put_prices()
    for sequence in range(1, 26):
        store(sequence, killmail_time=f"2026-11-20T{sequence % 24:02}:00:00Z")
    counts = []
    for query in (ASK % 1, ASK % 25, "{ killmails { nodes { totalValue } } }"):
        with CaptureQueriesContext(connection) as queries:
            assert ask(query)
        counts.append(len(queries))
        read = sum("killmails_price" in one["sql"] for one in queries.captured_queries)
        assert read == 2 * ("valueBasis" in query)
    assert counts[0] == counts[1]
    assert counts[2] == 2
