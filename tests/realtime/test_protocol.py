"""The clauses of the graphql-transport-ws protocol, in the order of its text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime import protocol
from realtime.protocol import Close, Code, Complete, Connection, Init, Ping, Pong, Subscribe

QUERY = {"query": "{ hello }"}


def _connection():
    connection = Connection()
    connection.receive('{"type":"connection_init"}')
    return connection


def _refused(connection, message):
    """Code and reason with which the message ends the socket."""
    text = message if isinstance(message, str) else json.dumps(message)
    with pytest.raises(Close) as caught:
        connection.receive(text)
    assert caught.value.reason.isprintable()
    return int(caught.value.code), caught.value.reason


def _outcome(connection, text):
    """The message, or the close."""
    try:
        return connection.receive(text)
    except Close as close:
        return close


def _subscribe(id_="1", payload=QUERY):
    return json.dumps({"type": "subscribe", "id": id_, "payload": payload})


def test_sub_protocol_is_graphql_transport_ws():
    assert protocol.SUBPROTOCOL == "graphql-transport-ws"


def test_close_codes_are_those_of_the_protocol_and_one_of_our_own():
    assert {code.name: int(code) for code in Code} == {
        "MESSAGE_TOO_BIG": 1009,
        "BAD_REQUEST": 4400,
        "UNAUTHORIZED": 4401,
        "SUBPROTOCOL_NOT_ACCEPTABLE": 4406,
        "INIT_TIMEOUT": 4408,
        "SUBSCRIBER_EXISTS": 4409,
        "TOO_MANY_INITS": 4429,
        "SLOW_CONSUMER": 4290,
    }


# ConnectionInit


@pytest.mark.parametrize("payload", [None, {}, {"token": "x"}])
def test_connection_init_with_any_payload_is_accepted(payload):
    message = {"type": "connection_init"} | ({} if payload is None else {"payload": payload})
    assert Connection().receive(json.dumps(message)) == Init(payload)


def test_connection_init_with_null_payload_is_one_without():
    assert Connection().receive('{"type":"connection_init","payload":null}') == Init(None)


def test_second_connection_init_is_4429():
    assert _refused(_connection(), '{"type":"connection_init"}') == (4429, "Too many initialisation requests")


def test_connection_init_that_was_malformed_does_not_initialise():
    connection = Connection()
    assert _refused(connection, '{"type":"connection_init","payload":5}') == (4400, "payload must be an object")
    assert not connection.initialised


# ConnectionAck


def test_connection_ack_is_a_type_and_nothing_else():
    assert json.loads(protocol.ack()) == {"type": "connection_ack"}


# Ping and Pong


@pytest.mark.parametrize("payload", [None, {"a": [1, {"b": "ü\ud800"}]}])
def test_ping_is_answered_by_a_pong_with_its_payload(payload):
    message = {"type": "ping"} | ({} if payload is None else {"payload": payload})
    ping = Connection().receive(json.dumps(message))
    assert ping == Ping(payload)
    assert json.loads(protocol.pong(ping.payload)) == message | {"type": "pong"}


def test_ping_and_pong_may_come_before_connection_init():
    assert Connection().receive('{"type":"ping"}') == Ping(None)
    assert Connection().receive('{"type":"pong"}') == Pong(None)


def test_unasked_pong_is_accepted():
    assert _connection().receive('{"type":"pong","payload":{"a":1}}') == Pong({"a": 1})


# Subscribe


def test_subscribe_carries_query_variables_and_operation_name():
    payload = {"query": "query A { hello }", "variables": {"a": 1}, "operationName": "A", "extensions": {}}
    message = _connection().receive(_subscribe("x", payload))
    assert message == Subscribe("x", "query A { hello }", {"a": 1}, "A")


def test_subscribe_may_leave_out_or_null_all_but_the_query():
    assert _connection().receive(_subscribe()) == Subscribe("1", "{ hello }", None, None)
    nulls = QUERY | {"variables": None, "operationName": None}
    assert _connection().receive(_subscribe("1", nulls)) == Subscribe("1", "{ hello }", None, None)


def test_subscribe_before_the_acknowledgement_is_4401():
    assert _refused(Connection(), _subscribe()) == (4401, "Unauthorized")


def test_subscribe_with_the_id_of_an_active_operation_is_4409():
    connection = _connection()
    connection.begin(connection.receive(_subscribe("a")).id, object())
    assert _refused(connection, _subscribe("a")) == (4409, "Subscriber for a already exists")


def test_subscribe_with_another_id_runs_beside_the_first():
    connection = _connection()
    for id_ in ("a", "b"):
        connection.begin(connection.receive(_subscribe(id_)).id, object())
    assert sorted(connection.operations) == ["a", "b"]


@pytest.mark.parametrize("id_", ["", 5, None, True, [], {}, "x" * 101, "x" * 10_240])
@pytest.mark.parametrize("kind", ["subscribe", "complete"])
def test_id_that_is_no_text_of_1_to_100_characters_is_4400(kind, id_):
    message = {"type": kind, "id": id_, "payload": QUERY}
    assert _refused(_connection(), message) == (4400, "id must be a string of 1 to 100 characters")


@pytest.mark.parametrize("kind", ["subscribe", "complete"])
def test_missing_id_is_4400(kind):
    reason = "id must be a string of 1 to 100 characters"
    assert _refused(_connection(), {"type": kind, "payload": QUERY}) == (4400, reason)


def test_id_of_100_characters_is_accepted():
    assert _connection().receive(_subscribe("x" * 100)).id == "x" * 100


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "payload.query must be a string"),
        ({}, "payload.query must be a string"),
        ({"query": 5}, "payload.query must be a string"),
        ({"query": None}, "payload.query must be a string"),
        ({"query": ["{ hello }"]}, "payload.query must be a string"),
        ("{ hello }", "payload must be an object"),
        ([QUERY], "payload must be an object"),
        (QUERY | {"variables": "abc"}, "payload.variables must be an object"),
        (QUERY | {"variables": [1]}, "payload.variables must be an object"),
        (QUERY | {"operationName": 5}, "payload.operationName must be a string"),
    ],
)
def test_subscribe_of_a_wrong_shape_is_4400_and_names_the_field(payload, reason):
    connection = _connection()
    assert _refused(connection, _subscribe("1", payload)) == (4400, reason)
    assert connection.operations == {}


# Next, Error


@pytest.mark.parametrize("id_", ["1", 'quote"\\', "ü\u2028", "\ud800"])
def test_next_is_a_prefix_the_result_and_a_brace(id_):
    frame = protocol.next_prefix(id_) + '{"data":{"a":1}}' + "}"
    assert json.loads(frame) == {"id": id_, "type": "next", "payload": {"data": {"a": 1}}}


def test_error_carries_a_list_of_errors():
    frame = json.loads(protocol.error("1", [{"message": "no"}]))
    assert frame == {"id": "1", "type": "error", "payload": [{"message": "no"}]}


# Complete


def test_complete_of_the_server_names_the_operation():
    assert json.loads(protocol.complete("1")) == {"id": "1", "type": "complete"}


def test_complete_of_the_client_ends_the_operation():
    connection = _connection()
    connection.begin("1", object())
    assert connection.receive('{"type":"complete","id":"1"}') == Complete("1")
    assert connection.end("1")
    assert connection.operations == {}


def test_operation_ends_once_whoever_is_first():
    connection = _connection()
    token = object()
    connection.begin("1", token)
    assert [connection.end("1"), connection.end("1", token), connection.end("1")] == [True, False, False]


def test_complete_of_an_unknown_id_is_ignored():
    connection = _connection()
    assert connection.receive('{"type":"complete","id":"never"}') == Complete("never")
    assert connection.end("never") is False


def test_id_may_be_used_again_after_complete():
    connection = _connection()
    connection.begin(connection.receive(_subscribe("1")).id, object())
    connection.end("1")
    assert connection.receive(_subscribe("1")).id == "1"


def test_dying_operation_does_not_end_its_successor_of_the_same_id():
    connection = _connection()
    old, new = object(), object()
    connection.begin("1", old)
    connection.end("1")
    connection.begin("1", new)
    assert connection.end("1", old) is False
    assert connection.operations == {"1": new}
    assert connection.end("1", new) is True


# Invalid message


@pytest.mark.parametrize(
    "text",
    [
        *["", "hello", "{", '{"type":"ping"', "\x00", "'", '{"type":"ping"} x', "[" * 50_000, '{"a":' * 10_000],
        *['{"type":"ping","payload":{"a":NaN}}', '{"type":"ping","payload":{"a":-Infinity}}', "1" * 5000],
    ],
    ids=lambda text: text[:20] or "empty",
)
def test_what_is_not_json_is_4400(text):
    assert _refused(_connection(), text) == (4400, "The message is not JSON")


def test_message_of_more_than_64_kib_is_1009():
    assert _refused(_connection(), "[" * 65_537)[0] == 1009
    assert _refused(_connection(), "[" * 65_536)[0] == 4400


@pytest.mark.parametrize("text", ["[]", '"ping"', "5", "null", "true", '[{"type":"ping"}]'])
def test_json_that_is_no_object_is_4400(text):
    assert _refused(_connection(), text) == (4400, "The message is not an object")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({}, "Unknown message type 'None'"),
        ({"type": "start"}, "Unknown message type 'start'"),
        ({"type": "Ping"}, "Unknown message type 'Ping'"),
        ({"type": 5}, "Unknown message type '5'"),
        ({"type": ["ping"]}, "Unknown message type \"['ping']\""),
        ({"type": "x" * 60_000}, f"Unknown message type '{'x' * 40}'"),
        ({"type": "a\nb"}, "Unknown message type 'a\\nb'"),
    ],
)
def test_unknown_type_is_4400_and_is_named(message, reason):
    assert _refused(_connection(), message) == (4400, reason)


@pytest.mark.parametrize("kind", ["connection_ack", "next", "error"])
def test_messages_of_the_server_are_refused_from_a_client(kind):
    assert _refused(_connection(), {"type": kind})[0] == 4400


@pytest.mark.parametrize("kind", ["ping", "pong"])
@pytest.mark.parametrize("payload", [5, "x", [], True])
def test_payload_that_is_no_object_is_4400(kind, payload):
    assert _refused(_connection(), {"type": kind, "payload": payload}) == (4400, "payload must be an object")


@pytest.mark.parametrize("depth", [*range(900, 1010), 30_000])
def test_nesting_of_any_depth_is_a_message_or_4400(depth):
    nested = "[" * depth + "]" * depth
    for text in (
        f'{{"type":{nested}}}',
        f'{{"type":"complete","id":{nested}}}',
        f'{{"type":"ping","payload":{{"a":{nested}}}}}',
    ):
        outcome = _outcome(Connection(), text)
        if isinstance(outcome, Close):
            assert outcome.code is Code.BAD_REQUEST
        else:
            assert protocol.pong(outcome.payload)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(["connection_init", "ping", "pong", "subscribe", "complete"]) | JSON
PAYLOADS = JSON | st.fixed_dictionaries({}, optional={"query": JSON, "variables": JSON, "operationName": JSON})
FRAMES = st.fixed_dictionaries({}, optional={"type": TYPES, "id": JSON, "payload": PAYLOADS}).map(json.dumps)
MESSAGES = (Init, Ping, Pong, Subscribe, Complete)


@settings(max_examples=300, deadline=None)
@given(st.text() | FRAMES, st.booleans())
def test_any_text_is_a_message_or_a_close_and_nothing_else(text, initialised):
    connection = _connection() if initialised else Connection()
    outcome = _outcome(connection, text)
    assert isinstance(outcome, (*MESSAGES, Close))
    if isinstance(outcome, Close):
        assert outcome.code in set(Code)
    if isinstance(outcome, Ping):
        assert json.loads(protocol.pong(outcome.payload))["type"] == "pong"


@settings(max_examples=100, deadline=None)
@given(st.lists(FRAMES, max_size=8))
def test_any_sequence_of_frames_keeps_operations_behind_the_acknowledgement(frames):
    connection = Connection()
    for frame in frames:
        try:
            message = connection.receive(frame)
        except Close:
            break
        if isinstance(message, Subscribe):
            connection.begin(message.id, object())
        if isinstance(message, Complete):
            connection.end(message.id)
        assert connection.initialised or not connection.operations
