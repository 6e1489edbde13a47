"""The socket as clients meet it: a real uvicorn and a real client, on a log in memory."""

import contextlib
import json
import logging
import threading
import time

import pytest
from websockets.frames import Frame, Opcode

from killboard.management.commands.serve import UVICORN
from realtime import consumer as consumer_module
from realtime import endpoint as endpoint_module
from realtime import hub as hub_module
from tests.realtime.memory_log import SECRET
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
    run,
    running_server,
    say,
    subscribe,
    until,
)

NUMBER = "subscription { number { position } }"
INIT_LIMIT = consumer_module.INIT_LIMIT  # as it is outside of these tests
BOTH = "subscription($after: String) { both(after: $after) { position kind } }"


@pytest.fixture
def board(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", 0.02)
    board = Board()
    with running_server(board) as board.port:
        yield board


def _closed_after(board, *messages, **options):
    """Code and reason of the close that these messages bring, on a socket that is not initialised."""

    async def scenario():
        async with board.open(**options) as ws:
            for message in messages:
                await say(ws, message)
            return await close_of(ws)

    return run(scenario())


# Subprotocol (W1)


@pytest.mark.parametrize("offered", [None, ["GRAPHQL-TRANSPORT-WS"], ["a", "b"]])
def test_socket_without_our_subprotocol_is_closed_with_4406(board, offered):
    reason = "Subprotocol not acceptable"
    assert _closed_after(board, subprotocols=offered) == (4406, reason)


def test_our_subprotocol_is_chosen_among_others(board):
    async def scenario():
        async with (
            board.open(subprotocols=["other", LEGACY, PROTOCOL]) as both,
            board.open(subprotocols=["other", LEGACY]) as older,
        ):
            return both.subprotocol, older.subprotocol

    assert run(scenario()) == (PROTOCOL, LEGACY)


# Initialisation (W2, W3, W4)


def test_connection_init_is_acknowledged(board):
    async def scenario():
        async with board.ready() as ws:
            return ws.subprotocol

    assert run(scenario()) == PROTOCOL


def test_subscribe_before_connection_init_is_closed_with_4401(board):
    subscribe = {"type": "subscribe", "id": "1", "payload": {"query": NUMBER}}
    assert _closed_after(board, subscribe) == (4401, "Unauthorized")
    assert board.engine.executed == []
    assert board.log.heads == 0


def test_second_connection_init_is_closed_with_4429(board):
    assert _closed_after(board, INIT, INIT) == (4429, "Too many initialisation requests")


def test_socket_without_connection_init_is_closed_with_4408(board, monkeypatch):
    assert INIT_LIMIT == 10.0
    monkeypatch.setattr(consumer_module, "INIT_LIMIT", 0.2)
    started = time.monotonic()
    assert _closed_after(board, {"type": "ping"}) == (4408, "Connection initialisation timeout")
    assert time.monotonic() - started >= 0.2


def test_socket_that_is_initialised_in_time_stays(board):
    async def scenario():
        async with board.open() as ws:
            limit = (await board.consumer())._init_limit
            before = limit.cancelled()
            await say(ws, INIT)
            return await hear(ws), before, limit.cancelled()

    assert run(scenario()) == (ACK, False, True)


# Frames that are none (W5, W6, W7)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("hello", "The message is not JSON"),
        ("", "The message is not JSON"),
        ("[" * 60_000, "The message is nested too deep"),
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
            return (await close_of(ws))[0]

    return run(scenario())


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
            await say(ws, {"type": "ping", "payload": payload})
            return await hear(ws)

    assert run(scenario()) == {"type": "pong", "payload": payload}


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
            await say(ws, ping)
            await say(ws, INIT)
            await say(ws, ping)
            return [await hear(ws) for _ in range(3)]

    assert run(scenario()) == [ping | {"type": "pong"}, ACK, ping | {"type": "pong"}]


def test_unasked_pong_is_not_answered(board):
    async def scenario():
        async with board.ready() as ws:
            await say(ws, {"type": "pong", "payload": {"a": 1}})
            await say(ws, {"type": "ping"})
            return await hear(ws)

    assert run(scenario()) == {"type": "pong"}


# Queries over the socket (W10)


def test_query_has_one_next_and_one_complete(board):
    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "q", "query($n: String) { hello(name: $n) }", variables={"n": "Zoë"})
            return [await hear(ws) for _ in range(2)]

    assert run(scenario()) == [
        {"id": "q", "type": "next", "payload": {"data": {"hello": "hello Zoë"}}},
        {"id": "q", "type": "complete"},
    ]


