"""`manage.py serve_fake_eve`: the world that it invents, and a board's way through it."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from django.core.management import CommandError, call_command

from killmails.fake_eve.invented import FIRST_ID, invented_world, killmails_until
from killmails.records import KillmailRecord, parse_package
from killmails.upstream.budget import Budget, MemoryStore
from killmails.upstream.esi import Esi
from killmails.upstream.sso import Sso, new_verifier
from tests.builders import raw_package
from tests.killmails.eve import BOTH

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/fake_eve.md").read_text()
AT = datetime(2026, 11, 25, 13, 40, tzinfo=UTC)
DAY = timedelta(days=1)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


# The world


def test_pilots_are_shared_out_among_the_largest_corporations_with_a_director_each():
    world = invented_world(pilots=20, corporations=3)
    count = Counter(pilot["corporation_id"] for pilot in world.characters.values())
    assert sorted(count.values()) == [6, 7, 7]
    assert {world.characters[pilot]["corporation_id"] for pilot in world.roles} == set(count)
    assert set(world.roles.values()) == {("Director",)}
    listed = world.pilots()
    assert len(listed) == 20
    assert sorted(what.split()[0] for _, _, what in listed) == ["Director"] * 3 + ["member"] * 17
    assert len(invented_world(2, 6).characters) == 2
    assert len(invented_world(150, 6).characters) == 150


def test_an_hour_has_the_same_loss_however_often_the_world_is_made():
    world = invented_world(20, 3)
    today, tomorrow = killmails_until(world, AT), killmails_until(invented_world(20, 3), AT + DAY)
    assert (len(today), len(set(today) & set(tomorrow))) == (721, 697)
    assert all(today[number] == tomorrow[number] for number in set(today) & set(tomorrow))
    assert (min(today), max(today)) == (FIRST_ID + 498_781 - 720, FIRST_ID + 498_781)
    assert max(body["killmail_time"] for body in today.values()) == "2026-11-25T13:37:00Z"
    assert len(killmails_until(world, AT - timedelta(minutes=14))) == 720  # it has not happened yet


@pytest.mark.parametrize(("pilots", "corporations"), [(2, 1), (20, 3)])
def test_killmails_are_such_as_a_board_takes_and_all_pilots_win_and_lose(pilots, corporations):
    world = invented_world(pilots, corporations)
    killmails = killmails_until(world, AT)
    lost, won = Counter(), Counter()
    for body in killmails.values():
        record = parse_package(raw_package(1, body, zkb=None), 1, AT)
        assert isinstance(record, KillmailRecord)
        (final_blow,) = [one for one in body["attackers"] if one["final_blow"]]
        here = [one["character_id"] for one in (body["victim"], *body["attackers"]) if "character_id" in one]
        assert len(here) == len(set(here)) <= 6
        lost[body["victim"]["character_id"]] += 1
        won[final_blow["character_id"]] += 1
    assert set(lost) == set(won) == set(world.characters)
    ids = {body[key] for body in killmails.values() for key in ("solar_system_id",)}
    ids |= {body["victim"][key] for body in killmails.values() for key in ("ship_type_id", "corporation_id")}
    assert [number for number in ids if world.name(number) is None] == []


def test_example_in_the_guide_runs(capsys):
    exec(blocks("python")[0], {})
    assert capsys.readouterr().out == "[] Counter()\n"


# The command


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The command, with all that it says."""
    process = subprocess.Popen(
        [sys.executable, "manage.py", "serve_fake_eve", "--port=0", "--callback=http://localhost:4999/auth/callback"],
        cwd=ROOT, env={"PATH": os.environ["PATH"], "DATA_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    lines: list[str] = []
    try:
        assert process.stdout is not None
        while not lines or "Ctrl-C" not in lines[-1]:
            line = process.stdout.readline()
            assert line, process.communicate(timeout=60)
            lines.append(line.rstrip("\n"))
        yield process, lines
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_what_it_prints_takes_a_board_from_the_login_to_a_corporations_killmails(served):
    process, lines = served
    told = dict(line.split("=", 1) for line in lines if re.match("[A-Z_]+=", line))
    url = told["SSO_URL"]
    assert re.fullmatch(rf"20 pilots and 72[01] killmails of 30 days, at {url}", lines[0])
    assert lines[-1] == "Then start it, and log in at http://localhost:4999/auth/login  (Ctrl-C stops)"
    documented = dict(line.split("=", 1) for line in blocks("ini")[0].splitlines())
    assert list(told) == list(documented)
    assert re.fullmatch("[A-Za-z0-9_-]{43}=", told.pop("TOKEN_KEYS"))
    ours = {"SSO_URL": url, "ESI_URL": url, "EVE_CALLBACK_URL": "http://localhost:4999/auth/callback"}
    assert told == {name: value for name, value in documented.items() if name != "TOKEN_KEYS"} | ours

    sso = Sso(url, told["EVE_CLIENT_ID"], told["EVE_CLIENT_SECRET"], told["EVE_CALLBACK_URL"], "tests")
    verifier, challenge = new_verifier()
    address = sso.authorize_url("the state", challenge, BOTH)
    director = lines[1].removeprefix("Directors: ").partition(" (")[0]
    page = requests.get(address, timeout=60).text
    pilot = re.search(rf'value="(\d+)">{re.escape(director)}<', page)[1]
    back = requests.post(address, {"character": pilot}, allow_redirects=False, timeout=60).headers["Location"]
    tokens = sso.exchange(re.search("code=([^&]*)&state=the\\+state$", back)[1], verifier)
    who = sso.read(tokens.access_token, datetime.now(UTC))
    assert (str(who.character_id), who.name) == (pilot, director)

    esi = Esi(url, "tests", Budget(MemoryStore()))
    (where,) = esi.fetch_affiliations([who.character_id])
    refs = [
        esi.fetch_recent_killmails(kind, number, who.character_id, tokens.access_token).refs
        for kind, number in (("character", who.character_id), ("corporation", where.corporation_id))
    ]
    assert 60 <= len(refs[0]) <= 90
    assert len(refs[1]) > 300
    assert str(refs[0][0].killmail_id).encode() in esi.fetch_killmail(refs[0][0].killmail_id, refs[0][0].killmail_hash)

    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 130


@pytest.mark.parametrize(
    ("argument", "why"),
    [
        ("--port=70000", "must be a port from 0 to 65535"),
        ("--pilots=1", "must be a whole number from 2 to 150, not '1'"),
        ("--pilots=many", "must be a whole number from 2 to 150, not 'many'"),
        ("--corporations=7", "must be a whole number from 1 to 6, not '7'"),
        ("--callback=http://localhost:4000/", "must be an address that ends with /auth/callback"),
    ],
)
def test_a1_an_argument_that_is_none_is_named(argument, why):
    with pytest.raises(CommandError, match=re.escape(why)):
        call_command("serve_fake_eve", argument)


def test_port_that_is_taken_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            CommandError, match=f"port {port}: Address already in use; choose another --port"
        ) as refused:
            call_command("serve_fake_eve", f"--port={port}")
    assert refused.value.returncode == 2
