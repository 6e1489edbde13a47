"""The socket as clients meet it: a real uvicorn and a real client, on a log in memory; once the board's own log."""

import asyncio
import contextlib
import json
import logging
import socket
import time

import pytest
import uvicorn
from asgiref.sync import sync_to_async
from channels.testing import WebsocketCommunicator
from django.db import connection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from killmails.ingest.store import store_killmail
from killmails.models import LogHead
from killmails.records import parse_package
from realtime import consumer as consumer_module
from realtime import hub as hub_module
from realtime.consumer import GraphQLConsumer
from realtime.hub import Hub
from tests.builders import NOW, raw_package
from tests.realtime.memory_log import SECRET, CountingEngine, MemoryLog
from tests.realtime.running_server import running_server

PROTOCOL = "graphql-transport-ws"
INIT = {"type": "connection_init"}
ACK = {"type": "connection_ack"}
NUMBER = "subscription { number { position } }"
LIMIT = 10.0  # seconds until a test gives up


class Board:
    """A server with a log in memory; `hub` belongs to the server's loop."""

    def __init__(self):
        self.log = MemoryLog()
        self.engine = CountingEngine()
        self.hub = None
        self.port = None

    async def __call__(self, scope, receive, send):
        if self.hub is None:
            self.hub = Hub(self.log, self.engine)
        await GraphQLConsumer.as_asgi(engine=self.engine, hub=self.hub)(scope, receive, send)

    def open(self, **options):
        options = {"subprotocols": [PROTOCOL], "compression": None, "max_size": None} | options
        return connect(f"ws://127.0.0.1:{self.port}/graphql", **options)

    @contextlib.asynccontextmanager
    async def ready(self, **options):
        """A socket that is initialised."""
        async with self.open(**options) as ws:
            await _say(ws, INIT)
            assert await _hear(ws) == ACK
            yield ws


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", 0.02)
    board = Board()
    with running_server(board) as board.port:
        yield board


def _run(scenario):
    async def limited():
        async with asyncio.timeout(LIMIT):
            return await scenario

    return asyncio.run(limited())


async def _say(ws, message):
    await ws.send(message if isinstance(message, str | bytes) else json.dumps(message))


async def _hear(ws):
    return json.loads(await ws.recv())


async def _subscribe(ws, id_="1", query=NUMBER, **payload):
    await _say(ws, {"type": "subscribe", "id": id_, "payload": {"query": query} | payload})


async def _close_of(ws):
    """What the server closed with, after any frames that it still sent."""
    try:
        while True:
            await ws.recv()
    except ConnectionClosed:
        assert len(ws.close_reason.encode()) <= 123
        return ws.close_code, ws.close_reason


async def _until(condition):
    while not condition():  # noqa: ASYNC110  (what it looks at is in another thread)
        await asyncio.sleep(0.005)


def _closed_after(board, *messages, **options):
    """Code and reason of the close that these messages bring, on a socket that is not initialised."""

    async def scenario():
        async with board.open(**options) as ws:
            for message in messages:
                await _say(ws, message)
            return await _close_of(ws)

    return _run(scenario())


# Subprotocol (W1)


@pytest.mark.parametrize("offered", [None, ["graphql-ws"], ["GRAPHQL-TRANSPORT-WS"], ["a", "b"]])
def test_socket_without_our_subprotocol_is_closed_with_4406(board, offered):
    reason = "Subprotocol not acceptable; use graphql-transport-ws"
    assert _closed_after(board, subprotocols=offered) == (4406, reason)


def test_our_subprotocol_is_chosen_among_others(board):
    async def scenario():
        async with board.open(subprotocols=["graphql-ws", PROTOCOL]) as ws:
            return ws.subprotocol

    assert _run(scenario()) == PROTOCOL


# Initialisation (W2, W3, W4)


def test_connection_init_is_acknowledged(board):
    async def scenario():
        async with board.ready() as ws:
            return ws.subprotocol

    assert _run(scenario()) == PROTOCOL