def test_id_of_a_query_may_be_used_again_after_its_complete(board):
    async def scenario():
        async with board.ready() as ws:
            heard = []
            for _ in range(5):
                await subscribe(ws, "q", "{ bye }")
                heard += [(await hear(ws))["type"] for _ in range(2)]
            return heard

    assert run(scenario()) == ["next", "complete"] * 5


def test_operation_is_chosen_by_its_name(board):
    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "q", "query A { hello } query B { bye }", operationName="B")
            return await hear(ws)

    assert run(scenario())["payload"] == {"data": {"bye": "bye"}}


def test_mutation_has_one_next_and_one_complete(board):
    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "m", "mutation($n: String!) { greet(name: $n) }", variables={"n": "Zoë"})
            return [await hear(ws) for _ in range(2)]

    assert run(scenario()) == [
        {"id": "m", "type": "next", "payload": {"data": {"greet": "greeted Zoë"}}},
        {"id": "m", "type": "complete"},
    ]


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
            await subscribe(ws, "q", query)
            error = await hear(ws)
            await subscribe(ws, "q", "{ bye }")  # the id is free again
            return error, [(await hear(ws))["type"] for _ in range(2)]

    error, after = run(scenario())
    assert (error["id"], error["type"]) == ("q", "error")
    assert error["payload"][0]["message"] == message
    assert after == ["next", "complete"]


def test_internal_error_shows_nothing_of_its_cause(board, caplog):
    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "q", "{ secret bye }")
            return await ws.recv()

    with caplog.at_level(logging.ERROR):
        frame = run(scenario())
    assert SECRET not in frame
    assert json.loads(frame)["payload"]["errors"][0]["extensions"] == {"code": "INTERNAL_ERROR"}
    assert caplog.text.count(f"RuntimeError: the password is {SECRET}") == 1


def test_failure_of_the_engine_is_one_masked_error_frame(board, caplog):
    def fail(*_):
        raise RuntimeError(SECRET)

    board.engine.stream = fail

    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws)
            return await hear(ws)

    error = run(scenario())
    number = error["payload"][0]["message"].removeprefix("Internal error ").removesuffix(".")
    shown = {"message": f"Internal error {number}.", "extensions": {"code": "INTERNAL_ERROR"}}
    assert error == {"id": "1", "type": "error", "payload": [shown]}
    assert f"Internal error {number} in an operation of a websocket." in caplog.text
    assert caplog.text.count(f"RuntimeError: {SECRET}") == 1


# Subscriptions


def test_subscription_gets_what_is_published_in_order(board):
    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "s", "subscription { both { position kind } }")
            first = await hear(ws)
            board.log.append(50)
            return first, [await hear(ws) for _ in range(50)]

    first, rest = run(scenario())
    assert first["payload"] == {"data": {"both": {"position": 0, "kind": "CHECKPOINT"}}}
    assert [frame["payload"]["data"]["both"]["position"] for frame in rest] == list(range(1, 51))
    assert {(frame["id"], frame["type"]) for frame in rest} == {("s", "next")}


def test_several_operations_share_a_socket(board):
    async def scenario():
        async with board.ready() as ws:
            for id_ in ("a", "b"):
                await subscribe(ws, id_, "subscription { both { position } }")
            await subscribe(ws, "c", "subscription { evens { position } }")
            await subscribe(ws, "q", "{ bye }")
            started = [await hear(ws) for _ in range(4)]
            await until(lambda: board.live() == 3)
            board.log.append(2)
            return started, [await hear(ws) for _ in range(5)]

    started, live = run(scenario())
    assert sorted((frame["id"], frame["type"]) for frame in started) == [
        ("a", "next"), ("b", "next"), ("q", "complete"), ("q", "next"),
    ]  # fmt: skip
    got = {id_: [position_of(frame) for frame in live if frame["id"] == id_] for id_ in "abc"}
    assert got == {"a": [1, 2], "b": [1, 2], "c": [2]}


def test_equal_subscriptions_of_many_sockets_are_executed_once(board):
    async def scenario():
        async with contextlib.AsyncExitStack() as stack:
            sockets = [await stack.enter_async_context(board.ready()) for _ in range(30)]
            for number, ws in enumerate(sockets):
                await subscribe(ws, f"own {number}")
            await until(lambda: board.live() == 30)
            board.log.append()
            return [await hear(ws) for ws in sockets]

    frames = run(scenario())
    assert [frame["id"] for frame in frames] == [f"own {number}" for number in range(30)]
    assert {json.dumps(frame["payload"]) for frame in frames} == {'{"data": {"number": {"position": 1}}}'}
    assert board.engine.executed_on == [1]


