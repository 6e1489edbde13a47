"""The fake ESI: it knows what it is given, keeps ESI's limits to the letter, and misbehaves as it is told."""

import http.client
import json
import time
from email.utils import parsedate_to_datetime
from types import SimpleNamespace

import pytest

from killmails.fake_eve import FakeEsi, Fault, World, server
from killmails.recording.tape import killmail_hash
from tests.builders import esi_body

HEADERS = {"User-Agent": "tests", "X-Compatibility-Date": "2026-08-18"}
PILOT = 2100000001


@pytest.fixture
def fake():
    world = World(types={34: {"name": "Tritanium", "group_id": 18}}, history={(10000002, 34): []})
    world.add_killmails([esi_body(1)])
    with FakeEsi(world, groups={"killmail": (10, 900), "status": (10, 60)}) as fake:
        stop_clock(fake)
        yield fake


def stop_clock(fake: FakeEsi) -> None:
    """ESI's seconds are those of `fake.clock.at` from now on, however long the test takes."""
    fake.clock.at = 0.0
    fake.clock.now = lambda: fake.clock.at


def ask(fake: FakeEsi, path: str, body: object = None, **headers: str):
    """Status, body as it is read, and headers in small letters; 0 where the connection ended."""
    host = fake.url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, text, HEADERS | headers)
        response = connection.getresponse()
        raw = response.read()
        told = {name.lower(): value for name, value in response.getheaders()}
        return response.status, json.loads(raw) if raw[:1] in (b"{", b"[") else raw, told
    except http.client.RemoteDisconnected:
        return 0, b"", {}
    finally:
        connection.close()


# What it knows


def test_names_come_for_known_ids_and_one_unknown_id_fails_them_all(fake):
    assert ask(fake, "/universe/names", [34, PILOT])[:2] == (
        200,
        [
            {"category": "inventory_type", "id": 34, "name": "Tritanium"},
            {"category": "character", "id": PILOT, "name": "Character 2100000001"},
        ],
    )
    status, body, _ = ask(fake, "/universe/names", [34, 35])
    assert (status, body["error"]) == (404, "Ensure all IDs are valid before resolving.")


@pytest.mark.parametrize("ids", [[], [34, 34], [0], ["34"], [True], {"ids": 34}, list(range(1, 1002))])
def test_names_want_one_to_a_thousand_different_ids(fake, ids):
    assert ask(fake, "/universe/names", ids)[0] == 400


def test_killmail_wants_its_hash(fake):
    right = killmail_hash(esi_body(1))
    assert ask(fake, f"/killmails/1/{right}")[:2] == (200, esi_body(1))
    assert ask(fake, f"/killmails/1/{right[::-1]}")[:2] == (
        422,
        {"error": "Invalid killmail_id and/or killmail_hash"},
    )
    assert ask(fake, f"/killmails/2/{right}")[0] == 422


def test_what_it_does_not_know_is_404_and_a_slash_at_the_end_does_no_harm(fake):
    assert [ask(fake, f"/{place}/1")[0] for place in ("alliances", "corporations", "universe/types", "nowhere")] == [
        404
    ] * 4
    assert ask(fake, "/alliances/99000001/")[0] == 200
    assert ask(fake, "/markets/10000002/history?type_id=34")[0] == 200
    assert ask(fake, "/markets/10000002/history?type_id=35")[0] == 404
    assert ask(fake, "/markets/10000002/history")[0] == 400
    assert ask(fake, "/alliances/99000001", [1])[0] == 404  # no such method


def test_war_has_pages_and_none_after_the_last(fake):
    fake.world.killmails = {number: esi_body(number) for number in range(1, 2002)}
    status, first, headers = ask(fake, "/wars/700001/killmails")
    assert (status, len(first), headers["x-pages"]) == (200, 2000, "2")
    assert len(ask(fake, "/wars/700001/killmails?page=2")[1]) == 1
    assert ask(fake, "/wars/700001/killmails?page=3")[0] == 404


# Limits


def test_bucket_is_charged_by_status_and_then_empty(fake):
    right, wrong = f"/killmails/1/{killmail_hash(esi_body(1))}", "/killmails/1/0"
    told = []
    for path in (right, wrong, right, right):
        status, _, headers = ask(fake, path)
        told.append((status, headers["x-ratelimit-remaining"]))
    assert told == [(200, "8"), (422, "3"), (200, "1"), (200, "0")]
    assert fake.violations == []
    status, _, headers = ask(fake, right)
    assert (status, headers["x-ratelimit-limit"], headers["x-ratelimit-group"]) == (429, "10/15m", "killmail")
    assert headers["retry-after"] == "900"
    assert len(fake.violations) == 1
    assert ask(fake, "/status")[0] == 200  # another bucket


