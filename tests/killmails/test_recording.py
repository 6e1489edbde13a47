"""The shipped recording, files of one's own, and the command that serves them."""

import http.client
import json
import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from killmails.errors import BadRecording
from killmails.recording.server import killmail_hash, load_recording

ROOT = Path(__file__).resolve().parents[2]
UNIVERSE = ROOT / "killmails" / "recording" / "universe.json"
AGENT = {"User-Agent": "killboard-tests (nobody@example.com)"}

# The hash


@pytest.mark.parametrize(
    ("victim", "final_blow", "ship", "killed", "expected"),
    [
        (696861884, 2116470606, 81008, "2026-01-07T13:37:34Z", "8ef20e05bcced7e543e113b0f33438fd16d664fa"),
        (None, 154193148, 12198, "2021-11-27T00:19:56Z", "25cddd4dfe9ceeb7e3c04682f83e5a1b35e02b50"),
        (2119359110, None, 670, "2021-11-27T00:01:48Z", "5adb1c66974eb42517d1289d1d1d02a87a0eb56e"),
    ],
)
def test_hash_of_a_body_is_the_one_that_ccp_gave(
    victim: int | None, final_blow: int | None, ship: int, killed: str, expected: str
) -> None:
    esi = {
        "killmail_time": killed,
        "victim": {"ship_type_id": ship} | ({"character_id": victim} if victim else {}),
        "attackers": [
            {"final_blow": False, "character_id": 1},
            {"final_blow": True} | ({"character_id": final_blow} if final_blow else {}),
        ],
    }
    assert killmail_hash(esi) == expected


# The shipped recording


def test_shipped_recording_holds_seventy_killmails_that_the_board_accepts() -> None:
    killmails = load_recording()
    assert len(killmails) == 70
    assert len({record["killmail_id"] for record in killmails}) == 70


def test_shipped_values_labels_and_hashes_agree_with_the_bodies() -> None:
    for record in load_recording():
        esi, zkb = record["esi"], record["zkb"]
        assert zkb["hash"] == record["hash"] == killmail_hash(esi)
        assert zkb["href"] == f"https://esi.evetech.net/killmails/{record['killmail_id']}/{record['hash']}/"
        assert zkb["attackerCount"] == len(esi["attackers"])
        assert abs(zkb["totalValue"] - zkb["droppedValue"] - zkb["destroyedValue"]) < 0.02
        assert zkb["fittedValue"] <= zkb["totalValue"] + 0.01
        assert sum(attacker["final_blow"] for attacker in esi["attackers"]) == 1
        assert sum(attacker["damage_done"] for attacker in esi["attackers"]) == esi["victim"]["damage_taken"]
        assert ("solo" in zkb["labels"]) is zkb["solo"]
        assert ("awox" in zkb["labels"]) is zkb["awox"]
        assert ("npc" in zkb["labels"]) is zkb["npc"]


def test_every_odd_kind_of_killmail_is_in_the_shipped_recording() -> None:
    killmails = load_recording()
    labels = {label for record in killmails for label in record["zkb"]["labels"]}
    bodies = [record["esi"] for record in killmails]
    victims = [esi["victim"] for esi in bodies]
    attackers = [attacker for esi in bodies for attacker in esi["attackers"]]
    items = [item for victim in victims for item in victim["items"]]
    assert labels >= {"cat:6", "cat:18", "cat:22", "cat:23", "cat:40", "cat:46", "cat:65", "cat:87"}
    assert labels >= {"loc:highsec", "loc:lowsec", "loc:nullsec", "loc:w-space", "loc:drifter", "loc:abyssal"}
    assert labels >= {
        "solo",
        "awox",
        "npc",
        "pvp",
        "capital",
        "ganked",
        "isk:1b+",
        "isk:5b+",
        "isk:10b+",
        "isk:100b+",
    }
    assert labels >= {"fw:calgal", "fw:amamin", "tz:usw", "tz:au", "tz:ru", "tz:eu", "tz:use"}
    assert max(len(esi["attackers"]) for esi in bodies) == 120
    assert max(len(victim["items"]) for victim in victims) > 250
    assert any("war_id" in esi for esi in bodies)
    assert any("moon_id" in esi for esi in bodies)
    assert any("position" not in victim for victim in victims)
    assert any(not victim["items"] for victim in victims)
    assert any("character_id" not in victim for victim in victims)
    assert any(victim["damage_taken"] == 0 for victim in victims)
    assert any(item["singleton"] == 2 for item in items)
    assert any(item.get("items") for item in items)
    assert any(
        attacker.keys() & {"faction_id", "character_id", "corporation_id"} == {"faction_id"} for attacker in attackers
    )
    assert any("ship_type_id" not in attacker for attacker in attackers)
    assert any(attacker["security_status"] > 5 for attacker in attackers)
    assert {type(attacker["security_status"]) for attacker in attackers} == {int, float}
    assert any(esi["attackers"][0].get("character_id") == esi["victim"].get("character_id", 0) for esi in bodies), (
        "a pilot who killed himself"
    )