def test_subscribe_before_connection_init_is_closed_with_4401(board):
    subscribe = {"type": "subscribe", "id": "1", "payload": {"query": NUMBER}}
    assert _closed_after(board, subscribe) == (4401, "Unauthorized")
    assert board.engine.executed == []
    assert board.log.heads == 0


def test_second_connection_init_is_closed_with_4429(board):
    assert _closed_after(board, INIT, INIT) == (4429, "Too many initialisation requests")


def test_socket_without_connection_init_is_closed_with_4408(board, monkeypatch):
    assert consumer_module.INIT_LIMIT == 10.0
    monkeypatch.setattr(consumer_module, "INIT_LIMIT", 0.2)
    started = time.monotonic()
    assert _closed_after(board, {"type": "ping"}) == (4408, "Connection initialisation timeout")
    assert 0.2 <= time.monotonic() - started < 1.0


def test_socket_that_is_initialised_in_time_stays(board, monkeypatch):
    monkeypatch.setattr(consumer_module, "INIT_LIMIT", 0.2)

    async def scenario():
        async with board.ready() as ws:
            await asyncio.sleep(0.4)
            await _say(ws, {"type": "ping"})
            return await _hear(ws)

    assert _run(scenario()) == {"type": "pong"}


# Frames that are none (W5, W6, W7)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("hello", "The message is not JSON"),
        ("", "The message is not JSON"),
        ("[" * 60_000, "The message is not JSON"),
        ("[]", "The message is not an object"),
        ('{"type":"start"}', "Unknown message type 'start'"),
        (json.dumps({"type": "ü" * 200}), f"Unknown message type '{'ü' * 40}'"),
        ('{"type":"ping","payload":5}', "payload must be an object"),
        ('{"type":"complete"}', "id must be a string of 1 to 100 characters"),
        (b"\x00", "Binary frames are not part of the protocol"),
        (b"", "Binary frames are not part of the protocol"),
        (json.dumps(INIT).encode(), "Binary frames are not part of the protocol"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_malformed_message_is_closed_with_4400(board, message, reason):
    assert _closed_after(board, message) == (4400, reason)


@pytest.mark.parametrize("id_", ["", 5, "x" * 10_240], ids=["empty", "number", "10 kB"])
def test_id_that_is_none_is_closed_with_4400(board, id_):
    subscribe = {"type": "subscribe", "id": id_, "payload": {"query": NUMBER}}
    assert _closed_after(board, INIT, subscribe) == (4400, "id must be a string of 1 to 100 characters")


def _code_after_bytes(board, data):
    """The close code that these bytes bring. Nothing may follow them: a server that closes with bytes unread
    resets the connection, and its close frame may be lost.
    """

    async def scenario():
        async with board.open() as ws:
            ws.transport.write(data)
            return (await _close_of(ws))[0]

    return _run(scenario())


def test_text_that_is_not_utf8_is_closed_with_1007(board):
    assert _code_after_bytes(board, Frame(Opcode.TEXT, b"\xc3\x28").serialize(mask=True)) == 1007


def test_frame_of_70_kib_is_closed_with_1009_at_its_header(board):
    frame = Frame(Opcode.TEXT, b"x" * 70 * 1024).serialize(mask=True)
    assert _code_after_bytes(board, frame[:14]) == 1009


def test_message_of_a_thousand_pieces_is_closed_with_1009_when_it_exceeds_64_kib(board):
    first = Frame(Opcode.TEXT, b"x" * 64, fin=False).serialize(mask=True)
    piece = Frame(Opcode.CONT, b"x" * 64, fin=False).serialize(mask=True)
    last = Frame(Opcode.CONT, b"x", fin=False).serialize(mask=True)
    assert _code_after_bytes(board, first + piece * 1023 + last) == 1009


def test_frame_of_60_kib_is_answered(board):
    payload = {"a": "x" * 60 * 1024}

    async def scenario():
        async with board.open() as ws:
            await _say(ws, {"type": "ping", "payload": payload})
            return await _hear(ws)

    assert _run(scenario()) == {"type": "pong", "payload": payload}


@pytest.mark.parametrize("id_", ["a", "é" * 100, "\ud800", "😀" * 100])
def test_same_id_twice_is_closed_with_4409(board, id_):
    subscribe = {"type": "subscribe", "id": id_, "payload": {"query": NUMBER}}
    code, reason = _closed_after(board, INIT, subscribe, subscribe)
    assert code == 4409
    assert reason.startswith("Subscriber for ")
    assert reason == "Subscriber for a already exists" or id_ != "a"


# Ping and pong


@pytest.mark.parametrize("payload", [None, {}, {"a": [1, {"b": "ü\ud800"}]}])
def test_ping_is_answered_by_a_pong_before_and_after_initialisation(board, payload):
    ping = {"type": "ping"} | ({} if payload is None else {"payload": payload})

    async def scenario():
        async with board.open() as ws:
            await _say(ws, ping)
            await _say(ws, INIT)
            await _say(ws, ping)
            return [await _hear(ws) for _ in range(3)]

    assert _run(scenario()) == [ping | {"type": "pong"}, ACK, ping | {"type": "pong"}]


def test_unasked_pong_is_not_answered(board):
    async def scenario():
        async with board.ready() as ws:
            await _say(ws, {"type": "pong", "payload": {"a": 1}})
            await _say(ws, {"type": "ping"})
            return await _hear(ws)

    assert _run(scenario()) == {"type": "pong"}


# Queries over the socket (W10)


def test_query_has_one_next_and_one_complete(board):
    async def scenario():
        async with board.ready() as ws:
            await _subscribe(ws, "q", "query($n: String) { hello(name: $n) }", variables={"n": "Zoë"})
            return [await _hear(ws) for _ in range(2)]

    assert _run(scenario()) == [
        {"id": "q", "type": "next", "payload": {"data": {"hello": "hello Zoë"}}},
        {"id": "q", "type": "complete"},
    ]


def test_id_of_a_query_may_be_used_again_after_its_complete(board):
    async def scenario():
        async with board.ready() as ws:
            heard = []
            for _ in range(5):
                await _subscribe(ws, "q", "{ bye }")
                heard += [(await _hear(ws))["type"] for _ in range(2)]
            return heard

    assert _run(scenario()) == ["next", "complete"] * 5


def test_operation_is_chosen_by_its_name(board):
    async def scenario():
        async with board.ready() as ws:
            await _subscribe(ws, "q", "query A { hello } query B { bye }", operationName="B")
            return await _hear(ws)

    assert _run(scenario())["payload"] == {"data": {"bye": "bye"}}


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("{ nothing }", "Cannot query field 'nothing' on type 'Query'."),
        ("{", "Syntax Error: Expected Name, found <EOF>."),
        ("subscription { nothing { id } }", "Cannot query field 'nothing' on type 'Subscription'."),
        ("subscription { both @skip(if: true) { text } }", "The subscription skips its only field."),
        ("subscription { __typename }", "Anonymous Subscription must not select an introspection top level field."),
        ("query A { bye } query B { bye }", "Name one operation: operationName."),
    ],
)
def test_invalid_document_is_one_error_frame_and_the_socket_stays(board, query, message):
    async def scenario():
        async with board.ready() as ws:
            await _subscribe(ws, "q", query)
            error = await _hear(ws)
            await _subscribe(ws, "q", "{ bye }")  # the id is free again
            return error, [(await _hear(ws))["type"] for _ in range(2)]

    error, after = _run(scenario())
    assert (error["id"], error["type"]) == ("q", "error")
    assert error["payload"][0]["message"] == message
    assert after == ["next", "complete"]


