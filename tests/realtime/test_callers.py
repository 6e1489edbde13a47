"""Who calls: tokens in headers and in connection_init, and what a socket may do before, with and after one."""

import json
import threading

import pytest
from django.db import OperationalError
from graphql import build_schema

from realtime import consumer as consumer_module
from realtime import endpoint as endpoint_module
from realtime import hub as hub_module
from realtime import watches as watches_module
from realtime.callers import LONGEST, Caller, NotAuthenticated, bearer_in, bearer_of
from realtime.endpoint import Endpoint
from realtime.watch import Watch
from tests.realtime.memory_log import CountingEngine, NumberStream
from tests.realtime.running_server import (
    ACK,
    LEGACY,
    LIMIT,
    PROTOCOL,
    Board,
    hear,
    rest_of,
    run,
    running_server,
    say,
    until,
)

SDL = """
type Query { me: String! }
type Mutation { shoot: String! }
type Subscription { mine: String! numbers: Int! }
"""
BOTH = pytest.mark.parametrize("protocol", [PROTOCOL, LEGACY])
INVALID = "The token is not valid, or not any more; send `Bearer` and a valid one, or none."
LOST = "The token could not be looked up; try again later."
WRONG = {
    "other scheme": "Basic a29s",
    "no scheme": "token-of-a",
    "no token": "Bearer",
    "blanks": "Bearer   ",
    "empty": "",
    "number": 5,
    "list": ["Bearer token-of-a"],
    "huge": "Bearer " + "x" * LONGEST,
}
wrong = pytest.mark.parametrize("header", WRONG.values(), ids=WRONG.keys())


class Tokens:
    """Whose they are. `fault` is raised when one is looked up, and nothing is answered while `gate` is closed."""

    def __init__(self):
        self.holders = {"token-of-a": "a", "token-of-b": "b"}
        self.asked = []
        self.fault = None
        self.gate = threading.Event()
        self.gate.set()

    def authenticate(self, token):
        self.asked.append(token)
        assert self.gate.wait(LIMIT)
        if self.fault:
            raise self.fault
        return self.holders.get(token)


def _who(info):
    return str(info.context.caller.viewer)


def _engine(subscribed):
    """Each field answers who asks; what subscribe functions are told is kept."""
    schema = build_schema(SDL)
    mine, numbers = (schema.subscription_type.fields[name] for name in ("mine", "numbers"))
    schema.query_type.fields["me"].resolve = mine.resolve = lambda root, info: _who(info)
    schema.mutation_type.fields["shoot"].resolve = lambda root, info: f"{_who(info)} shot"
    mine.subscribe = lambda root, caller: subscribed.append(caller) or Watch(caller.viewer)
    numbers.subscribe = lambda root, caller: NumberStream()
    numbers.resolve = lambda event, info: event.position
    return CountingEngine(schema)


@pytest.fixture(scope="module")
def server():
    """One for all tests here; each finds it without sockets."""
    tokens, subscribed = Tokens(), []
    board = Board(authenticate=tokens.authenticate, probe=lambda keys: dict.fromkeys(keys, 1))
    board.tokens, board.subscribed, board.engine = tokens, subscribed, _engine(subscribed)
    with pytest.MonkeyPatch.context() as patch, running_server(board) as board.port:
        patch.setattr(hub_module, "POLL", 0.02)
        patch.setattr(watches_module, "LOOK", 0.02)
        yield board


@pytest.fixture
def board(server):
    server.tokens.__init__()
    server.subscribed.clear()
    server.engine.executed.clear()
    yield server
    server.tokens.gate.set()
    run(until(lambda: server.sockets() == 0))