TABLES = {
    "solar_system_id": "solar_systems",
    "character_id": "characters",
    "corporation_id": "corporations",
    "alliance_id": "alliances",
    "faction_id": "factions",
    "ship_type_id": "types",
    "weapon_type_id": "types",
    "item_type_id": "types",
}


def mentioned(thing: Any) -> set[tuple[str, int]]:
    """Every (table of the universe, id) that a piece of an ESI body mentions, at any depth."""
    if isinstance(thing, list):
        return {pair for part in thing for pair in mentioned(part)}
    if not isinstance(thing, dict):
        return set()
    own = {(TABLES[key], value) for key, value in thing.items() if key in TABLES}
    return own | mentioned(list(thing.values()))


def test_universe_names_exactly_what_the_shipped_killmails_mention() -> None:
    universe = json.loads(UNIVERSE.read_text(encoding="utf-8"))
    named = {(table, row["id"]) for table in set(TABLES.values()) for row in universe[table]}
    assert named == mentioned([record["esi"] for record in load_recording()])
    assert all(row["name"] for rows in universe.values() for row in rows)


@pytest.mark.parametrize(
    ("child", "key", "parent"),
    [
        ("types", "group_id", "groups"),
        ("groups", "category_id", "categories"),
        ("solar_systems", "constellation_id", "constellations"),
        ("constellations", "region_id", "regions"),
    ],
)
def test_universe_is_complete_upwards(child: str, key: str, parent: str) -> None:
    universe = json.loads(UNIVERSE.read_text(encoding="utf-8"))
    assert {row[key] for row in universe[child]} == {row["id"] for row in universe[parent]}


# Loading a file


def broken_line(change: str) -> bytes:
    record = load_recording()[0]
    match change:
        case "hash":
            record["hash"] = "0" * 40
        case "victim":
            del record["esi"]["victim"]
        case "other":
            record["killmail_id"] += 1
        case "no esi":
            del record["esi"]
    return json.dumps(record).encode()


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"{not json", "Expecting property name"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (broken_line("hash"), "HASH_MISMATCH"),
        (broken_line("victim"), "victim"),
        (broken_line("other"), "killmail_id"),
        (broken_line("no esi"), "esi missing"),
    ],
)
def test_wrong_line_is_refused_with_file_line_and_fault(tmp_path: Path, line: bytes, fault: str) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(json.dumps(load_recording()[0]).encode() + b"\n\n" + line + b"\n")
    with pytest.raises(BadRecording) as caught:
        load_recording(path)
    assert str(caught.value).startswith(f"{path}, line 3: ")
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRecording, match=r"cannot be read: "):
        load_recording(tmp_path / name)


def test_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_text("\n\n")
    with pytest.raises(BadRecording, match="holds no killmail"):
        load_recording(path)


# The command


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "manage.py"), "serve_recording", *arguments]


def environment(tmp_path: Path) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"}


def test_command_serves_until_ctrl_c(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command("--port", "0", "--rate", "100"),
        cwd=ROOT,
        env=environment(tmp_path),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        url = first.split()[-1]
        assert first == f"70 killmails, 100 a second, once, at {url}\n"
        assert f"R2Z2_URL={url} FEED=live" in second
        with closing(http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)) as connection:
            connection.request("GET", "/ephemeral/sequence.json", headers=AGENT)
            assert connection.getresponse().read() == b'{"sequence":1}'
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.jsonl"], "missing.jsonl: cannot be read: No such file or directory"),
        (["--rate", "0"], "--rate"),
        (["--rate", "nan"], "--rate"),
        (["--rate", "fast"], "--rate"),
        (["--port", "70000"], "--port"),
    ],
)
def test_command_refuses_what_it_cannot_serve(tmp_path: Path, arguments: list[str], message: str) -> None:
    result = subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(tmp_path),
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 2
    assert message in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
