"""The admin: what its lists and pages show, and what that costs."""

from decimal import Decimal

import pytest

from killmails import models
from killmails.admin import columns
from killmails.admin.killmails import FIRST_ATTACKERS
from killmails.admin.raw import SHOWN
from killmails.admin.readonly import CappedPaginator
from killmails.models import Killmail
from tests.killmails.admin_driver import (
    ADMIN,
    AMMO,
    CAPSULE,
    CONTAINER,
    JITA,
    KILLMAILS,
    MODELS,
    RIFTER,
    assert_no_page,
    listed,
    messages,
    package,
    page,
    queries_of,
    store,
)
from tests.realtime.staging import calls_of


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("0", "0.00"),
        ("999.99", "999.99"),
        ("1000", "1.00 k"),
        ("999999.99", "1.00 m"),
        ("1234567890.12", "1.23 b"),
        ("999999999", "1.00 b"),
        ("1000000000000", "1.00 t"),
        ("999999999999999", "1,000.00 t"),
    ],
)
def test_isk_are_shortened_as_players_write_them(value, text):
    assert columns.short_isk(Decimal(value)) == text


# The list of killmails.


@pytest.mark.django_db
def test_killmails_are_listed_newest_first(admin_client):
    for killmail_id, minutes in ((1, 5), (2, 9), (3, 1)):
        store(killmail_id, minutes=minutes)
    assert listed(admin_client, KILLMAILS) == [2, 1, 3]


@pytest.mark.django_db
def test_list_tells_time_ship_victim_system_value_attackers_and_flags(admin_client):
    store(attackers=3, npc=True, solo=True)
    models.InventoryType.objects.filter(pk=RIFTER).update(name="Rifter")
    models.Character.objects.filter(pk=90000001).update(name="Sigga")
    models.SolarSystem.objects.filter(pk=JITA).update(name="Jita")
    html = page(admin_client, KILLMAILS)
    for text in ("2026-11-23 11:00:00", "Rifter", "Sigga", "Jita", '<td class="field-attackers">3</td>'):
        assert text in html
    assert '<span class="isk" title="1,234,567,890.12 ISK">1.23 b</span>' in html
    assert '<span class="flag">NPC</span> <span class="flag">solo</span>' in html


@pytest.mark.django_db
def test_list_takes_as_many_queries_for_25_rows_as_for_1(admin_client):
    store(1)
    alone = len(queries_of(admin_client, KILLMAILS))
    for killmail_id in range(2, 26):
        store(killmail_id, system=JITA + killmail_id, ship=RIFTER + killmail_id)
    assert len(listed(admin_client, KILLMAILS)) == 25
    assert len(queries_of(admin_client, KILLMAILS)) == alone == 4  # session, user, count, rows


@pytest.mark.django_db
@pytest.mark.parametrize("name", MODELS)
def test_no_list_counts_a_whole_table(admin_client, name):
    counts = [row["sql"] for row in queries_of(admin_client, f"{ADMIN}/{name}/") if "COUNT(" in row["sql"]]
    assert len(counts) == 1
    assert f"LIMIT {CappedPaginator.limit}" in counts[0]
    assert "ORDER BY" not in counts[0]


@pytest.mark.django_db
def test_list_says_where_counting_ended(admin_client, monkeypatch):
    for killmail_id in range(1, 5):
        store(killmail_id)
    monkeypatch.setattr(CappedPaginator, "limit", 3)
    html = " ".join(page(admin_client, KILLMAILS).split())
    assert "the first 3 killmails; search or filter to reach the others" in html


@pytest.mark.django_db
def test_search_finds_a_killmail_by_its_whole_id(admin_client):
    store(12), store(123)
    assert listed(admin_client, KILLMAILS, q="12") == [12]
    assert listed(admin_client, KILLMAILS, q=" 123 ") == [123]
    assert listed(admin_client, KILLMAILS, q="1") == []


