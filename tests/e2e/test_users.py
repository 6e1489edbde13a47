"""Users bring their own killmails to a whole board, while its workers are killed and its broker restarts."""

import base64
import contextlib
import os
import random
import signal
import time
import zlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import pytest
import redis
import requests

from killboard.queues import DELIVERIES
from killmails.fake_eve import Application, FakeEsi
from tests.e2e.crowd import LONG
from tests.e2e.processes import Board, Process, new_board
from tests.e2e.sockets import PATIENCE, Socket, wait_until
from tests.e2e.users import (
    FIRST_KILLMAIL,
    FIRST_PILOT,
    Browser,
    ask_as,
    killmail_of_pilots,
    owners_of,
    settings_of,
    world_of_pilots,
)
from tests.services import RabbitMQ
from tests.services.guard import process_tree

pytestmark = [pytest.mark.e2e, pytest.mark.services]

PILOTS, CORPORATIONS = 20, 3
KILLMAILS = 1200 if LONG else 240
AWAY = 600.0 if LONG else 3.0  # seconds without RabbitMQ
PAUSED = 60.0 if LONG else 2.0  # seconds in which it hangs
KILLS = 30 if LONG else 4
CHOICES = ["never", "never", "0", "never", "72"]  # of the pilots, in turn; of directors the first