def test_complete_of_the_client_ends_the_subscription_and_nothing_else(board):
    async def scenario():
        async with board.ready() as ws:
            for id_ in ("a", "b"):
                await subscribe(ws, id_, "subscription { both { position } }")
                await hear(ws)
            await say(ws, {"type": "complete", "id": "a"})
            await say(ws, {"type": "ping"})
            assert await hear(ws) == {"type": "pong"}
            board.log.append(2)
            frames = [await hear(ws) for _ in range(2)]
            await say(ws, {"type": "complete", "id": "b"})
            await until(lambda: not board.subscriptions())
            return [(frame["id"], position_of(frame)) for frame in frames]

    assert run(scenario()) == [("b", 1), ("b", 2)]


@pytest.mark.parametrize("id_", ["never", "x" * 100])
def test_complete_of_an_unknown_id_is_ignored(board, id_):
    async def scenario():
        async with board.ready() as ws:
            await say(ws, {"type": "complete", "id": id_})
            await say(ws, {"type": "ping"})
            return await hear(ws)

    assert run(scenario()) == {"type": "pong"}


def test_id_used_again_right_after_complete_is_a_subscription_of_its_own(board):
    async def scenario():
        async with board.ready() as ws:
            for _ in range(20):
                await subscribe(ws)
                await say(ws, {"type": "complete", "id": "1"})
            await subscribe(ws, "1", "subscription { both { position } }")
            checkpoint = await hear(ws)
            board.log.append(3)
            frames = [checkpoint] + [await hear(ws) for _ in range(3)]
            await until(lambda: board.live() == 1)
            return [position_of(frame) for frame in frames], board.subscriptions()

    assert run(scenario()) == ([0, 1, 2, 3], 1)


def test_subscription_is_refused_while_the_log_cannot_be_read(board, monkeypatch):
    monkeypatch.setattr(hub_module, "START_LIMIT", 0.2)
    board.log.fault = OSError(SECRET)

    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws)
            refused = await hear(ws)
            await subscribe(ws, "q", "{ bye }")
            return refused, (await hear(ws))["type"]

    refused, after = run(scenario())
    message = "The log cannot be read at the moment; try again later."
    assert refused["payload"] == [{"message": message, "extensions": {"code": "UNAVAILABLE"}}]
    assert after == "next"


# Going on from a token (W11)


def test_subscription_goes_on_after_its_token(board):
    board.log.append(1000)

    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "s", BOTH, variables={"after": "e1:10"})
            frames = [await hear(ws) for _ in range(991)]
            board.log.append()
            return [frame["payload"]["data"]["both"] for frame in [*frames, await hear(ws)]]

    *replayed, checkpoint, live = run(scenario())
    assert replayed == [{"position": number, "kind": "ADDED"} for number in range(11, 1001)]
    assert (checkpoint, live) == ({"position": 1000, "kind": "CHECKPOINT"}, {"position": 1001, "kind": "ADDED"})


@pytest.mark.parametrize(
    ("after", "code"),
    [
        ("garbage", "STREAM_TOKEN_INVALID"),
        ("e1:200001", "STREAM_TOKEN_AHEAD"),
        ("e1:5", "STREAM_TOKEN_TOO_OLD"),
        ("e0:200000", "STREAM_EPOCH_CHANGED"),
    ],
)
def test_token_that_cannot_be_used_is_an_error_with_its_code_and_the_socket_stays(board, after, code):
    board.log.append(200_000)

    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "s", BOTH, variables={"after": after})
            error = await hear(ws)
            await subscribe(ws, "s", BOTH)  # the id is free again
            return error, await hear(ws), board.subscriptions()

    error, checkpoint, kept = run(scenario())
    assert (error["id"], error["type"]) == ("s", "error")
    assert [one["extensions"] for one in error["payload"]] == [{"code": code}]
    assert position_of(checkpoint) == 200_000
    assert kept == 1


def test_log_that_begins_anew_is_an_error_of_the_operation_and_the_socket_stays(board):
    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "s", BOTH)
            await hear(ws)
            board.log.reset("e2", 7)
            error = await hear(ws)
            await subscribe(ws, "s", BOTH)
            return error, await hear(ws)

    error, checkpoint = run(scenario())
    assert (error["type"], error["payload"][0]["extensions"]) == ("error", {"code": "STREAM_EPOCH_CHANGED"})
    assert position_of(checkpoint) == 7


def test_operation_that_a_deleted_log_ends_leaves_nothing_behind(board):
    board.log.append(1000)
    board.log.holes = range(1, 501)

    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "s", BOTH, variables={"after": "e1:5"})
            error = await hear(ws)
            return error["payload"][0]["extensions"], board.subscriptions()

    assert run(scenario()) == ({"code": "STREAM_TOKEN_TOO_OLD"}, 0)