@pytest.mark.django_db
@pytest.mark.parametrize("text", ["rifter", "1; DROP", "-1", "1.0", "²", "١٢", "9" * 19, "9" * 5000, "'"])
def test_search_for_no_number_finds_nothing_and_says_so(admin_client, text):
    store(1)
    response = admin_client.get(KILLMAILS, {"q": text})
    assert list(response.context["cl"].result_list) == []
    assert messages(response) == ["Nothing was found: the search takes a number."]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"solar_system": "Jita"}, [1]),
        ({"solar_system": "jita "}, [1]),
        ({"solar_system": str(JITA)}, [1]),
        ({"solar_system": "Perimeter"}, [2]),
        ({"solar_system": "ji"}, [3, 1]),
        ({"solar_system": "Nowhere"}, []),
        ({"solar_system": "9" * 30}, []),
        ({"solar_system": "\x00"}, [3, 2, 1]),
        ({"solar_system": "%"}, []),
        ({"victim_ship_type": "Rifter"}, [2, 1]),
        ({"victim_ship_type": str(CAPSULE)}, [3]),
        ({"victim_ship_type": "rifter", "solar_system": "Jita"}, [1]),
        ({"is_npc__exact": "1"}, [2]),
        ({"is_solo__exact": "1"}, [3]),
        ({"is_awox__exact": "0"}, [3, 2, 1]),
        ({"victim_ship_type": "Rifter", "is_npc__exact": "0"}, [1]),
        ({"time__gte": "2026-11-23 11:02:00+00:00"}, [3, 2]),
    ],
)
def test_list_is_filtered_by_system_ship_flags_and_time(admin_client, query, found):
    store(1, minutes=1), store(2, minutes=2, system=30000144, npc=True)
    store(3, minutes=3, system=30000145, ship=CAPSULE, solo=True)
    for pk, name in ((JITA, "Jita"), (30000144, "Perimeter"), (30000145, "Jittery")):
        models.SolarSystem.objects.filter(pk=pk).update(name=name)
    for pk, name in ((RIFTER, "Rifter"), (CAPSULE, "Capsule")):
        models.InventoryType.objects.filter(pk=pk).update(name=name)
    assert listed(admin_client, KILLMAILS, **query) == found


@pytest.mark.django_db
def test_box_for_a_system_keeps_the_other_filters_and_says_what_it_found(admin_client):
    store(1)
    models.SolarSystem.objects.filter(pk=JITA).update(name="Jita")
    html = page(admin_client, KILLMAILS, solar_system="ji", is_npc__exact="0")
    assert '<input type="hidden" name="is_npc__exact" value="0">' in html
    assert "<bdi>Jita</bdi>" in html
    assert "Nothing has this name or id." in page(admin_client, KILLMAILS, solar_system="Nowhere")


@pytest.mark.django_db
@pytest.mark.parametrize(
    "query",
    ["time__gte=yesterday", "is_npc__exact=maybe", "time__isnull=x", "p=9999", "p=x", "o=9.9", "all=", "_facets=1"],
)
def test_nonsense_in_the_address_leads_back_to_the_list(admin_client, query):
    store(1)
    response = admin_client.get(f"{KILLMAILS}?{query}", follow=True)
    assert response.status_code == 200


@pytest.mark.django_db
@pytest.mark.parametrize("lookup", ["hash__regex=(a%2B)%2B", "victim_character__name__contains=a", "labels=x", "x=1"])
def test_address_filters_by_nothing_but_what_the_list_offers(admin_client, lookup):
    store(1)
    assert admin_client.get(f"{KILLMAILS}?{lookup}").status_code == 400


# The page of a killmail.


@pytest.mark.django_db
def test_page_shows_every_field(admin_client):
    store(attackers=2, labels=["pvp", "solo"], locationID=40009082, points=7, fittedValue=5.5)
    response = admin_client.get(f"{KILLMAILS}1/change/")
    shown = {name for _, options in response.context["adminform"].fieldsets for name in options["fields"]}
    told_otherwise = {
        "time": "when", "solar_system": "place", "constellation": "place", "region": "place",
        "position_x": "position", "position_y": "position", "position_z": "position", "fitted_value": "values",
        "dropped_value": "values", "destroyed_value": "values", "total_value": "values",
        "labels": "label_names", "uploaded_at": "uploaded", "stored_at": "stored",
    }  # fmt: skip
    columns_ = {field.name for field in Killmail._meta.concrete_fields}
    assert {told_otherwise.get(name, name) for name in columns_} <= shown
    html = response.content.decode()
    for text in ("pvp, solo", "40009082", "1,234,567,890.12 ISK", "x 2   y -2   z 300,000,000,000", "1795435200"):
        assert text in html
    assert 'name="_save"' not in html