class Party:
    """A board, its fake EVE, its broker, and workers that can be killed."""

    def __init__(self, board: Board, fake: FakeEsi, broker: RabbitMQ) -> None:
        self.board, self.fake, self.broker = board, fake, broker
        self.workers: list[Process] = []
        self.api_tokens: list[str] = []  # the board's own, for bots
        self.chance = random.Random(7)
        self.kills = 0  # of workers, and of processes of their pools

    def add_worker(self, clock: str = "") -> None:
        """`clock`: how wrong the clock of this worker is, as in "+2h"."""
        name = f"work{len(self.workers)}-{time.monotonic_ns()}"
        wrong = ["env", "FAKETIME_DONT_FAKE_MONOTONIC=1", "faketime", "-f", clock] if clock else []
        self.workers.append(self.board.worker(name, "-Q", "publish,esi,bulk", "-c", "2", within=wrong))

    def kill_a_worker(self) -> None:
        self.kills += 1
        self.workers.pop(self.chance.randrange(len(self.workers))).kill()
        self.add_worker()

    def kill_a_child(self) -> None:
        """One process of a pool; its worker starts another."""
        children = process_tree(self.workers[-1].popen.pid)[1:]
        if children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.chance.choice(children), signal.SIGKILL)
                self.kills += 1

    def end_backends(self) -> None:
        """PostgreSQL ends every connection of the board, whatever is under way."""
        self.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid != pg_backend_pid()"
        )

    def rows(self, query: str, *parameters: object) -> list[tuple]:
        with psycopg.connect(self.board.env["DATABASE_URL"], autocommit=True) as connection:
            cursor = connection.execute(query, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def states(self) -> dict[str, int]:
        return dict(self.rows("SELECT state, count(*) FROM killmails_killmailsync GROUP BY state"))

    def is_done(self) -> bool:
        to_fetch = "SELECT count(*) FROM killmails_pendingkillmail WHERE state = 'TO_FETCH' OR due_at < now()"
        lists = self.states()
        return self.rows(to_fetch) == [(0,)] and lists == {"UP_TO_DATE": PILOTS + CORPORATIONS}

    def wait_until_done(self, seconds: float) -> None:
        try:
            wait_until(self.is_done, seconds)
        except AssertionError as error:
            pending = "SELECT state, priority, due_at - now(), claimed_until - now(), tries FROM killmails_{}"
            pending += " WHERE state NOT IN ('WITHHELD', 'UP_TO_DATE') LIMIT 5"
            rows = [self.rows(pending.format(table)) for table in ("killmailsync", "pendingkillmail")]
            raise AssertionError(f"{self.states()} {rows}\n{self.workers[-1].end_of_log()}") from error


@pytest.fixture(scope="module")
def party(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Party]:
    world = world_of_pilots(PILOTS, CORPORATIONS, KILLMAILS)
    with contextlib.closing(RabbitMQ()) as broker:
        broker.launch()
        with new_board(tmp_path_factory.mktemp("users"), "users", RABBITMQ_URL=broker.url) as board:
            application = Application(callbacks=(f"{board.url}/auth/callback",))
            with FakeEsi(world, application=application) as fake:
                board.env |= settings_of(board, fake)
                broker.wait_until_ready()
                party = Party(board, fake, broker)
                board.uvicorn()
                beat = board.beat()
                party.add_worker(), party.add_worker()
                # All have found RabbitMQ by then: who starts without it refuses to.
                for process in (beat, *party.workers):
                    process.wait_for("PubSub: Redis (distributed)")
                yield party


def test_users_sync_while_workers_are_killed_and_the_broker_restarts(party: Party) -> None:
    """P7, P8, P13: every killmail is stored once, published once, and visible to exactly those who may."""
    pilots = [FIRST_PILOT + number for number in range(PILOTS)]
    directors = set(pilots[:CORPORATIONS])
    choices = {pilot: CHOICES[0 if pilot in directors else pilot % len(CHOICES)] for pilot in pilots}
    browsers = {pilot: Browser(party.board, party.fake, pilot) for pilot in pilots}
    bodies = party.fake.world.killmails
    owners = {id_: owners_of(body, directors) for id_, body in bodies.items()}
    public = {id_ for id_, its in owners.items() if any(choices[pilot] != "never" for pilot in its)}
    with Socket(party.board) as socket:
        socket.subscribe("1", "subscription { killmailEvents { kind killmail { id } } }")
        for number, (pilot, browser) in enumerate(browsers.items()):
            browser.log_in(choices[pilot], corporation=pilot in directors)
            if number % (PILOTS // KILLS + 1) == 0:
                party.kill_a_worker()
        party.end_backends()
        party.broker.kill()
        time.sleep(AWAY)
        party.broker.start()
        for number in range(KILLS):
            time.sleep(0.5)
            party.kill_a_worker() if number % 2 else party.kill_a_child()
            party.end_backends()
        party.broker.pause()
        time.sleep(PAUSED)
        party.broker.resume()
        party.wait_until_done(300 + AWAY)
        told = _told(socket, public)
    assert {row[0] for row in party.rows("SELECT id FROM killmails_killmail")} == public
    assert sorted(party.rows("SELECT killmail_id, kind FROM killmails_killmailevent WHERE kind = 'ADDED'")) == [
        (id_, "ADDED") for id_ in sorted(public)
    ]
    assert sorted(id_ for kind, id_ in told if kind == "ADDED") == sorted(public)
    assert 0 < len(public) < len(bodies)
    for pilot, browser in browsers.items():
        party.api_tokens.append(browser.api_token())
        assert _withheld(party.board, party.api_tokens[-1]) == {
            id_ for id_, its in owners.items() if pilot in its and id_ not in public
        }
    assert party.fake.violations == []
    assert party.rows("SELECT count(*) FROM killmails_rejectedkillmail") == [(0,)]
    # Whose process is killed each time becomes a dead letter, as promised; nothing hangs on a message, see above.
    letters = party.rows("SELECT task, reason FROM killmails_deadletter")
    assert {reason for _, reason in letters} <= {"delivery_limit"}, letters
    assert len(letters) <= party.kills * 4 // (1 + DELIVERIES)
    fetched = [one.path for one in party.fake.asked if one.path.startswith("/killmails/") and one.status == 200]
    print(f"{len(bodies)} killmails, {len(public)} public, {len(fetched)} questions, {party.kills} kills, {letters}")
    assert len(set(fetched)) == len(bodies)
    assert len(fetched) <= len(bodies) + party.kills * 4  # what a killed worker's processes had just got


def _told(socket: Socket, wanted: set[int]) -> list[tuple[str, int]]:
    """What came up to the last of the wanted, and for two seconds after it."""
    told: list[tuple[str, int]] = []
    with contextlib.suppress(TimeoutError):
        while True:
            more = wanted - {id_ for kind, id_ in told if kind == "ADDED"}
            event = socket.hear(PATIENCE if more else 2)["payload"]["data"]["killmailEvents"]
            if event["killmail"]:
                told.append((event["kind"], int(event["killmail"]["id"])))
    return told


def _withheld(board: Board, token: str) -> set[int]:
    query = "{ viewer { withheldKillmails(first: 100%s) { hasNextPage nodes { killmail { id } } } } }"
    found: list[int] = []
    while True:
        answer = ask_as(board, token, query % (f', before: "{found[-1]}"' if found else ""))
        page = answer["viewer"]["withheldKillmails"]
        found += [int(one["killmail"]["id"]) for one in page["nodes"]]
        if not page["hasNextPage"]:
            return set(found)


def test_each_expiry_makes_one_refresh_however_many_workers_there_are(party: Party) -> None:
    before = dict(party.fake.sso.refreshes)
    party.fake.limits.refill()
    party.rows("UPDATE killmails_usercharacter SET access_expires_at = now()")
    # Not before the command: what a worker reads already is not queued.
    due = "due_at = CASE kind WHEN 'corporation' THEN now() ELSE now() + interval '1 hour' END"
    never = "not_before = NULL, last_run_at = NULL, last_success_at = NULL"
    party.rows(f"UPDATE killmails_killmailsync SET {due}, {never}")  # noqa: S608
    queued = party.board.manage("queue_user_killmails")
    assert queued.stdout.splitlines()[-1] == f"{PILOTS} lists are queued."
    unread = "SELECT count(*) FROM killmails_killmailsync WHERE last_success_at IS NULL"
    wait_until(lambda: party.rows(unread) == [(0,)], 180)
    made = {pilot: count - before.get(pilot, 0) for pilot, count in party.fake.sso.refreshes.items()}
    assert made == {FIRST_PILOT + number: 1 for number in range(PILOTS)}
    status = party.board.manage("sync_status").stdout
    assert f"{PILOTS + CORPORATIONS} lists: {PILOTS + CORPORATIONS} UP_TO_DATE" in status


@pytest.mark.parametrize("clocks", [["+2h"], ["-2h"], ["+2h", "-2h"]], ids=" ".join)
def test_p24_workers_whose_clocks_are_wrong_do_what_is_due_and_nothing_twice(party: Party, clocks: list[str]) -> None:
    """The clocks of beat and of the server are right. The wrong twin is in tests/killboard/test_worker.py."""
    while party.workers:
        party.workers.pop().kill()
    first = FIRST_KILLMAIL + len(party.fake.world.killmails)
    new = [killmail_of_pilots(first - FIRST_KILLMAIL + number, PILOTS, CORPORATIONS) for number in range(20)]
    party.fake.world.add_killmails(new)
    party.fake.limits.refill()
    before = dict(party.fake.sso.refreshes)
    party.rows("UPDATE killmails_usercharacter SET access_expires_at = now()")
    party.rows("UPDATE killmails_killmailsync SET due_at = now(), not_before = NULL")
    for clock in clocks:
        party.add_worker(clock)
    public = "SELECT id, time FROM killmails_killmail WHERE id >= %s"
    withheld = "SELECT killmail_id FROM killmails_pendingkillmail WHERE state = 'WITHHELD' AND killmail_id >= %s"
    wait_until(lambda: len(party.rows(public, first) + party.rows(withheld, first)) == len(new), 180)
    party.wait_until_done(180)
    times = {body["killmail_id"]: datetime.fromisoformat(body["killmail_time"]) for body in new}
    assert dict(party.rows(public, first)).items() <= times.items()
    events = party.rows("SELECT killmail_id FROM killmails_killmailevent WHERE kind = 'ADDED'")
    assert sorted(id_ for (id_,) in events if id_ >= first) == sorted(dict(party.rows(public, first)))
    made = {pilot: count - before.get(pilot, 0) for pilot, count in party.fake.sso.refreshes.items()}
    assert made == {FIRST_PILOT + number: 1 for number in range(PILOTS)}
    assert party.fake.violations == []
    wait_until(lambda: _counted(party) == len(party.rows(public, first)))


def _counted(party: Party) -> int:
    """What the workers that live say that they have stored: their pools have, and not the processes that say so."""
    names = [f" {worker.log.stem}@" for worker in party.workers]
    told = requests.get(f"{party.board.url}/health", timeout=10).json()["parts"]["workers"]["workers"]
    mine = [one["counted"].get("stored", {}) for one in told if any(name in one["name"] for name in names)]
    return sum(stored.get("added", 0) for stored in mine)


def test_no_token_is_in_a_dump_of_anything(party: Party) -> None:
    """PostgreSQL, Redis, RabbitMQ, the logs: none of the tokens that EVE ever gave, nor of the board's own."""
    tokens = [token.encode() for token in (*party.fake.sso.issued, *party.api_tokens)]
    assert (len(tokens) >= 5 * PILOTS, len(party.api_tokens)) == (True, PILOTS)
    haystacks = {
        "PostgreSQL": _dump_of_postgresql(party), "Redis": _dump_of_redis(party),
        "RabbitMQ": _files(party.broker.folder), "logs": _files(party.board.folder),
    }  # fmt: skip
    for name, haystack in haystacks.items():
        assert not [token for token in tokens if token in haystack], name
    # It is not blind: what must be there is found.
    assert str(FIRST_KILLMAIL).encode() in haystacks["PostgreSQL"]
    assert b"char-killmail" in haystacks["Redis"]
    assert b"killmails.tasks.work_on_esi" in haystacks["logs"]
    assert b"rabbit" in haystacks["RabbitMQ"]


def _dump_of_postgresql(party: Party) -> bytes:
    tables = party.rows("SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    parts = [party.rows(f'SELECT t::text FROM "{name}" AS t') for (name,) in tables]  # noqa: S608
    parts.append(_opened("SELECT session_data FROM django_session", party))
    return "\n".join(text for rows in parts for (text,) in rows).encode()


def _opened(query: str, party: Party) -> list[tuple[str]]:
    """What sessions hold: they are packed, so that a token in one would not be seen."""
    packed = [data.split(":", 1)[0].removeprefix(".") for (data,) in party.rows(query)]
    assert packed
    texts = [base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) for text in packed]
    return [((zlib.decompress(text) if text[:1] == b"x" else text).decode(),) for text in texts]


def _dump_of_redis(party: Party) -> bytes:
    client = redis.Redis.from_url(os.environ["REDIS_URL"])
    return b"\n".join(key + (client.dump(key) or b"") for key in client.scan_iter())


def _files(folder: Path) -> bytes:
    return b"\n".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