def test_tokens_come_back_one_window_later():
    with FakeEsi(groups={"status": (4, 60)}) as fake:
        stop_clock(fake)
        assert [ask(fake, "/status")[0] for _ in range(3)] == [200, 200, 429]
        fake.clock.at = 59.9
        assert ask(fake, "/status")[0] == 429
        fake.clock.at = 60.0
        assert ask(fake, "/status")[0] == 200


def test_a_hundred_errors_in_a_minute_close_all_routes_until_it_ends():
    with FakeEsi() as fake:
        stop_clock(fake)
        for _ in range(100):
            status, _, headers = ask(fake, "/alliances/1")
        assert (status, headers["x-esi-error-limit-remain"]) == (404, "0")
        status, _, headers = ask(fake, "/status")
        assert (status, headers["x-esi-error-limit-remain"]) == (420, "0")
        assert 0 < int(headers["x-esi-error-limit-reset"]) <= 60
        assert len(fake.violations) == 1
        fake.clock.at = 59.9
        assert ask(fake, "/status")[0] == 420
        fake.clock.at = 60.0
        assert ask(fake, "/status")[0] == 200


def test_routes_tell_of_one_limit_or_of_the_other(fake):
    assert "x-esi-error-limit-remain" in ask(fake, "/alliances/99000001")[2]
    limited = ask(fake, "/status")[2]
    assert "x-ratelimit-limit" in limited
    assert "x-esi-error-limit-remain" not in limited


def test_question_without_a_name_or_a_date_is_noted(fake):
    ask(fake, "/status", **{"User-Agent": "", "X-Compatibility-Date": "soon"})
    assert fake.violations == ["a question without a User-Agent", "a question without an X-Compatibility-Date"]


# What a cache needs


def test_unchanged_answer_is_304_and_one_asked_for_too_early_is_noted(fake):
    _, _, headers = ask(fake, "/alliances/99000001")
    dates = [parsedate_to_datetime(headers[name]) for name in ("expires", "date")]
    assert 3590 <= (dates[0] - dates[1]).total_seconds() <= 3600
    assert ask(fake, "/alliances/99000001", **{"If-None-Match": headers["etag"]})[:2] == (304, b"")
    fake.world.alliances[99000001]["name"] = "Other"
    assert ask(fake, "/alliances/99000001", **{"If-None-Match": headers["etag"]})[0] == 200
    assert fake.early == ["/alliances/99000001"] * 2


# Faults


def test_scripted_faults_come_in_turn_and_count_as_answers_do(fake):
    fake.fail("/alliances", Fault(503, b"<html>", headers={"Retry-After": "7"}), times=2)
    fake.fail("/", Fault(hang_up=True))
    first, second = ask(fake, "/alliances/99000001"), ask(fake, "/corporations/98000001")
    assert (first[0], first[1], first[2]["retry-after"], first[2]["x-esi-error-limit-remain"]) == (
        503,
        b"<html>",
        "7",
        "99",
    )
    assert second[0] == 0
    assert [ask(fake, "/alliances/99000001")[0] for _ in range(2)] == [503, 200]
    fake.fail("/", Fault(), times=0)
    assert [ask(fake, "/alliances/99000001")[0] for _ in range(3)] == [502] * 3
    fake.heal()
    assert ask(fake, "/alliances/99000001")[0] == 200
    assert fake.counts()["/alliances/99000001", 502] == 3


def test_fault_of_a_proxy_before_esi_costs_nothing(fake):
    fake.fail("/alliances", Fault(free=True))
    assert "x-esi-error-limit-remain" not in ask(fake, "/alliances/99000001")[2]
    assert ask(fake, "/alliances/1")[2]["x-esi-error-limit-remain"] == "99"


def test_downtime_is_told_in_esi_s_words_and_ends(fake, monkeypatch):
    clock = SimpleNamespace(now=1000.0, monotonic=lambda: clock.now, time=time.time)
    monkeypatch.setattr(server, "time", clock)
    fake.go_down(10)
    status, body, _ = ask(fake, "/status")
    assert (status, body["error"].startswith("ESI is currently in maintenance mode")) == (503, True)
    clock.now += 10
    assert ask(fake, "/status")[0] == 200


def test_server_that_has_ended_answers_no_more(fake):
    ask(fake, "/status")
    fake.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(fake, "/status")
