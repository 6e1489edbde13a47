"""Sockets that read too slowly, or not at all: they lose nothing, and cost nobody else anything."""

import asyncio
import contextlib
import json
import re

import pytest

from realtime import consumer as consumer_module
from realtime import hub as hub_module
from realtime import outbox as outbox_module
from realtime.outbox import Outbox
from tests.realtime.running_server import (
    INIT,
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

PADDED = "subscription($after: String) { both(after: $after) { position kind padding } }"  # 10 kB
PATIENCE = 40.0  # seconds: more than uvicorn waits for the answer to its close, and less than a test
PLAIN = "subscription($after: String) { both(after: $after) { position kind } }"


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", 0.02)
    board = Board()
    with running_server(board, send_buffer=64 * 1024) as board.port:
        yield board


def _added(frames):
    events = [frame["payload"]["data"]["both"] for frame in frames if frame["type"] == "next"]
    return [event["position"] for event in events if event["kind"] == "ADDED"]


async def _stopped(board, stack, query=PADDED):
    """A subscriber that stops reading after its first message."""
    slow = await stack.enter_async_context(board.ready_with_small_buffer())
    await subscribe(slow, "s", query)
    await hear(slow)
    slow.transport.pause_reading()
    return slow


async def _publish(board, reader, count, at_once=25):
    """Events, as fast as this reader takes them. What it got."""
    got = []
    for _ in range(count // at_once):
        board.log.append(at_once)
        got += [position_of(await hear(reader)) for _ in range(at_once)]
    return got


async def _fall_behind(board, count=500):
    """A slow reader that is left behind while another gets everything, and reads on. What both got."""
    async with contextlib.AsyncExitStack() as stack:
        quick = await stack.enter_async_context(board.ready())
        await subscribe(quick, "q", PLAIN)
        await hear(quick)
        slow = await _stopped(board, stack)
        got = await _publish(board, quick, count)
        live, consumer = board.live(), await _consumer_of(board, "s")
        slow.transport.resume_reading()
        frames = []
        reading = asyncio.create_task(_read_up_to(slow, frames, count + 1))
        await until(lambda: consumer.outbox._line is None and board.live() == 2)
        board.log.append()  # is taken by whoever is live and has no line, whatever it has had before
        await reading
        return got, _added(frames), live, slow.close_code


async def _read_up_to(ws, frames, position):
    while _added(frames[-1:]) != [position]:
        frames.append(await hear(ws))


def test_slow_reader_that_reads_on_gets_every_event_once_and_in_order_on_the_same_connection(board):
    quick, slow, live, code = run(_fall_behind(board))
    assert quick == list(range(1, 501))
    assert slow == list(range(1, 502))
    assert live == 1  # it was taken off the live ones
    assert code is None


class Dropping(Outbox):
    """Known to be wrong: drops what does not fit, and does not say so."""

    __slots__ = ()

    def put(self, *arguments):
        super().put(*arguments)
        return True


def test_outbox_that_drops_in_silence_would_be_seen(board, monkeypatch):
    monkeypatch.setattr(consumer_module, "Outbox", Dropping)
    _, slow, _, _ = run(_fall_behind(board))
    assert slow != list(range(1, 502))


def test_slow_reader_of_several_operations_gets_all_of_each(board):
    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            slow = await stack.enter_async_context(board.ready_with_small_buffer())
            for id_, query in [
                ("a", PADDED),
                ("b", PLAIN),
                ("c", "subscription { tens(of: [7]) { position kind padding } }"),
            ]:
                await subscribe(slow, id_, query)
                await hear(slow)
            slow.transport.pause_reading()
            for _ in range(30):
                board.log.append(20)
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            slow.transport.resume_reading()
            got = {"a": [], "b": [], "c": []}
            while got["a"][-1:] != [600] or got["b"][-1:] != [600] or got["c"][-1:] != [597]:
                frame = await hear(slow)
                got[frame["id"]].append(position_of(frame))
            return got

    got = run(scenario())
    assert got["a"] == got["b"] == list(range(1, 601))
    assert [position for position in got["c"] if position % 10 == 7] == list(range(7, 601, 10))


async def _after(board, position, last):
    """What one gets who goes on from there, on a socket of its own."""
    async with board.ready() as ws:
        await subscribe(ws, "s", PLAIN, variables={"after": f"e1:{position}"})
        frames = [await hear(ws)]
        while position_of(frames[-1]) < last or frames[-1]["payload"]["data"]["both"]["kind"] != "CHECKPOINT":
            frames.append(await hear(ws))
        return _added(frames)


def _named(reason, words):
    match = re.fullmatch(words + r", resume after e1:(\d+)", reason)
    assert match, reason
    return int(match[1])


def test_reader_that_takes_too_long_is_closed_with_4290_and_the_place_where_to_go_on(board, monkeypatch):
    monkeypatch.setattr(outbox_module, "SEND_LIMIT", 1.0)

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            slow = await _stopped(board, stack)
            for _ in range(60):
                board.log.append(10)
                await asyncio.sleep(0.01)
            await until(lambda: board.subscriptions() == 0)
            slow.transport.resume_reading()
            code, reason, frames = await rest_of(slow)
            place = _named(reason, "slow consumer")
            return code, place, _added(frames), await _after(board, place, 600)

    code, place, had, then = run(scenario())
    assert code == 4290
    assert had == list(range(1, place + 1))
    assert had + then == list(range(1, 601))


@pytest.mark.parametrize("waiting", [60, 600])
def test_slow_reader_that_is_told_of_a_restart_goes_on_where_it_was(board, waiting):
    """Its line is full, or is not."""

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            slow = await _stopped(board, stack)
            for _ in range(waiting // 10):
                board.log.append(10)
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
            farewell = board.endpoint._say_farewell(lambda: None)
            asyncio.run_coroutine_threadsafe(farewell, board.loop)
            await until(lambda: not board.subscriptions())
            slow.transport.resume_reading()
            code, reason, frames = await rest_of(slow)
            place = _named(reason, "service restart")
            return code, place, _added(frames), await _after(board, place, waiting)

    code, place, had, then = run(scenario())
    assert code == 1012
    assert had == list(range(1, place + 1))
    assert had + then == list(range(1, waiting + 1))


async def _consumer_of(board, id_):
    """The server's side of the socket on which this operation runs."""
    found = []

    def look():
        found[:] = [one for one in list(board.endpoint._consumers.values()) if id_ in one._protocol.operations]
        return found

    await until(look)
    return found[0]


def _connection_of(consumer):
    """The server's end of its connection: a closed one has no descriptor (-1)."""
    return consumer._send.__self__.transport.get_extra_info("socket")


def test_p19_reader_that_never_reads_is_cut_off_and_costs_the_others_nothing(board, monkeypatch):
    monkeypatch.setattr(outbox_module, "SEND_LIMIT", 0.5)
    monkeypatch.setattr(consumer_module, "CLOSE_LIMIT", 0.5)

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            others = [await stack.enter_async_context(board.ready()) for _ in range(100)]
            for number, ws in enumerate(others):
                await subscribe(ws, f"{number}", PLAIN)
                await hear(ws)
            stuck = await _stopped(board, stack)
            consumer = await _consumer_of(board, "s")
            connection = _connection_of(consumer)
            assert connection.fileno() >= 0
            most = 0
            got = {number: [] for number in range(100)}
            for _ in range(12):
                board.log.append(25)
                for number, ws in enumerate(others):
                    got[number] += [position_of(await hear(ws)) for _ in range(25)]
                most = max(most, len(consumer.outbox._line or ()))
            await until(lambda: board.sockets() == 100)
            await until(lambda: connection.fileno() == -1)
            line = consumer.outbox._line
            stuck.transport.abort()
            return got, most, line, board.subscriptions()

    got, most, line, subscriptions = run(scenario())
    assert all(positions == list(range(1, 301)) for positions in got.values())
    assert most <= outbox_module.MAX_WAITING
    assert line is None
    assert subscriptions == 100


def test_socket_that_is_closed_while_it_does_not_read_is_cut_off_though_no_send_waits(board, monkeypatch):
    """What the server holds for it is less than what makes a send wait, and would be held until TCP gives up."""
    monkeypatch.setattr(consumer_module, "CLOSE_LIMIT", 0.5)

    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            stuck = await _stopped(board, stack)
            consumer = await _consumer_of(board, "s")
            connection = _connection_of(consumer)
            transport = consumer._send.__self__.transport
            while not transport.get_write_buffer_size():  # until the system takes no more
                board.log.append()  # one at a time: many at once would begin a line
                await until(lambda: board.hub._head.position == board.log.position)
            assert consumer.outbox._line is None
            await say(stuck, "nonsense")
            await until(lambda: not board.sockets())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await until(lambda: connection.fileno() == -1)
            left = connection.fileno()
            stuck.transport.abort()
            return left

    assert run(scenario()) == -1


def test_reader_that_is_slow_for_pongs_is_closed_with_4290(board, monkeypatch):
    """What is no event cannot be sent again from the log."""
    monkeypatch.setattr(outbox_module, "MAX_WAITING", 5)

    async def scenario():
        async with board.ready_with_small_buffer() as slow:
            slow.transport.pause_reading()
            ping = '{"type":"ping","payload":{"a":"' + "x" * 60_000 + '"}}'
            for _ in range(70):
                await say(slow, ping)
            await until(lambda: not board.sockets())
            slow.transport.resume_reading()
            return await close_of(slow)

    assert run(scenario()) == (4290, "slow consumer")


class Held:
    """A server whose peer stops reading before the first checkpoint; no network, so that the moment is exact."""

    def __init__(self):
        self.frames = asyncio.Queue()
        self.sent = []

    async def receive(self):
        return await self.frames.get()

    async def send(self, message):
        if "CHECKPOINT" in message.get("text", ""):
            await asyncio.Event().wait()
        self.sent.append(message)

    async def say(self, message):
        await self.frames.put({"type": "websocket.receive", "text": json.dumps(message)})


@pytest.mark.parametrize(("after", "had"), [("e1:3", [4, 5]), (None, [])])
def test_place_where_to_go_on_is_right_when_only_a_checkpoint_could_not_be_sent(monkeypatch, after, had):
    monkeypatch.setattr(outbox_module, "SEND_LIMIT", 0.1)
    board, peer = Board(), Held()
    board.log.append(5)
    scope = {"type": "websocket", "subprotocols": [PROTOCOL], "headers": [], "client": None}

    async def scenario():
        socket = asyncio.create_task(board(scope, peer.receive, peer.send))
        await peer.frames.put({"type": "websocket.connect"})
        await peer.say(INIT)
        payload = {"query": PLAIN, "variables": {"after": after}}
        await peer.say({"type": "subscribe", "id": "s", "payload": payload})
        await until(lambda: peer.sent and peer.sent[-1]["type"] == "websocket.close")
        await peer.frames.put({"type": "websocket.disconnect"})
        await socket
        tasks = board.hub._tasks
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run(scenario())
    texts = [json.loads(message["text"]) for message in peer.sent if message["type"] == "websocket.send"]
    assert _added(texts) == had
    assert (peer.sent[-1]["code"], peer.sent[-1]["reason"]) == (4290, "slow consumer, resume after e1:5")
