"""What all sockets of a process share: limits, and the end of the process."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from realtime import consumer as consumer_module
from realtime import endpoint as endpoint_module
from realtime import hub as hub_module
from realtime import limits as limits_module
from realtime.endpoint import Endpoint
from realtime.limits import Limits
from tests.realtime.memory_log import CountingEngine
from tests.realtime.running_server import (
    ACK,
    INIT,
    LEGACY,
    LIMIT,
    PROTOCOL,
    Board,
    close_of,
    hear,
    position_of,
    rest_of,
    run,
    running_server,
    say,
    subscribe,
    until,
)
from tests.services.service import free_port

BOTH = "subscription($after: String) { both(after: $after) { position kind } }"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", 0.02)


@contextlib.contextmanager
def serving(trusted_proxies=0, **limits):
    board = Board(Limits(**limits), trusted_proxies)
    # uvicorn would take a proxy's word for the address, if the proxy is on this machine.
    with running_server(board, proxy_headers=False) as board.port:
        yield board


def _from(address):
    return {"additional_headers": {"X-Forwarded-For": address}}


# Operations (W8)


@pytest.mark.parametrize("protocol", [PROTOCOL, LEGACY])
def test_operation_beyond_the_limit_is_an_error_and_the_socket_stays(protocol):
    start = "subscribe" if protocol == PROTOCOL else "start"

    async def begin(ws, id_, query=BOTH):
        await say(ws, {"type": start, "id": id_, "payload": {"query": query}})

    async def scenario(board):
        async with board.open(subprotocols=[protocol]) as ws:
            await say(ws, INIT)
            await hear(ws)
            for number in range(20):
                await begin(ws, f"s{number}")
            heard = [await hear(ws) for _ in range(20)]
            await begin(ws, "one more")
            refused = await hear(ws)
            await say(ws, {"type": "complete" if protocol == PROTOCOL else "stop", "id": "s3"})
            await begin(ws, "one more")
            return heard, refused, await hear(ws), board.subscriptions()

    with serving() as board:
        heard, refused, accepted, subscriptions = run(scenario(board))
    assert {frame["type"] for frame in heard} == {"next" if protocol == PROTOCOL else "data"}
    assert (refused["id"], refused["type"]) == ("one more", "error")
    error = refused["payload"][0] if protocol == PROTOCOL else refused["payload"]
    assert error["extensions"] == {"code": "TOO_MANY_SUBSCRIPTIONS"}
    assert "20" in error["message"]
    assert (accepted["id"], position_of(accepted), subscriptions) == ("one more", 0, 20)


def test_ten_thousand_subscribe_frames_begin_twenty_operations():
    async def scenario(board):
        async with board.ready() as ws:
            for number in range(10_000):
                await subscribe(ws, f"s{number}", BOTH)
            errors = 0
            while errors < 9980:
                errors += (await hear(ws))["type"] == "error"
            return board.subscriptions()

    with serving(messages_per_10_s=100_000) as board:
        assert run(scenario(board)) == 20
        run(until(lambda: not board.subscriptions()))


# Frames (W12)


@pytest.mark.parametrize("message", ['{"type":"ping"}', '{"type":"pong"}', '{"type":"complete","id":"x"}'])
def test_more_than_a_hundred_frames_in_ten_seconds_are_closed_with_4291(message, monkeypatch):
    monkeypatch.setattr(consumer_module, "time", SimpleNamespace(monotonic=lambda: 5.0))

    async def scenario(board):
        async with board.ready() as ws:  # the first frame
            (consumer,) = board.endpoint._consumers.values()
            for _ in range(99):
                await say(ws, message)
            await until(lambda: len(consumer._rate._times) == 100)
            assert not consumer.outbox.closed
            await say(ws, message)
            return await rest_of(ws)

    with serving() as board:
        code, reason, frames = run(scenario(board))
        run(until(lambda: not board.sockets()))
    assert (code, reason) == (4291, "too many messages")
    assert len(frames) == (99 if "ping" in message else 0)


def test_flood_of_pings_closes_the_socket_and_holds_up_nobody(monkeypatch):
    monkeypatch.setattr(consumer_module, "time", SimpleNamespace(monotonic=lambda: 5.0))

    async def scenario(board):
        async with board.ready() as other, board.ready() as ws:
            await subscribe(other, "s", BOTH)
            await hear(other)
            with contextlib.suppress(Exception):
                for _ in range(2000):
                    await say(ws, '{"type":"ping"}')
            board.log.append(3)
            positions = [position_of(await hear(other)) for _ in range(3)]
            return (await close_of(ws))[0], positions

    with serving() as board:
        assert run(scenario(board)) == (4291, [1, 2, 3])


# Sockets


def test_socket_beyond_the_limit_of_the_process_is_closed_with_1013():
    async def scenario(board):
        async with board.ready() as first, board.ready():
            async with board.open() as third:
                refused = await close_of(third)
            await first.close()
            await until(lambda: board.sockets() == 1)
            async with board.ready() as fourth:
                await say(fourth, {"type": "ping"})
                return refused, await hear(fourth)

    with serving(sockets=2) as board:
        refused, pong = run(scenario(board))
        run(until(lambda: not board.sockets()))
    assert refused == (1013, "try again later: too many sockets")
    assert pong == {"type": "pong"}


def test_sockets_of_one_address_are_counted_behind_a_proxy():
    async def scenario(board):
        async with (
            board.ready(**_from("203.0.113.5")),
            board.ready(**_from("8.8.8.8, 203.0.113.5")),
            board.open(**_from("9.9.9.9, 203.0.113.5")) as refused,
            board.ready(**_from("203.0.113.6")),
        ):
            return await close_of(refused)

    with serving(trusted_proxies=1, sockets_per_address=2) as board:
        assert run(scenario(board)) == (1013, "try again later: too many sockets")
        run(until(lambda: not board.sockets()))
        assert not board.endpoint.sockets._by_address


def test_address_that_a_client_invents_does_not_count():
    async def scenario(board):
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(5):
                await stack.enter_async_context(board.ready(**_from("203.0.113.5")))
            return board.sockets()

    with serving(sockets_per_address=2) as board:
        assert run(scenario(board)) == 5  # all from this machine, which does not count


@pytest.mark.parametrize("way", ["close", "abort", "refused"])
def test_place_of_a_socket_is_free_when_it_has_gone(way):
    async def scenario(board):
        for _ in range(5):
            async with board.open() as ws:
                await say(ws, INIT if way != "refused" else "nonsense")
                if way == "refused":
                    await close_of(ws)
                else:
                    await hear(ws)
                if way == "abort":
                    ws.transport.abort()
            await until(lambda: not board.sockets())
        return dict(board.endpoint._consumers)

    with serving(sockets=1) as board:
        assert run(scenario(board)) == {}


def test_socket_that_waits_longest_for_its_init_is_closed_when_too_many_wait(monkeypatch):
    monkeypatch.setattr(limits_module, "PATIENCE", 0.2)

    async def scenario(board):
        async with board.open() as oldest, board.ready() as ready, board.open() as second, board.open() as third:
            await asyncio.sleep(0.4)
            async with board.open() as fourth:
                closed = await close_of(oldest)
                for ws in (second, third, fourth):
                    await say(ws, INIT)
                    assert await hear(ws) == ACK
                await say(ready, {"type": "ping"})
                return closed, await hear(ready), board.sockets()

    with serving(unacknowledged=3) as board:
        closed, pong, sockets = run(scenario(board))
    assert closed == (4408, "Connection initialisation timeout")
    assert (pong, sockets) == ({"type": "pong"}, 4)


def test_sockets_that_wait_for_their_init_are_closed_though_no_other_comes(monkeypatch):
    monkeypatch.setattr(limits_module, "PATIENCE", 0.2)
    monkeypatch.setattr(endpoint_module, "SECOND", 0.05)

    async def scenario(board):
        async with contextlib.AsyncExitStack() as stack:
            waiting = [await stack.enter_async_context(board.open()) for _ in range(8)]
            codes = [(await close_of(ws))[0] for ws in waiting[:5]]
            looks = _count_looks(board)
            await until(lambda: len(looks) >= 3)
            return codes, board.sockets()

    with serving(unacknowledged=3) as board:
        assert run(scenario(board)) == ([4408] * 5, 3)


def _count_looks(board):
    """The times of all that follow."""
    overdue, looks = board.endpoint.sockets.overdue, []
    board.endpoint.sockets.overdue = lambda now: looks.append(now) or overdue(now)
    return looks


# The end of the process


SERVER = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "killboard.settings"
import django
django.setup()
from tests.realtime.running_server import Board
board = Board()
board.log.append(41)
application = board
if sys.argv[1:] == ["uvicorn"]:
    import uvicorn
    print("ready", flush=True)
    uvicorn.run(board, port=int(os.environ["PORT"]), ws="websockets-sansio", lifespan="off", log_level="critical",
                timeout_graceful_shutdown=2)
else:
    from daphne.server import Server
    print("ready", flush=True)
    Server(board, endpoints=["tcp:port=" + os.environ["PORT"] + ":interface=127.0.0.1"], signal_handlers=True).run()
"""


