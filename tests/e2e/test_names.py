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
WATCH = """subscription { killmailEvents { kind killmail { id
    victim { character { name } corporation { name ticker } } } } }"""


def body(number: int) -> dict:
    """Another pilot on each."""
    victim = esi_body(1)["victim"] | {"character_id": 2110000000 + number}
    return esi_body(1000 + number, victim=victim)


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

            def put(number: int) -> None:
                feed.put(number, raw_package(number, body(number), uploaded_at=int(time.time())))

            def next_event(seconds: float = 90) -> tuple[str, int, str | None]:
                while (event := socket.hear(seconds)["payload"]["data"]["killmailEvents"])["kind"] == "CHECKPOINT":
                    pass
                killmail = event["killmail"]
                name = killmail["victim"]["character"]["name"]
                return event["kind"], int(killmail["id"]), name

            for number in range(1, NUMBERS - 1):
                put(number)
                kind, id_, name = next_event()
                assert (kind, id_) == ("ADDED", 1000 + number)
                if name:  # on a machine that stalls ESI may be too late, and no killmail waits for it for ten seconds
                    break
                assert next_event() == ("UPDATED", 1000 + number, f"Character {2110000000 + number}")
                time.sleep(10)
            assert name == f"Character {2110000000 + number}"
            named = f"{2110000000 + number}".encode()
            # ESI takes longer than anybody waits: without names first, with them when they are there.
            esi.fail("/universe/names", Fault(silent_for=50.0), times=1)
            put(number + 1)
            assert next_event() == ("ADDED", 1001 + number, None)
            assert next_event() == ("UPDATED", 1001 + number, f"Character {2110000001 + number}")
            # ESI is away: the feed goes on, and its return brings the names within half a minute.
            esi.fail("/", Fault(status=503), times=0)
            put(number + 2)
            assert next_event() == ("ADDED", 1002 + number, None)
            esi.heal()
            back = time.monotonic()
            assert next_event(120) == ("UPDATED", 1002 + number, f"Character {2110000002 + number}")
            passed = time.monotonic() - back
            print(f"names {passed:.1f} s after ESI was back")
            assert passed <= (30 if LONG else 120)
        wait_until(lambda: ask(board, TICKERS)["killmail"]["victim"]["corporation"] == {"ticker": "C0001"}, 120)
    asked = [one for one in esi.asked if one.path.startswith("/universe/names") and named in one.body]
    assert len([one for one in asked if one.status == 200]) == 1
    assert esi.violations == []


TICKERS = "{ killmail(id: 1001) { victim { corporation { ticker } } } }"
