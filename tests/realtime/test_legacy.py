"""The clauses of the subscriptions-transport-ws protocol, in the order of its text."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.legacy import LegacyConnection, choose
from realtime.protocol import Close, Code, Complete, Connection, Init, Subscribe

QUERY = {"query": "{ hello }"}


def _connection():
    connection = LegacyConnection()
    connection.receive('{"type":"connection_init","payload":{}}')
    return connection


def _refused(connection, message):
    """Code and reason with which the message ends the socket."""
    with pytest.raises(Close) as caught:
        connection.receive(message if isinstance(message, str) else json.dumps(message))
    return int(caught.value.code), caught.value.reason


def _start(id_="1", payload=QUERY):
    return json.dumps({"id": id_, "type": "start", "payload": payload})


def test_sub_protocol_is_called_graphql_ws():
    assert LegacyConnection.subprotocol == "graphql-ws"


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (["graphql-transport-ws"], Connection),
        (["graphql-ws"], LegacyConnection),
        (["graphql-ws", "graphql-transport-ws"], Connection),
        (["other", "graphql-ws"], LegacyConnection),
        ([], None),
        (["graphql-subscriptions", "GRAPHQL-WS", "graphql", ""], None),
    ],
)
def test_newer_protocol_is_chosen_where_both_are_offered(offered, chosen):
    assert choose(offered) is chosen


# GQL_CONNECTION_INIT, GQL_CONNECTION_ACK


@pytest.mark.parametrize("payload", [None, {}, {"token": "x"}])
def test_connection_init_is_answered_by_connection_ack(payload):
    connection = LegacyConnection()
    assert connection.receive(json.dumps({"type": "connection_init", "payload": payload})) == Init(payload)
    assert json.loads(connection.ack()) == {"type": "connection_ack"}


def test_second_connection_init_is_4429():
    assert _refused(_connection(), '{"type":"connection_init"}') == (4429, "Too many initialisation requests")


# GQL_START


def test_start_carries_query_variables_and_operation_name():
    payload = {"query": "query A { hello }", "variables": {"a": 1}, "operationName": "A", "extensions": {}}
    assert _connection().receive(_start("x", payload)) == Subscribe("x", "query A { hello }", {"a": 1}, "A")


def test_start_need_not_wait_for_the_acknowledgement_but_for_connection_init():
    connection = LegacyConnection()
    assert _refused(connection, _start()) == (4401, "Unauthorized")
    connection.receive('{"type":"connection_init"}')
    assert connection.receive(_start()) == Subscribe("1", "{ hello }", None, None)


def test_start_of_an_id_that_runs_replaces_the_operation():
    # The client of 0.9 to 0.11 sends each start twice when its first attempt to connect fails.
    connection = _connection()
    old, new = object(), object()
    connection.begin(connection.receive(_start()).id, old)
    connection.begin(connection.receive(_start()).id, new)
    assert connection.operations == {"1": new}
    assert connection.end("1", old) is False
    assert connection.end("1", new) is True


def test_newer_protocol_would_refuse_what_that_client_sends():
    connection = Connection()
    connection.receive('{"type":"connection_init"}')
    connection.begin(connection.receive(_start().replace("start", "subscribe")).id, object())
    assert _refused(connection, _start().replace("start", "subscribe"))[0] == 4409


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"type": "start", "payload": QUERY}, "id must be a string of 1 to 100 characters"),
        ({"type": "start", "payload": QUERY, "id": 1}, "id must be a string of 1 to 100 characters"),
        ({"type": "stop"}, "id must be a string of 1 to 100 characters"),
        ({"type": "start", "id": "1"}, "payload must be an object"),
        ({"type": "start", "id": "1", "payload": {"query": {"kind": "Document"}}}, "payload.query must be a string"),
        ({"type": "connection_init", "payload": "x"}, "payload must be an object"),
        ({"type": "subscribe", "id": "1", "payload": QUERY}, "Unknown message type 'subscribe'"),
        ({"type": "complete", "id": "1"}, "Unknown message type 'complete'"),
        ({"type": "ping"}, "Unknown message type 'ping'"),
        ({"type": "connection_error", "payload": {}}, "Unknown message type 'connection_error'"),
        ({}, "type must be a string"),
        ("start", "The message is not JSON"),
    ],
)
def test_wrong_message_is_4400_and_names_the_field(message, reason):
    connection = _connection() if "init" not in str(message) else LegacyConnection()
    assert _refused(connection, message) == (4400, reason)
    assert connection.operations == {}


def test_message_of_more_bytes_than_the_limit_is_1009():
    assert _refused(LegacyConnection(20), "x" * 21) == (1009, "The message exceeds 20 bytes")


# GQL_STOP, GQL_CONNECTION_TERMINATE


def test_stop_ends_the_operation():
    connection = _connection()
    connection.begin("1", object())
    assert connection.receive('{"id":"1","type":"stop"}') == Complete("1")
    assert connection.end("1") is True


def test_stop_of_an_unknown_id_is_ignored():
    connection = _connection()
    assert connection.receive('{"id":"never","type":"stop"}') == Complete("never")
    assert connection.end("never") is False


@pytest.mark.parametrize("initialised", [True, False])
def test_connection_terminate_closes_normally(initialised):
    connection = _connection() if initialised else LegacyConnection()
    assert _refused(connection, '{"type":"connection_terminate","payload":null}') == (1000, "")


# GQL_CONNECTION_ERROR, GQL_DATA, GQL_ERROR, GQL_COMPLETE, GQL_CONNECTION_KEEP_ALIVE


def test_connection_error_tells_why_as_the_client_looks_at_no_close_code():
    frame = LegacyConnection().farewell(Close(Code.RESTART, "service restart, resume after e1:5"))
    payload = {"message": "service restart, resume after e1:5", "code": 1012}
    assert json.loads(frame) == {"type": "connection_error", "payload": payload}


def test_connection_error_does_not_answer_the_goodbye_of_the_client():
    assert LegacyConnection().farewell(Close(Code.NORMAL, "")) is None


@pytest.mark.parametrize("id_", ["1", 'quote"\\', "ü\u2028", "\ud800"])
def test_data_is_a_prefix_the_result_and_a_brace(id_):
    frame = LegacyConnection().next_prefix(id_) + '{"data":{"a":1}}' + "}"
    assert json.loads(frame.encode()) == {"id": id_, "type": "data", "payload": {"data": {"a": 1}}}


def test_error_carries_an_object_and_no_list():
    errors = [{"message": "no", "extensions": {"code": "X"}}, {"message": "neither"}]
    assert json.loads(LegacyConnection().error("1", errors)) == {"id": "1", "type": "error", "payload": errors[0]}


def test_complete_names_the_operation():
    assert json.loads(LegacyConnection().complete("1")) == {"id": "1", "type": "complete"}


TYPES = st.sampled_from(["connection_init", "start", "stop", "connection_terminate", "ping"]) | st.text(max_size=3)
VALUES = st.none() | st.integers() | st.text(max_size=3) | st.just(QUERY)
FRAMES = st.fixed_dictionaries({}, optional={"type": TYPES, "id": VALUES, "payload": VALUES}).map(json.dumps)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.text() | FRAMES, max_size=6))
def test_any_sequence_of_texts_gives_messages_or_a_close_and_nothing_else(texts):
    connection = LegacyConnection()
    for text in texts:
        try:
            message = connection.receive(text)
        except Close:
            break
        assert isinstance(message, (Init, Subscribe, Complete))
        if isinstance(message, Subscribe):
            connection.begin(message.id, object())
        assert connection.initialised or not connection.operations
