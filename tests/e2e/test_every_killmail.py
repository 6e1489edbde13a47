"""Every real killmail that we have (or the recording) goes the whole way, and comes out as it went in."""

import hashlib
import json
import sys
import urllib.request
import zlib
from pathlib import Path
from typing import Any

import psycopg
import pytest

from killmails.recording import server as recording_server
from killmails.recording.server import RecordingServer
from tests.builders import some_real_killmails
from tests.e2e.processes import ROOT, Board
from tests.e2e.subscribers import GqlSubscriber

pytestmark = [pytest.mark.e2e, pytest.mark.services]


def canonical(esi: dict[str, Any]) -> bytes:
    """One spelling of the same body: sorted, reals as reals, and without what the archive added to ESI's keys."""

    def real(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: real(entry, name) for name, entry in value.items()}
        if isinstance(value, list):
            return [real(entry) for entry in value]
        return float(value) if key in ("security_status", "x", "y", "z") else value

    body = {key: value for key, value in esi.items() if key != "killmail_hash"}
    return json.dumps(real(body), sort_keys=True).encode()


def as_esi(killmail: dict[str, Any]) -> dict[str, Any]:
    """ESI's body, put together from what a subscriber was told and from nothing else."""
    victim = {"damage_taken": killmail["victim"]["damageTaken"], "items": [item(i) for i in killmail["items"]]}
    victim |= ids(killmail["victim"]) | ({"position": killmail["position"]} if killmail["position"] else {})
    body = {
        "killmail_id": int(killmail["id"]),
        "killmail_time": killmail["time"].replace("+00:00", "Z"),
        "solar_system_id": int(killmail["solarSystem"]["id"]),
        "victim": victim,
        "attackers": [attacker(one) for one in killmail["attackers"]],
    }
    return body | {
        key: int(killmail[name]) for key, name in (("war_id", "warId"), ("moon_id", "moonId")) if killmail[name]
    }


def ids(holder: dict[str, Any]) -> dict[str, int]:
    names = {"character": "character", "corporation": "corporation", "alliance": "alliance", "faction": "faction"}
    names |= {"shipType": "ship_type", "weaponType": "weapon_type"}
    return {f"{key}_id": int(holder[name]["id"]) for name, key in names.items() if holder.get(name)}


def attacker(one: dict[str, Any]) -> dict[str, Any]:
    return ids(one) | {
        "damage_done": one["damageDone"],
        "final_blow": one["finalBlow"],
        "security_status": one["securityStatus"],
    }


def item(one: dict[str, Any]) -> dict[str, Any]:
    fields = {"item_type_id": int(one["itemType"]["id"]), "flag": one["flag"], "singleton": one["singleton"]}
    for name, key in (("quantityDropped", "quantity_dropped"), ("quantityDestroyed", "quantity_destroyed")):
        fields |= {key: one[name]} if one[name] is not None else {}
    return fields | ({"items": [item(inner) for inner in one["items"]]} if one["items"] else {})


def test_every_killmail_comes_out_as_it_went_in(services_board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    killmails = some_real_killmails()
    monkeypatch.setattr(recording_server, "REQUESTS_PER_SECOND", 10_000)
    with RecordingServer(killmails, rate=0) as feed:
        feed.publish(killmails[0])  # the feed begins at the pointer, which is at the first
        services_board.env |= {"R2Z2_URL": feed.url, "DJANGO_SETTINGS_MODULE": "killboard.settings"}
        services_board.env["PYTHONPATH"] = str(ROOT)
        services_board.uvicorn()
        subscriber = GqlSubscriber(services_board.websocket_url, len(killmails))
        follower = services_board.start("feed", sys.executable, str(Path(__file__).with_name("fast_feed.py")))
        follower.wait_for("Sequence 1:")
        for killmail in killmails[1:]:
            feed.publish(killmail)
        events = subscriber.finish(240)[1:]
        served = served_bytes(feed, len(killmails))
    assert len(events) == len(killmails)
    for event, killmail in zip(events, killmails, strict=True):
        assert canonical(as_esi(event["killmail"])) == canonical(killmail["esi"]), killmail["killmail_id"]
        assert event["killmail"]["hash"] == killmail["hash"]
        if killmail["zkb"]:  # what comes without a block is reckoned by our own prices: test_values.py
            assert event["killmail"]["totalValue"] == killmail["zkb"].get("totalValue")
    with psycopg.connect(services_board.env["DATABASE_URL"]) as connection:
        query = "SELECT killmail_id, deflated FROM killmails_killmailpackage"
        stored = {id_: hashlib.sha256(zlib.decompress(raw)).hexdigest() for id_, raw in connection.execute(query)}
    assert stored == served


def served_bytes(feed: RecordingServer, count: int) -> dict[int, str]:
    """The hash of each package as the feed serves it, by the killmail's id."""
    hashes = {}
    for sequence in range(1, count + 1):
        request = urllib.request.Request(f"{feed.url}/ephemeral/{sequence}.json", headers={"User-Agent": "tests"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            raw = answer.read()
        hashes[json.loads(raw)["killmail_id"]] = hashlib.sha256(raw).hexdigest()
    return hashes