def test_internal_error_shows_nothing_of_its_cause(board, caplog):
    async def scenario():
        async with board.ready() as ws:
            await _subscribe(ws, "q", "{ secret bye }")
            return await ws.recv()

    with caplog.at_level(logging.ERROR):
        frame = _run(scenario())
    assert SECRET not in frame
    assert json.loads(frame)["payload"]["errors"][0]["extensions"] == {"code": "INTERNAL_ERROR"}
    assert caplog.text.count(f"RuntimeError: the password is {SECRET}") == 1


def test_failure_of_the_engine_is_one_masked_error_frame(board, caplog):
    def fail(*_):
        raise RuntimeError(SECRET)

    board.engine.stream = fail

    async def scenario():
        async with board.ready() as ws:
            await _subscribe(ws)
            return await _hear(ws)

    error = {"message": "Internal error.", "extensions": {"code": "INTERNAL_ERROR"}}
    assert _run(scenario()) == {"id": "1", "type": "error", "payload": [error]}
    assert caplog.text.count(f"RuntimeError: {SECRET}") == 1


# Subscriptions


def test_subscription_gets_what_is_published_in_order(board):
    async def scenario():
        async with board.ready() as ws:
            await _subscribe(ws, "s", "subscription { both { position kind } }")
            first = await _hear(ws)
            board.log.append(50)
            return first, [await _hear(ws) for _ in range(50)]

    first, rest = _run(scenario())
    assert first["payload"] == {"data": {"both": {"position": 0, "kind": "CHECKPOINT"}}}
    assert [frame["payload"]["data"]["both"]["position"] for frame in rest] == list(range(1, 51))
    assert {(frame["id"], frame["type"]) for frame in rest} == {("s", "next")}