@contextlib.contextmanager
def _process(server, tmp_path):
    board = Board()
    board.port = free_port()
    env = os.environ | {"PORT": str(board.port), "DATA_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVER, server], cwd=ROOT, env=env, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert process.stdout.readline() == b"ready\n"
        yield board, process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


async def _connected(stack, board):
    while True:  # until `run` gives up
        with contextlib.suppress(OSError):
            return await stack.enter_async_context(board.ready())
        await asyncio.sleep(0.05)


# Daphne sends no reason with a close.
@pytest.mark.parametrize(
    ("server", "code", "reasons"),
    [
        ("uvicorn", 1012, ("service restart, resume after e1:41", "service restart")),
        ("daphne", 4499, ("", "")),
    ],
)
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_server_that_is_stopped_tells_its_sockets_where_to_go_on(server, code, reasons, signum, tmp_path):
    async def scenario(board, process):
        async with contextlib.AsyncExitStack() as stack:
            placed, idle = await _connected(stack, board), await _connected(stack, board)
            await subscribe(placed, "s", BOTH)
            await hear(placed)
            process.send_signal(signum)
            return await close_of(placed), await close_of(idle)

    with _process(server, tmp_path) as (board, process):
        placed, idle = run(scenario(board, process))
        ended = process.wait(LIMIT)
    assert (placed, idle) == ((code, reasons[0]), (code, reasons[1]))
    assert ended in (0, -signum, 128 + signum)


def test_socket_that_comes_to_a_full_daphne_is_closed_with_4499(tmp_path):
    async def scenario(board):
        async with contextlib.AsyncExitStack() as stack:
            await _connected(stack, board)
            ws = await stack.enter_async_context(board.open())
            return await close_of(ws)

    script = SERVER.replace("Board()", "Board(Limits(sockets=1))").replace(
        "from tests.realtime.running_server import Board",
        "from tests.realtime.running_server import Board, Limits",
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(globals(), "SERVER", script)
        with _process("daphne", tmp_path) as (board, _):
            assert run(scenario(board)) == (4499, "")


def test_socket_that_comes_while_the_server_stops_is_told_of_the_restart():
    async def scenario(board):
        async with board.ready():
            board.endpoint.leaving = True
            async with board.open() as late:
                return await close_of(late)

    with serving() as board:
        assert run(scenario(board)) == (1012, "service restart")


async def _ended_beside_a_stuck_reader(board, process, seconds):
    """Whether the server ends so soon after SIGTERM, and what a reader was told."""
    async with contextlib.AsyncExitStack() as stack:
        first = await _connected(stack, board)
        await subscribe(first, "s", BOTH)
        await hear(first)
        stuck = await stack.enter_async_context(board.ready_with_small_buffer())
        padded = "subscription($after: String) { both(after: $after) { position padding } }"
        await subscribe(stuck, "s", padded, variables={"after": "e1:0"})  # 30 MB
        await hear(stuck)
        stuck.transport.pause_reading()
        await asyncio.sleep(1)  # the system's buffers are full
        process.send_signal(signal.SIGTERM)
        closed = await close_of(first)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, seconds)
        stuck.transport.abort()
        return process.poll() is not None, closed


def test_reader_that_does_not_read_does_not_hold_up_the_end(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "SERVER", SERVER.replace("append(41)", "append(3000)"))
    with _process("uvicorn", tmp_path) as (board, process):
        ended, closed = run(_ended_beside_a_stuck_reader(board, process, 40))
    assert (ended, closed) == (True, (1012, "service restart, resume after e1:3000"))


def test_farewell_without_a_limit_would_be_held_up(tmp_path, monkeypatch):
    """Known to be wrong: for ten minutes, of which a few seconds are waited."""
    patient = "import realtime.consumer, realtime.endpoint\nrealtime.consumer.CLOSE_LIMIT = 600\n"
    patient += "realtime.endpoint.FAREWELL_LIMIT = 600\nboard = Board()"
    script = SERVER.replace("append(41)", "append(3000)").replace("board = Board()", patient)
    monkeypatch.setitem(globals(), "SERVER", script)
    with _process("uvicorn", tmp_path) as (board, process):
        ended, _ = run(_ended_beside_a_stuck_reader(board, process, 6))
    assert not ended


def test_request_that_opened_a_websocket_is_forgotten():
    """Ten thousand of them are 40 MB. Fails where uvicorn has other names for them."""
    board = Board()

    async def scenario():
        async with board.ready():
            (consumer,) = board.endpoint._consumers.values()
            connection = consumer._send.__self__
            return connection.request, connection.response, connection.scope

    with running_server(board) as board.port:
        assert run(scenario()) == (None, None, {})


def test_a_few_sockets_begin_in_each_turn_of_the_loop_in_the_order_in_which_they_came():
    async def scenario():
        endpoint, turn, begun = Endpoint(CountingEngine(), None, Limits()), 0, []

        async def begin(number):
            await endpoint.turn()
            begun.append((turn, number))

        sockets = [asyncio.create_task(begin(number)) for number in range(200)]
        sockets[50].cancel()
        for turn in range(1000):  # noqa: B007  (read by those who begin)
            await asyncio.sleep(0)
        await asyncio.gather(*sockets, return_exceptions=True)
        return begun

    begun = run(scenario())
    assert [number for _, number in begun] == [number for number in range(200) if number != 50]
    assert max(Counter(turn for turn, _ in begun).values()) <= 10
