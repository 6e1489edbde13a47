"""Names on the whole way: fake zKillboard, a worker, a fake ESI, a server, and the npm client's protocol."""

import time

import pytest

from killmails.fake_eve import FakeEsi, Fault, World
from tests.builders import esi_body, raw_package
from tests.e2e.crowd import LONG, ask
from tests.e2e.processes import Board
from tests.e2e.sockets import Socket, wait_until
from tests.fake_r2z2 import FakeR2Z2

pytestmark = [pytest.mark.e2e, pytest.mark.services]

NUMBERS = 8
BROUGHT = 30.0 if LONG else 120.0  # seconds in which ESI's return brings the names
WATCH = """subscription { killmailEvents { kind killmail { id
    victim { character { name } corporation { name ticker } } } } }"""


def body(number: int) -> dict:
    """Another pilot on each."""
    victim = esi_body(1)["victim"] | {"character_id": 2110000000 + number}
    return esi_body(1000 + number, victim=victim)


def put(feed: FakeR2Z2, number: int) -> None:
    feed.put(number, raw_package(number, body(number), uploaded_at=int(time.time())))


def next_event(socket: Socket, seconds: float = 90) -> tuple[str, int, str | None]:
    while (event := socket.hear(seconds)["payload"]["data"]["killmailEvents"])["kind"] == "CHECKPOINT":
        pass
    killmail = event["killmail"]
    return event["kind"], int(killmail["id"]), killmail["victim"]["character"]["name"]


def added(number: int) -> tuple[str, int, None]:
    """Without its name."""
    return "ADDED", 1000 + number, None


def named(kind: str, number: int) -> tuple[str, int, str]:
    return kind, 1000 + number, f"Character {2110000000 + number}"


def first_with_its_name(feed: FakeR2Z2, socket: Socket) -> int:
    """On a machine that stalls ESI may be too late, and no killmail waits for it for ten seconds."""
    for number in range(1, NUMBERS - 1):
        put(feed, number)
        if (event := next_event(socket)) == named("ADDED", number):
            return number
        assert (event, next_event(socket)) == (added(number), named("UPDATED", number))
        time.sleep(10)
    raise AssertionError("no killmail came with its name")


def test_names_come_with_the_killmail_or_after_it(services_board: Board) -> None:
    board, world = services_board, World()
    world.add_killmails([body(number) for number in range(1, 1 + NUMBERS)])
    with FakeR2Z2() as feed, FakeEsi(world) as esi:
        feed.point(1)
        board.env |= {"R2Z2_URL": feed.url, "ESI_URL": esi.url, "FEED": "live"}
        board.uvicorn()
        worker = board.worker("feed", "-Q", "feed,publish,esi,bulk", "-c", "1")
        board.beat()
        worker.wait_for("follows the feed now")
        with Socket(board) as socket:
            socket.subscribe("1", WATCH)
            assert socket.hear()["payload"]["data"]["killmailEvents"]["kind"] == "CHECKPOINT"
            number = first_with_its_name(feed, socket)
            # ESI takes longer than anybody waits: without names first, with them when they are there.
            esi.fail("/universe/names", Fault(silent_for=50.0), times=1)
            put(feed, number + 1)
            assert next_event(socket) == added(number + 1)
            assert next_event(socket) == named("UPDATED", number + 1)
            # ESI is away: the feed goes on, and its return brings the names.
            esi.fail("/", Fault(status=503), times=0)
            put(feed, number + 2)
            assert next_event(socket) == added(number + 2)
            esi.heal()
            back = time.monotonic()
            assert next_event(socket, BROUGHT) == named("UPDATED", number + 2)
            print(f"names {time.monotonic() - back:.1f} s after ESI was back")
        wait_until(lambda: ask(board, TICKERS)["killmail"]["victim"]["corporation"] == {"ticker": "C0001"}, 120)
    asked = [one for one in esi.asked if one.path.startswith("/universe/names")]
    assert [one.status for one in asked if f"{2110000000 + number}".encode() in one.body].count(200) == 1
    assert esi.violations == []


TICKERS = "{ killmail(id: 1001) { victim { corporation { ticker } } } }"