def test_several_operations_share_a_socket(board):
    async def scenario():
        async with board.ready() as ws:
            for id_ in ("a", "b"):
                await _subscribe(ws, id_, "subscription { both { position } }")
            await _subscribe(ws, "c", "subscription { evens { position } }")
            await _subscribe(ws, "q", "{ bye }")
            started = [await _hear(ws) for _ in range(4)]
            await _until(lambda: len(board.hub._groups) == 2)
            board.log.append(2)
            return started, [await _hear(ws) for _ in range(5)]

    started, live = _run(scenario())
    assert sorted((frame["id"], frame["type"]) for frame in started) == [
        ("a", "next"), ("b", "next"), ("q", "complete"), ("q", "next"),
    ]  # fmt: skip
    got = {id_: [_position(frame) for frame in live if frame["id"] == id_] for id_ in "abc"}
    assert got == {"a": [1, 2], "b": [1, 2], "c": [2]}


def _position(frame):
    (data,) = frame["payload"]["data"].values()
    return data["position"]


def test_equal_subscriptions_of_many_sockets_are_executed_once(board):
    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(board.ready()) for _ in range(30)]
            for number, ws in enumerate(sockets):
                await _subscribe(ws, f"own {number}")
            await _until(lambda: board.hub and sum(len(g.members) for g in board.hub._groups.values()) == 30)
            board.log.append()
            return [await _hear(ws) for ws in sockets]

    frames = _run(scenario())
    assert [frame["id"] for frame in frames] == [f"own {number}" for number in range(30)]
    assert {json.dumps(frame["payload"]) for frame in frames} == {'{"data": {"number": {"position": 1}}}'}
    assert [position for _, position in board.engine.executed] == [1]


def test_complete_of_the_client_ends_the_subscription_and_nothing_else(board):
    async def scenario():
        async with board.ready() as ws:
            for id_ in ("a", "b"):
                await _subscribe(ws, id_, "subscription { both { position } }")
                await _hear(ws)
            await _say(ws, {"type": "complete", "id": "a"})
            await _say(ws, {"type": "ping"})
            assert await _hear(ws) == {"type": "pong"}
            board.log.append(2)
            frames = [await _hear(ws) for _ in range(2)]
            await _say(ws, {"type": "complete", "id": "b"})
            await _until(lambda: not board.hub._groups)
            return [(frame["id"], _position(frame)) for frame in frames]

    assert _run(scenario()) == [("b", 1), ("b", 2)]


@pytest.mark.parametrize("id_", ["never", "x" * 100])
def test_complete_of_an_unknown_id_is_ignored(board, id_):
    async def scenario():
        async with board.ready() as ws:
            await _say(ws, {"type": "complete", "id": id_})
            await _say(ws, {"type": "ping"})
            return await _hear(ws)

    assert _run(scenario()) == {"type": "pong"}