@pytest.mark.django_db
def test_page_shows_items_with_what_is_in_them(admin_client):
    inner = {"item_type_id": AMMO, "flag": 0, "singleton": 2, "quantity_destroyed": 77}
    outer = {"item_type_id": CONTAINER, "flag": 5, "singleton": 0, "quantity_dropped": 1, "items": [inner]}
    store(items=[outer, {"item_type_id": AMMO, "flag": 27, "singleton": 0, "quantity_dropped": 40}])
    models.InventoryType.objects.filter(pk=AMMO).update(name="EMP S")
    response = admin_client.get(f"{KILLMAILS}1/change/")
    rows = response.context["items"].rows
    assert [(len(row.indent), row.item_type.pk, row.place, row.dropped, row.destroyed) for row in rows] == [
        (0, CONTAINER, "cargo", 1, None),
        (1, AMMO, "", None, 77),
        (0, AMMO, "high slot", 40, None),
    ]
    html = response.content.decode()
    assert "EMP S</a> <span class=\"flag\">copy</span>" in html  # fmt: skip
    assert html.count('<span class="indent"></span>') == 1


@pytest.mark.django_db
def test_page_shows_the_first_items_only(admin_client):
    store(items=[{"item_type_id": AMMO, "flag": 5, "singleton": 0, "quantity_dropped": 1}] * 501)
    response = admin_client.get(f"{KILLMAILS}1/change/")
    assert len(response.context["items"].rows) == 500
    assert "The first 500 items" in response.content.decode()


@pytest.mark.django_db
def test_page_without_a_package_still_opens(admin_client):
    store()
    models.KillmailPackage.objects.all().delete()
    assert '<p class="note">None.</p>' in page(admin_client, f"{KILLMAILS}1/change/")
    page(admin_client, f"{KILLMAILS}1/package/", status=404)


@pytest.mark.django_db
def test_page_of_3753_attackers_is_as_cheap_as_that_of_one(admin_client):
    items = [{"item_type_id": AMMO, "flag": 5, "singleton": 0, "quantity_dropped": 1}]
    store(1, items=items), store(2, items=items, attackers=3753)
    few = len(queries_of(admin_client, f"{KILLMAILS}1/change/"))
    many = len(queries_of(admin_client, f"{KILLMAILS}2/change/"))
    # session, user, killmail, final blow, package, types, attackers
    assert few == many == 7
    small, large = (calls_of(lambda id_=id_: page(admin_client, f"{KILLMAILS}{id_}/change/")) for id_ in (1, 2))
    assert large < 20 * small  # for the hundred that are shown, and not for all
    html = page(admin_client, f"{KILLMAILS}2/change/")
    assert html.count("has_original") == FIRST_ATTACKERS
    assert f'<a href="{ADMIN}/attacker/?killmail=2">All 3753 attackers</a>' in html
    assert "character 91003752, in inventory type 587" in html  # the final blow, far down the list


@pytest.mark.django_db
def test_all_attackers_of_a_killmail_are_listed_in_their_order(admin_client):
    store(1, attackers=2), store(2, attackers=450)
    response = admin_client.get(f"{ADMIN}/attacker/", {"killmail": "2", "p": "3"})
    assert [row.ordinal for row in response.context["cl"].result_list] == list(range(400, 450))
    assert len(queries_of(admin_client, f"{ADMIN}/attacker/?killmail=2")) == 4
    assert listed(admin_client, f"{ADMIN}/attacker/", killmail="3") == []
    for nonsense in ("x", "9" * 30, "-1"):
        assert admin_client.get(f"{ADMIN}/attacker/", {"killmail": nonsense}).status_code == 400


@pytest.mark.django_db
def test_package_is_shown_indented_and_given_away_byte_for_byte(admin_client):
    raw = package(labels=["<b>", "\u202e"])
    store(labels=["<b>", "\u202e"])
    html = page(admin_client, f"{KILLMAILS}1/package/")
    assert "  &quot;killmail_id&quot;: 1,\n" in html
    assert "&lt;b&gt;" in html
    assert "\\u202e" in html
    response = admin_client.get(f"{KILLMAILS}1/package/file/")
    assert response.content == raw
    assert_no_page(response, "killmail-1.json")


@pytest.mark.django_db
def test_package_is_shown_up_to_a_limit(admin_client):
    store(attackers=1000)
    response = admin_client.get(f"{KILLMAILS}1/package/")
    assert len(response.context["raw"].text) == SHOWN
    assert "only the first 64.0\xa0KB are shown" in response.content.decode()
