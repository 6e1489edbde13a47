"""The small R2Z2 that plays a recording, asked over real HTTP."""

import contextlib
import gzip
import http.client
import json
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from killmails.recording import server as server_module
from killmails.recording import tape
from killmails.recording.server import RecordingServer, load_recording
from killmails.records import KillmailRecord, parse_package

AGENT = {"User-Agent": "killboard-tests (nobody@example.com)"}
LIMIT = 60.0  # seconds that an answer may take, on a machine however busy


class Clock:
    """The server's time, which passes only when the test says so: a slow machine must not look like a slow client."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return time.time()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in (server_module, tape):
        monkeypatch.setattr(module, "time", clock)
    return clock


def ask(server: RecordingServer, path: str, headers: dict[str, str] | None = None) -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=LIMIT)) as connection:
        connection.request("GET", path, headers=AGENT if headers is None else headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()


def package(server: RecordingServer, sequence: int) -> dict[str, Any]:
    status, _, body = ask(server, f"/ephemeral/{sequence}.json")
    assert status == 200
    return json.loads(body)


def pointer(server: RecordingServer) -> int:
    return json.loads(ask(server, "/ephemeral/sequence.json")[2])["sequence"]


def quiet(killmails: list[dict[str, Any]], **options: Any) -> RecordingServer:
    """A server without a clock."""
    return RecordingServer(killmails, rate=0, **options)


# The files of the feed


def test_package_is_served_in_upstreams_order_and_spelling() -> None:
    record = load_recording()[0]
    record["zkb"]["labels"].append("é")
    began = int(time.time())
    with quiet([record], ready=1) as server:
        status, headers, body = ask(server, "/ephemeral/1.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert list(json.loads(body)) == ["killmail_id", "hash", "esi", "zkb", "uploaded_at", "sequence_id"]
    assert b"https:\\/\\/esi.evetech.net\\/killmails\\/" in body
    assert b"\\u00e9" in body
    assert b": " not in body
    assert b", " not in body
    served = json.loads(body)
    assert {key: served[key] for key in ("killmail_id", "hash", "esi", "zkb")} == record
    assert served["sequence_id"] == 1
    assert began <= served["uploaded_at"] <= time.time()


@pytest.mark.parametrize(
    ("accept", "zipped"), [("gzip", True), ("br, gzip;q=0.5", True), ("identity", False), ("gzip;q=0", False)]
)
def test_answer_is_zipped_when_the_client_asks(accept: str, zipped: bool) -> None:
    with quiet(load_recording(), ready=1) as server:
        _, headers, body = ask(server, "/ephemeral/1.json", AGENT | {"Accept-Encoding": accept})
    assert (headers.get("Content-Encoding") == "gzip") is zipped
    assert json.loads(gzip.decompress(body) if zipped else body)["sequence_id"] == 1


def test_every_shipped_killmail_comes_in_order_through_the_boards_own_parser() -> None:
    killmails = load_recording()
    with quiet(killmails, ready=70, first_sequence=500) as server:
        seen = []
        for sequence in range(500, 570):
            # Straight from the server's own answer: 70 requests over HTTP would meet its limit.
            status, body = server.answer("127.0.0.1", "tests", f"/ephemeral/{sequence}.json")
            assert status == 200
            record = parse_package(body, sequence, datetime(2027, 1, 1, tzinfo=UTC))
            assert isinstance(record, KillmailRecord)
            seen.append(record.killmail_id)
            server._clients.clear()
    assert seen == [record["killmail_id"] for record in killmails]


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/ephemeral/0.json",
        "/ephemeral/2.json",
        "/ephemeral/-1.json",
        "/ephemeral/1.json?x=1",
        "/ephemeral/x.json",
    ],
)
def test_what_is_not_there_is_404_with_html(path: str) -> None:
    with quiet(load_recording(), ready=1) as server:
        status, headers, body = ask(server, path)
    assert status == 404
    assert headers["Content-Type"].startswith("text/html")
    assert body.startswith(b"<")


def test_connection_is_kept_for_the_next_request() -> None:
    with quiet(load_recording(), ready=2) as server:
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=LIMIT)
        for sequence in (1, 2, 3):
            connection.request("GET", f"/ephemeral/{sequence}.json", headers=AGENT)
            first = connection.sock
            connection.getresponse().read()
            assert connection.sock is first is not None
        connection.close()


# Head and pointer


def test_nothing_is_there_before_the_first_publish() -> None:
    with quiet([], first_sequence=7) as server:
        assert server.head is None
        assert pointer(server) == 7
        assert server.publish(load_recording()[0]) == 7
        assert server.head == 7
        assert package(server, 7)["sequence_id"] == 7


def test_pointer_stays_at_the_first_until_the_head_is_52_above_what_was_ready() -> None:
    record = load_recording()[0]
    with quiet(load_recording(), first_sequence=100, ready=60) as server:
        assert (server.head, pointer(server)) == (159, 100)
        for _ in range(51):
            server.publish(record)
        assert (server.head, pointer(server)) == (210, 100)
        server.publish(record)
        assert (server.head, pointer(server)) == (211, 211)
        server.publish(record)
        assert (server.head, pointer(server)) == (212, 211)


def test_file_uploaded_again_is_named_by_the_next_head_once() -> None:
    first, second, third = load_recording()[:3]
    with quiet([]) as server:
        for record in (first, second):
            server.publish(record)
        server.republish(1, first | {"zkb": first["zkb"] | {"points": 99}})
        server.publish(third)
        server.publish(third)
        assert package(server, 1)["zkb"]["points"] == 99
        assert list(package(server, 3))[-1] == "sequence_updated"
        assert package(server, 3)["sequence_updated"] == 1
        assert "sequence_updated" not in package(server, 4)
        with pytest.raises(ValueError, match="5 is not published"):
            server.republish(5, first)


def test_killmails_appear_by_the_clock_and_then_the_feed_is_quiet(clock: Clock) -> None:
    killmails = load_recording()[:5]
    with RecordingServer(killmails, rate=2, ready=2) as server:
        heads = [server.head]
        for seconds in (0.25, 0.25, 0.5, 0.5, 100.0):
            clock.now += seconds
            heads.append(server.head)
        assert heads == [2, 2, 3, 4, 5, 5]
        assert [package(server, n)["killmail_id"] for n in range(1, 6)] == [
            record["killmail_id"] for record in killmails
        ]
        assert ask(server, "/ephemeral/6.json")[0] == 404


def test_publish_is_refused_while_the_clock_publishes() -> None:
    with RecordingServer(load_recording(), rate=1) as server, pytest.raises(ValueError, match="rate 0"):
        server.publish(load_recording()[0])


# The loop


def test_looped_killmails_are_new_ones_of_now_that_the_board_accepts() -> None:
    killmails, began = load_recording()[:3], int(time.time())
    with quiet(killmails, ready=7, loop=True) as server:
        packages = [package(server, n) for n in range(1, 8)]
    assert [p["killmail_id"] for p in packages] == [1_000_000_001 + n for n in range(7)]
    assert len({p["hash"] for p in packages}) == 7
    for n, served in enumerate(packages, start=1):
        raw = json.dumps(served).encode()
        record = parse_package(raw, n, datetime.now(UTC))
        assert isinstance(record, KillmailRecord)
        age = served["uploaded_at"] - record.time.timestamp()
        assert 20 <= age < 80
        assert began - 7 * 15 <= served["uploaded_at"] <= time.time()
        assert served["zkb"]["hash"] == served["hash"]
        assert f"/{served['killmail_id']}/" in served["zkb"]["href"]
        assert record.victim.ship_type_id == killmails[(n - 1) % 3]["esi"]["victim"]["ship_type_id"]
        assert sum(label.startswith("tz:") for label in served["zkb"]["labels"]) == 1
    assert packages[0]["uploaded_at"] < packages[6]["uploaded_at"]


def test_looped_package_is_the_same_however_often_it_is_asked(clock: Clock) -> None:
    with RecordingServer(load_recording(), rate=50, ready=1, loop=True) as server:
        first = package(server, 1)
        clock.now += 100
        assert package(server, 1) == first


def test_server_that_starts_again_above_the_old_head_gives_no_old_id() -> None:
    with quiet(load_recording(), ready=3, loop=True) as server:
        old = {package(server, n)["killmail_id"] for n in (1, 2, 3)}
    with quiet(load_recording(), ready=3, loop=True, first_sequence=4) as server:
        new = {package(server, n)["killmail_id"] for n in (4, 5, 6)}
    assert not old & new


# Upstream's rules


@pytest.mark.parametrize("headers", [{}, {"User-Agent": ""}, {"User-Agent": "  "}])
def test_client_without_a_name_is_refused(headers: dict[str, str]) -> None:
    with quiet(load_recording(), ready=1) as server:
        assert ask(server, "/ephemeral/1.json", headers)[0] == 403


def test_sixteenth_request_in_a_second_is_429_and_going_on_is_403(clock: Clock) -> None:
    with quiet(load_recording(), ready=1) as server:
        statuses = [ask(server, "/ephemeral/1.json")[0] for _ in range(35)]
        assert statuses == [200] * 15 + [429] * 15 + [403] * 5
        clock.now += 1
        assert ask(server, "/ephemeral/1.json")[0] == 403, "a block outlasts the second"
        assert [status for _, _, status in server.requests] == [*statuses, 403]


def test_client_that_slows_down_after_429_is_served_again(clock: Clock) -> None:
    with quiet(load_recording(), ready=1) as server:
        assert [ask(server, "/ephemeral/1.json")[0] for _ in range(16)][-1] == 429
        clock.now += 0.9
        assert ask(server, "/ephemeral/1.json")[0] == 429
        clock.now += 1
        assert ask(server, "/ephemeral/1.json")[0] == 200


def test_asking_a_missing_number_again_too_soon_is_counted(clock: Clock) -> None:
    with quiet([]) as server:
        ask(server, "/ephemeral/1.json")
        ask(server, "/ephemeral/2.json")
        assert server.violations == 0
        clock.now += 5.9
        ask(server, "/ephemeral/1.json")
        assert server.violations == 1
        clock.now += 6
        ask(server, "/ephemeral/1.json")
        assert server.violations == 1
        clock.now += 5.9
        server.publish(load_recording()[0])
        assert ask(server, "/ephemeral/1.json")[0] == 200
        assert server.violations == 2, "it is there now, but the client could not know"


# Start and stop


def test_stopped_server_answers_nobody_and_comes_back_at_the_same_address() -> None:
    server = quiet(load_recording(), ready=1).start()
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=LIMIT)
    connection.request("GET", "/ephemeral/1.json", headers=AGENT)
    connection.getresponse().read()
    address = server.url
    server.stop()
    server.stop()
    # The request may still fit into the socket's buffer; the answer cannot come.
    with contextlib.suppress(ConnectionError):
        connection.request("GET", "/ephemeral/1.json", headers=AGENT)
    with pytest.raises((ConnectionError, http.client.HTTPException)):
        connection.getresponse()
    with pytest.raises(ConnectionRefusedError):
        ask(server, "/ephemeral/1.json")
    with server:
        assert server.url == address
        assert package(server, 1)["sequence_id"] == 1
    connection.close()


def test_taken_port_is_an_os_error() -> None:
    with quiet([]) as server, pytest.raises(OSError, match="in use"):
        quiet([], port=int(server.url.rpartition(":")[2])).start()


@pytest.mark.parametrize("rate", [-1, float("nan"), float("inf")])
def test_senseless_rate_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        RecordingServer([], rate=rate)