def test_id_used_again_right_after_complete_is_a_subscription_of_its_own(board):
    async def scenario():
        async with board.ready() as ws:
            for _ in range(20):
                await _subscribe(ws)
                await _say(ws, {"type": "complete", "id": "1"})
            await _subscribe(ws, "1", "subscription { both { position } }")
            checkpoint = await _hear(ws)
            board.log.append(3)
            frames = [checkpoint] + [await _hear(ws) for _ in range(3)]
            await _until(lambda: len(board.hub._groups) == 1)
            return [_position(frame) for frame in frames], sum(len(g.members) for g in board.hub._groups.values())

    assert _run(scenario()) == ([0, 1, 2, 3], 1)


def test_subscription_is_refused_while_the_log_cannot_be_read(board, monkeypatch):
    monkeypatch.setattr(hub_module, "START_LIMIT", 0.2)
    board.log.fault = OSError(SECRET)

    async def scenario():
        async with board.ready() as ws:
            await _subscribe(ws)
            refused = await _hear(ws)
            await _subscribe(ws, "q", "{ bye }")
            return refused, (await _hear(ws))["type"]

    refused, after = _run(scenario())
    message = "The log of killmails cannot be read at the moment; try again later."
    assert refused["payload"] == [{"message": message, "extensions": {"code": "UNAVAILABLE"}}]
    assert after == "next"


# Leaving (W13)


def _members(board):
    return sum(len(group.members) for group in board.hub._groups.values())


@pytest.mark.parametrize("way", ["close", "abort"])
def test_client_that_leaves_frees_its_subscriptions(board, way):
    async def scenario():
        async with board.ready() as ws:
            await _subscribe(ws, "s", "subscription { both { position } }")
            await _hear(ws)
            assert _members(board) == 1
            if way == "abort":
                ws.transport.abort()
            else:
                await ws.close(1000)
            await _until(lambda: not board.hub._groups)

    _run(scenario())