def test_operation_that_is_completed_while_it_begins_says_nothing_under_its_id(board):
    """The id may be another operation's by then."""
    begin, begun, completed = board.engine.stream, threading.Event(), threading.Event()

    def slowly(operation):
        board.engine.stream = begin
        begun.set()
        assert completed.wait(LIMIT)
        return begin(operation)

    board.engine.stream = slowly

    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "1", "subscription { old: both { position } }")
            await until(begun.is_set)
            await say(ws, {"type": "complete", "id": "1"})
            await subscribe(ws, "1", "subscription { new: both { position } }")
            heard = await hear(ws)
            completed.set()
            await until(lambda: not board.endpoint._tasks)
            await say(ws, {"type": "ping"})
            return heard, await hear(ws)

    first = {"id": "1", "type": "next", "payload": {"data": {"new": {"position": 0}}}}
    assert run(scenario()) == (first, {"type": "pong"})


def test_query_that_is_completed_before_its_turn_is_not_executed(board):
    """Else a client could queue any number, and complete them, to hold up everybody's."""
    completed = threading.Event()

    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "first", "{ bye }")  # from now on the document is known, and nothing of it waits
            assert [(await hear(ws))["id"] for _ in range(2)] == ["first"] * 2
            board.engine.before_execute = lambda: completed.wait(LIMIT)
            for number in range(40):
                await subscribe(ws, f"q{number}", "{ bye }")
                await say(ws, {"type": "complete", "id": f"q{number}"})
            await subscribe(ws, "last", "{ hello }")
            await say(ws, {"type": "ping"})
            pong = await hear(ws)  # all that was said before has been read by now
            completed.set()
            return pong["type"], (await hear(ws))["id"], len(board.engine.executed)

    pong, answered, executed = run(scenario())
    assert (pong, answered) == ("pong", "last")
    assert executed <= 1 + endpoint_module.QUERY_THREADS + 1


def test_query_without_an_answer_in_time_is_unavailable_and_the_socket_stays(board, monkeypatch):
    monkeypatch.setattr(endpoint_module, "ANSWER_LIMIT", 0.2)
    refusal = threading.Event()

    async def scenario():
        async with board.ready() as ws:
            board.engine.before_execute = lambda: refusal.wait(LIMIT)
            await subscribe(ws, "q", "{ bye }")
            refused = await hear(ws)
            refusal.set()
            await say(ws, {"type": "ping"})
            return refused, await hear(ws)

    error = {"message": "There was no answer in time; try again later.", "extensions": {"code": "UNAVAILABLE"}}
    assert run(scenario()) == ({"id": "q", "type": "error", "payload": [error]}, {"type": "pong"})


# Leaving (W13)


@pytest.mark.parametrize("way", ["close", "abort"])
def test_client_that_leaves_frees_its_subscriptions(board, way):
    async def scenario():
        async with board.ready() as ws:
            await subscribe(ws, "s", "subscription { both { position } }")
            await hear(ws)
            assert board.subscriptions() == 1
            if way == "abort":
                ws.transport.abort()
            else:
                await ws.close(1000)
            await until(lambda: not board.subscriptions())

    run(scenario())


def test_client_that_vanishes_without_a_close_is_freed_by_the_keepalive(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", 0.02)
    board = Board()

    async def scenario():
        async with board.ready(ping_interval=None) as ws:
            await subscribe(ws, "s", "subscription { both { position } }")
            await hear(ws)
            ws.transport.pause_reading()  # as if its machine were gone: nothing is read, nothing answered
            (consumer,) = board.endpoint._consumers.values()
            connection = consumer._send.__self__
            connection.ping_interval = connection.ping_timeout = 0.1  # not before: it would have had to be so quick
            connection.stop_keepalive()
            board.loop.call_soon_threadsafe(connection.start_keepalive)
            await until(lambda: not board.subscriptions())
            ws.transport.abort()

    with running_server(board) as board.port:
        run(scenario())


def test_servers_own_keepalive_frees_a_vanished_client_within_45_seconds():
    assert UVICORN["ws_ping_interval"] + UVICORN["ws_ping_timeout"] <= 45


def test_socket_that_leaves_before_its_subscription_stands_leaves_nothing_behind(board):
    async def scenario():
        for _ in range(20):
            async with board.ready() as ws:
                await subscribe(ws)
                ws.transport.abort()
        await until(lambda: not board.sockets() and not board.endpoint._tasks)
        async with board.ready() as ws:
            await subscribe(ws, "s", "subscription { both { position } }")
            await hear(ws)
            return board.subscriptions()

    assert run(scenario()) == 1