def _init(token):
    return {"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}}


def _begin(protocol, id_, query):
    kind = "subscribe" if protocol == PROTOCOL else "start"
    return {"type": kind, "id": id_, "payload": {"query": query}}


async def _answer(ws, query, protocol=PROTOCOL, id_="q"):
    """The payload of the first answer."""
    await say(ws, _begin(protocol, id_, query))
    while (frame := await hear(ws)).get("id") != id_ or frame["type"] == "complete":
        pass
    return frame["payload"]


def _closed_after(board, *messages, protocol=PROTOCOL):
    """Code and reason of the close that these messages bring, and the frames before it."""

    async def scenario():
        async with board.open(subprotocols=[protocol]) as ws:
            for message in messages:
                await say(ws, message)
            return await rest_of(ws)

    return run(scenario())


# What is a token


@pytest.mark.parametrize("header", ["Bearer token", "bearer token", "BEARER   token  "])
def test_scheme_is_read_in_any_case(header):
    assert bearer_of(header) == bearer_in({"authorization": header}) == bearer_in({"Authorization": header}) == "token"


def test_no_header_is_no_token_and_no_error():
    assert bearer_of(None) is bearer_in(None) is bearer_in({}) is bearer_in({"token": "x"}) is None


@wrong
def test_what_should_be_a_token_and_is_none_is_refused_and_never_taken_for_nobody(header):
    with pytest.raises(NotAuthenticated, match="send `Bearer` and a valid one, or none"):
        bearer_of(header)


def test_longest_header_is_read():
    assert bearer_of("Bearer " + "x" * (LONGEST - 7)) == "x" * (LONGEST - 7)


# With a token


@BOTH
def test_token_of_connection_init_says_who_asks_to_resolvers_and_to_subscribe_functions(board, protocol):
    async def ask(*messages):
        async with board.open(subprotocols=[protocol]) as ws:
            for message in messages:
                await say(ws, message)
            assert await hear(ws) == ACK
            queries = ("{ me }", "mutation { shoot }", "subscription { mine }")
            return [(await _answer(ws, query, protocol, str(n)))["data"] for n, query in enumerate(queries)]

    async def scenario():
        answers = [
            await ask(_init("token-of-a")),
            await ask(_init("token-of-b")),
            await ask({"type": "connection_init"}),
        ]
        await until(lambda: len(board.endpoint.watches) == 0)
        return answers

    assert run(scenario()) == [[{"me": w}, {"shoot": f"{w} shot"}, {"mine": w}] for w in ("a", "b", "None")]
    assert [caller.viewer for caller in board.subscribed] == ["a", "b", None]
    assert {caller.address for caller in board.subscribed} == {"127.0.0.1"}


def test_log_is_the_same_for_everybody(board):
    async def scenario():
        async with board.ready() as nobody, board.open() as someone:
            await say(someone, _init("token-of-a"))
            assert await hear(someone) == ACK
            for ws in (nobody, someone):
                await say(ws, _begin(PROTOCOL, "n", "subscription { numbers }"))
            await until(lambda: board.live() == 2)
            board.log.append()
            return [(await hear(ws))["payload"]["data"] for ws in (nobody, someone)]

    assert run(scenario()) == [{"numbers": board.log.position}] * 2
    assert len(board.engine.executed) == 1


def test_headers_of_the_handshake_give_no_rights(board):
    """A browser sends its cookies whichever page opens the socket."""

    async def scenario():
        headers = {"Cookie": "sessionid=token-of-a", "Authorization": "Bearer token-of-a"}
        async with board.ready(additional_headers=headers) as ws:
            return await _answer(ws, "{ me }")

    assert run(scenario()) == {"data": {"me": "None"}}
    assert board.tokens.asked == []


# With a bad one


@BOTH
def test_bad_token_is_closed_with_4401_and_without_an_acknowledgement(board, protocol):
    code, reason, frames = _closed_after(board, _init("token-of-c"), protocol=protocol)
    assert (code, reason, board.tokens.asked) == (4401, INVALID, ["token-of-c"])
    farewell = {"type": "connection_error", "payload": {"message": INVALID, "code": 4401}}
    assert frames == ([farewell] if protocol == LEGACY else [])


@wrong
def test_what_is_no_token_is_closed_with_4401_and_nobody_is_asked(board, header):
    init = {"type": "connection_init", "payload": {"Authorization": header}}
    assert _closed_after(board, init) == (4401, INVALID, [])
    assert board.tokens.asked == []


def _after_its_token_ended(board):
    """What a socket is answered then, and its next event."""

    async def scenario():
        async with board.open() as ws:
            await say(ws, _init("token-of-a"))
            assert await hear(ws) == ACK
            await say(ws, _begin(PROTOCOL, "n", "subscription { numbers }"))
            await until(lambda: board.live() == 1)
            del board.tokens.holders["token-of-a"]
            answers = [await _answer(ws, query) for query in ("{ me }", "mutation { shoot }", "subscription { mine }")]
            executed = len(board.engine.executed)
            board.log.append()
            return answers, executed, await hear(ws)

    return run(scenario())


def test_token_that_ends_while_the_socket_is_open_gives_no_rights_any_more(board):
    answers, executed, event = _after_its_token_ended(board)
    assert answers == [[{"message": INVALID, "extensions": {"code": "UNAUTHENTICATED"}}]] * 3
    assert executed == 0
    assert event["payload"] == {"data": {"numbers": board.log.position}}  # public: it goes on


def test_who_asks_only_once_who_calls_lets_a_token_live_as_long_as_its_socket(board, monkeypatch):
    """Known to be wrong."""
    known = {}

    async def caller(endpoint, token, address=""):
        return known.setdefault(token, Caller(endpoint._authenticate(token), address))

    monkeypatch.setattr(Endpoint, "caller", caller)
    answers, executed, _ = _after_its_token_ended(board)
    assert (answers[:2], executed) == ([{"data": {"me": "a"}}, {"data": {"shoot": "a shot"}}], 2)


# While the token is looked up


def test_subscribe_before_the_acknowledgement_is_closed_with_4401(board):
    board.tokens.gate.clear()
    begin = _begin(PROTOCOL, "1", "mutation { shoot }")
    assert _closed_after(board, _init("token-of-a"), begin) == (4401, "Unauthorized", [])
    board.tokens.gate.set()
    assert board.engine.executed == []


def test_older_client_begins_at_once_and_waits_for_the_acknowledgement(board):
    board.tokens.gate.clear()

    async def scenario():
        async with board.open(subprotocols=[LEGACY]) as ws:
            await say(ws, _init("token-of-a"))
            for number in range(consumer_module.EARLY):
                await say(ws, _begin(LEGACY, str(number), "{ me }"))
            await until(lambda: board.tokens.asked)
            board.tokens.gate.set()
            return [await hear(ws) for _ in range(1 + 2 * consumer_module.EARLY)]

    first, *frames = run(scenario())
    assert (first, consumer_module.EARLY) == (ACK, 20)
    answers = {frame["id"]: frame["payload"] for frame in frames if frame["type"] == "data"}
    assert answers == {str(number): {"data": {"me": "a"}} for number in range(20)}


def test_no_more_than_twenty_messages_wait(board):
    board.tokens.gate.clear()
    begins = [_begin(LEGACY, str(number), "mutation { shoot }") for number in range(21)]
    code, reason, _ = _closed_after(board, _init("token-of-a"), *begins, protocol=LEGACY)
    board.tokens.gate.set()
    assert (code, reason, board.engine.executed) == (4401, "Unauthorized", [])


def test_older_client_with_a_bad_token_has_nothing_executed_that_waited(board):
    begin = _begin(LEGACY, "1", "mutation { shoot }")
    code, _, frames = _closed_after(board, _init("token-of-c"), begin, protocol=LEGACY)
    assert (code, [frame["type"] for frame in frames], board.engine.executed) == (4401, ["connection_error"], [])


@BOTH
def test_second_connection_init_is_closed_with_4429(board, protocol):
    board.tokens.gate.clear()
    code, _, frames = _closed_after(board, _init("token-of-a"), _init("token-of-a"), protocol=protocol)
    board.tokens.gate.set()
    assert (code, ACK in frames) == (4429, False)


def test_ping_is_answered(board):
    board.tokens.gate.clear()

    async def scenario():
        async with board.open() as ws:
            await say(ws, _init("token-of-a"))
            await say(ws, {"type": "ping"})
            heard = [await hear(ws)]
            board.tokens.gate.set()
            return [*heard, await hear(ws)]

    assert run(scenario()) == [{"type": "pong"}, ACK]


def test_client_that_leaves_is_forgotten_and_nothing_that_waited_runs(board):
    board.tokens.gate.clear()

    async def scenario():
        async with board.open(subprotocols=[LEGACY]) as ws:
            await say(ws, _init("token-of-a"))
            await say(ws, _begin(LEGACY, "1", "mutation { shoot }"))
            await until(lambda: board.tokens.asked)
        await until(lambda: board.sockets() == 0)
        board.tokens.gate.set()
        await until(lambda: not board.endpoint._tasks)

    run(scenario())
    assert board.engine.executed == []


# When it cannot be looked up


def test_who_sent_connection_init_in_time_is_not_closed_because_the_database_is_slow(board):
    board.tokens.gate.clear()

    async def scenario():
        async with board.open() as ws:
            limit = (await board.consumer())._init_limit
            await say(ws, _init("token-of-a"))
            await until(lambda: board.tokens.asked)
            in_time = limit.cancelled()
            board.tokens.gate.set()
            return in_time, await hear(ws)

    assert run(scenario()) == (True, ACK)


def test_token_that_takes_too_long_to_look_up_is_closed_with_1013(board, monkeypatch):
    monkeypatch.setattr(endpoint_module, "ANSWER_LIMIT", 0.1)
    board.tokens.gate.clear()
    assert _closed_after(board, _init("token-of-a")) == (1013, LOST, [])


@BOTH
def test_token_while_the_database_is_away_is_closed_with_1013_and_the_log_has_no_token(board, caplog, protocol):
    board.tokens.fault = OperationalError("connection refused")
    code, reason, frames = _closed_after(board, _init("token-of-a"), protocol=protocol)
    assert (code, reason, ACK in frames) == (1013, LOST, False)
    assert caplog.text.count("A token could not be looked up.") == 1
    assert "connection refused" in caplog.text
    assert "token-of-a" not in caplog.text


def test_operation_while_the_database_is_away_is_an_error_and_the_socket_stays(board):
    async def scenario():
        async with board.open() as ws:
            await say(ws, _init("token-of-a"))
            assert await hear(ws) == ACK
            board.tokens.fault = OperationalError("connection refused")
            away = await _answer(ws, "{ me }")
            board.tokens.fault = None
            return away, await _answer(ws, "{ me }")

    away, back = run(scenario())
    assert away == [{"message": LOST, "extensions": {"code": "UNAVAILABLE"}}]
    assert back == {"data": {"me": "a"}}


def test_token_is_in_no_message_to_the_client(board):
    code, reason, frames = _closed_after(board, _init("kb_secret"))
    assert "kb_secret" not in json.dumps([code, reason, frames])