def test_client_that_vanishes_without_a_close_is_freed_by_the_keepalive(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", 0.02)
    board = Board()

    async def scenario():
        async with board.ready(ping_interval=None) as ws:
            await _subscribe(ws, "s", "subscription { both { position } }")
            await _hear(ws)
            ws.transport.pause_reading()  # as if its machine were gone: nothing is read, nothing answered
            started = time.monotonic()
            await _until(lambda: not board.hub._groups)
            ws.transport.abort()
            return time.monotonic() - started

    with running_server(board, ws_ping_interval=0.3, ws_ping_timeout=0.3) as board.port:
        assert _run(scenario()) < 2.0


def test_servers_own_keepalive_frees_a_vanished_client_within_45_seconds():
    config = uvicorn.Config(Board())
    assert config.ws_ping_interval + config.ws_ping_timeout <= 45


def test_socket_that_leaves_before_its_subscription_stands_leaves_nothing_behind(board):
    async def scenario():
        for _ in range(20):
            async with board.ready() as ws:
                await _subscribe(ws)
                ws.transport.abort()
        await asyncio.sleep(0.2)
        async with board.ready() as ws:
            await _subscribe(ws, "s", "subscription { both { position } }")
            await _hear(ws)
            return _members(board)

    assert _run(scenario()) == 1


# A reader that is too slow


def test_slow_reader_is_closed_with_4290_while_others_get_everything(board, monkeypatch):
    monkeypatch.setattr(consumer_module, "MAX_WAITING", 50)
    query = "subscription { both { position padding } }"
    count = 1500  # of 10 kB: more than the system's buffers hold

    async def scenario():
        async with board.ready() as quick, _with_small_buffer(board) as slow:
            for ws in (slow, quick):
                await _subscribe(ws, "s", query)
                await _hear(ws)
            slow.transport.pause_reading()
            positions = []
            for _ in range(count // 25):
                board.log.append(25)
                positions += [_position(await _hear(quick)) for _ in range(25)]
            await _until(lambda: _members(board) == 1)
            slow.transport.resume_reading()
            got = []
            with contextlib.suppress(ConnectionClosed):
                while True:
                    got.append(_position(await _hear(slow)))
            return positions, got, slow.close_code, slow.close_reason

    positions, got, code, reason = _run(scenario())
    assert positions == list(range(1, count + 1))
    assert got == list(range(1, len(got) + 1))
    assert (code, reason) == (4290, "slow consumer")
    assert len(got) < count


def test_reader_that_never_reads_is_dropped_and_its_results_with_it(board, monkeypatch):
    monkeypatch.setattr(consumer_module, "SEND_LIMIT", 1.0)
    dropped = []
    disconnect = consumer_module.GraphQLConsumer.__call__

    async def watched(self, *arguments):
        await disconnect(self, *arguments)
        dropped.append((self._stuck, self._outbox.qsize() <= consumer_module.MAX_WAITING))

    monkeypatch.setattr(consumer_module.GraphQLConsumer, "__call__", watched)

    async def scenario():
        async with _with_small_buffer(board) as stuck:
            await _subscribe(stuck, "s", "subscription { both { position padding } }")
            await _hear(stuck)
            stuck.transport.pause_reading()
            for _ in range(60):
                board.log.append(25)
                await asyncio.sleep(0.01)
            await _until(lambda: dropped)
            stuck.transport.abort()

    _run(scenario())
    assert dropped == [(True, True)]
    assert _members(board) == 0


@contextlib.asynccontextmanager
async def _with_small_buffer(board):
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    raw.connect(("127.0.0.1", board.port))
    raw.setblocking(False)
    async with board.ready(sock=raw, max_queue=1, ping_interval=None) as ws:
        yield ws


# The board's own application


@pytest.fixture
def log_head(transactional_db):
    """The head of the log, which other tests' cleaning up may have taken away."""
    LogHead.objects.get_or_create(pk=1)
    yield
    connection.close()


def _disconnect():
    connection.close()


@contextlib.asynccontextmanager
async def _communicator():
    """A socket of the application that the server runs, with a hub that belongs to this loop."""
    from killboard import asgi  # it asks the database on import

    hub = Hub(asgi.KillmailLog(), asgi.engine)
    socket_ = WebsocketCommunicator(GraphQLConsumer.as_asgi(engine=asgi.engine, hub=hub), "/graphql", None, [PROTOCOL])
    try:
        assert await socket_.connect() == (True, PROTOCOL)
        yield socket_
        await socket_.disconnect()
    finally:
        for task in hub._tasks:
            task.cancel()
        await asyncio.gather(*hub._tasks, return_exceptions=True)
        # A bound method would be this thread's connection.
        await hub._in_thread(_disconnect)
        await sync_to_async(_disconnect)()


def _store(sequence):
    try:
        store_killmail(parse_package(raw_package(sequence), sequence, NOW))
    finally:
        connection.close()


def test_killmail_that_is_stored_reaches_the_sockets_of_the_board(log_head):
    async def scenario():
        async with _communicator() as ws:
            await ws.send_json_to(INIT)
            assert await ws.receive_json_from() == ACK
            query = "subscription { killmailEvents { position kind killmail { id victim { shipType { id } } } } }"
            await ws.send_json_to({"type": "subscribe", "id": "k", "payload": {"query": query}})
            checkpoint = await ws.receive_json_from(timeout=5)
            await asyncio.to_thread(_store, 1)
            return checkpoint, await ws.receive_json_from(timeout=5)

    checkpoint, added = _run(scenario())
    head = LogHead.objects.get()
    assert checkpoint["payload"]["data"]["killmailEvents"] == {
        "position": f"{head.epoch}:{head.position - 1}", "kind": "CHECKPOINT", "killmail": None,
    }  # fmt: skip
    assert added["payload"]["data"]["killmailEvents"] == {
        "position": f"{head.epoch}:{head.position}",
        "kind": "ADDED",
        "killmail": {"id": "1001", "victim": {"shipType": {"id": "587"}}},
    }
