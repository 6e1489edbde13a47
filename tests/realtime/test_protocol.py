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


def _fresh(kind):
    """A connection that a message of this type may come to."""
    return Connection() if kind == "connection_init" else _connection()


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


# Communication


def test_sub_protocol_is_graphql_transport_ws():
    assert Connection.subprotocol == "graphql-transport-ws"


def test_close_codes_are_those_of_websockets_of_the_protocol_and_our_own():
    codes = {code.name: int(code) for code in Code}
    of_websockets = {"NORMAL": 1000, "MESSAGE_TOO_BIG": 1009, "RESTART": 1012, "TRY_AGAIN_LATER": 1013}
    of_our_own = {"SLOW_CONSUMER": 4290, "TOO_MANY_MESSAGES": 4291, "RESTART_ELSEWHERE": 4499}
    assert codes == of_websockets | of_our_own | {
        "BAD_REQUEST": 4400,
        "UNAUTHORIZED": 4401,
        "SUBPROTOCOL_NOT_ACCEPTABLE": 4406,
        "INIT_TIMEOUT": 4408,
        "SUBSCRIBER_EXISTS": 4409,
        "TOO_MANY_INITS": 4429,
        "INTERNAL_ERROR": 4500,
    }


@pytest.mark.parametrize("kind", ["connection_init", "ping", "pong", "subscribe", "complete"])
def test_fields_that_the_protocol_does_not_know_are_ignored(kind):
    known = {"type": kind, "id": "1", "payload": QUERY}
    more = {"type": kind, "id": "1", "payload": QUERY, "extra": [1], "Type": "ping"}
    assert _fresh(kind).receive(json.dumps(more)) == _fresh(kind).receive(json.dumps(known))


def test_of_a_field_that_comes_twice_the_last_counts_as_in_javascript():
    assert _connection().receive('{"type":"subscribe","type":"ping"}') == Ping(None)
    twice = '{"type":"subscribe","id":"1","payload":{"query":"a","query":"b","variables":{"n":1,"n":2}}}'
    assert _connection().receive(twice) == Subscribe("1", "b", {"n": 2}, None)


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


@pytest.mark.parametrize("payload", [5, "token", [], ["token"], True])
def test_connection_init_with_a_payload_that_is_no_object_is_4400(payload):
    message = {"type": "connection_init", "payload": payload}
    assert _refused(Connection(), message) == (4400, "payload must be an object")


# ConnectionAck


def test_connection_ack_is_a_type_and_nothing_else():
    assert json.loads(Connection().ack()) == {"type": "connection_ack"}


# Ping and Pong


@pytest.mark.parametrize("payload", [None, {"a": [1, {"b": "ü\ud800"}]}])
def test_ping_is_answered_by_a_pong_with_its_payload(payload):
    message = {"type": "ping"} | ({} if payload is None else {"payload": payload})
    ping = Connection().receive(json.dumps(message))
    assert ping == Ping(payload)
    assert json.loads(Connection().pong(ping.payload)) == message | {"type": "pong"}


@pytest.mark.parametrize("kind", ["ping", "pong"])
def test_null_payload_of_ping_and_pong_is_one_without(kind):
    message = _connection().receive(json.dumps({"type": kind, "payload": None}))
    assert message.payload is None
    assert json.loads(Connection().pong(message.payload)) == {"type": "pong"}


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
    nulls = QUERY | {"variables": None, "operationName": None, "extensions": None}
    assert _connection().receive(_subscribe("1", nulls)) == Subscribe("1", "{ hello }", None, None)


def test_subscribe_may_carry_extensions_of_which_we_know_none():
    assert _connection().receive(_subscribe("1", QUERY | {"extensions": {"a": 1}})) == Subscribe(
        "1", "{ hello }", None, None
    )


def test_subscribe_before_the_acknowledgement_is_4401():
    connection = Connection()
    assert _refused(connection, _subscribe()) == (4401, "Unauthorized")
    assert connection.operations == {}


def test_subscribe_before_the_acknowledgement_is_4401_whatever_else_is_wrong_with_it():
    assert _refused(Connection(), {"type": "subscribe"}) == (4401, "Unauthorized")


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
        (None, "payload must be an object"),
        ({}, "payload.query must be a string"),
        ({"query": 5}, "payload.query must be a string"),
        ({"query": None}, "payload.query must be a string"),
        ({"query": ["{ hello }"]}, "payload.query must be a string"),
        ("{ hello }", "payload must be an object"),
        ([QUERY], "payload must be an object"),
        (QUERY | {"variables": "abc"}, "payload.variables must be an object"),
        (QUERY | {"variables": [1]}, "payload.variables must be an object"),
        (QUERY | {"operationName": 5}, "payload.operationName must be a string"),
        (QUERY | {"extensions": []}, "payload.extensions must be an object"),
        (QUERY | {"extensions": "x"}, "payload.extensions must be an object"),
    ],
)
def test_subscribe_of_a_wrong_shape_is_4400_and_names_the_field(payload, reason):
    connection = _connection()
    assert _refused(connection, _subscribe("1", payload)) == (4400, reason)
    assert connection.operations == {}


def test_subscribe_without_a_payload_is_4400():
    assert _refused(_connection(), '{"type":"subscribe","id":"1"}') == (4400, "payload must be an object")


# Next, Error

IDS = ["1", 'quote"\\', "ü\u2028", "\ud800", "\x00", "😀" * 100]


@pytest.mark.parametrize("id_", IDS)
def test_next_is_a_prefix_the_result_and_a_brace(id_):
    frame = Connection().next_prefix(id_) + '{"data":{"a":1}}' + "}"
    assert json.loads(frame) == {"id": id_, "type": "next", "payload": {"data": {"a": 1}}}


def test_error_carries_a_list_of_errors():
    frame = json.loads(Connection().error("1", [{"message": "no"}]))
    assert frame == {"id": "1", "type": "error", "payload": [{"message": "no"}]}


@pytest.mark.parametrize("id_", IDS)
def test_what_goes_out_is_utf_8_whatever_the_id_and_the_texts(id_):
    connection = Connection()
    payload = {id_: [id_]}
    frames = [connection.next_prefix(id_) + "{}}", connection.error(id_, [{"message": id_}]), connection.complete(id_)]
    assert [json.loads(frame.encode())["id"] for frame in frames] == [id_] * 3
    assert json.loads(connection.pong(payload).encode()) == {"type": "pong", "payload": payload}


# Complete


def test_complete_of_the_server_names_the_operation():
    assert json.loads(Connection().complete("1")) == {"id": "1", "type": "complete"}


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


def test_complete_before_connection_init_is_one_of_an_unknown_id():
    connection = Connection()
    assert connection.receive('{"type":"complete","id":"1"}') == Complete("1")
    assert connection.end("1") is False
    assert not connection.initialised


def test_complete_may_carry_a_payload_of_any_kind():
    assert _connection().receive('{"type":"complete","id":"1","payload":5}') == Complete("1")


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
        *["", "hello", "{", '{"type":"ping"', "\x00", "'", '{"type":"ping"} x', '\ufeff{"type":"ping"}'],
        *["{'type':'ping'}", '{"type":"ping",}', '{"type":"a\nb"}'],
    ],
    ids=lambda text: text[:20] or "empty",
)
def test_what_is_not_json_is_4400(text):
    assert _refused(_connection(), text) == (4400, "The message is not JSON")


NUMBERS = ["NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1" * 5000]


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:10])
def test_number_that_cannot_be_sent_back_as_json_is_4400(number):
    reason = "A number in the message is not finite, or too long"
    assert _refused(_connection(), f'{{"type":"ping","payload":{{"a":{number}}}}}') == (4400, reason)


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: number[:10])
def test_reader_of_python_alone_would_let_a_number_through_that_is_not_json(number):
    def refuse(constant):
        raise ValueError(constant)

    try:
        back = json.dumps(json.loads(number))
    except ValueError:
        assert number == "1" * 5000
    else:
        with pytest.raises(ValueError, match=r"Infinity|NaN"):
            json.loads(back, parse_constant=refuse)


@pytest.mark.parametrize("number", ["9" * 400, "1.5", "-0.0", "1e308", str(2**63)])
def test_other_numbers_come_back_as_they_were(number):
    ping = _connection().receive(f'{{"type":"ping","payload":{{"a":{number}}}}}')
    assert json.loads(Connection().pong(ping.payload))["payload"] == {"a": json.loads(number)}


def _ping_of(size, letter):
    """A ping of this many bytes, filled with a letter."""
    empty = len('{"type":"ping","payload":{"a":""}}')
    count, rest = divmod(size - empty, len(letter.encode()))
    text = f'{{"type":"ping","payload":{{"a":"{letter * count}{"." * rest}"}}}}'
    assert len(text.encode()) == size
    return text


@pytest.mark.parametrize("letter", ["x", "ü", "€", "😀"])
def test_message_of_more_bytes_than_the_limit_is_1009(letter):
    for limit in (100, 1_000, 65_536):
        assert isinstance(Connection(limit).receive(_ping_of(limit, letter)), Ping)
        too_big = (1009, f"The message exceeds {limit} bytes")
        assert _refused(Connection(limit), _ping_of(limit + 1, letter)) == too_big


def test_counting_characters_instead_of_bytes_would_let_four_times_the_limit_through():
    assert len(_ping_of(65_537, "😀")) < 65_536 / 3


def test_limit_of_a_message_is_64_kib_unless_told_otherwise():
    assert _refused(_connection(), "[" * 65_537) == (1009, "The message exceeds 65536 bytes")
    assert _refused(_connection(), "[" * 65_536)[0] == 4400


def test_lone_surrogate_counts_three_bytes():
    assert isinstance(Connection(30).receive('{"type":"pong","a":"' + "\ud800" * 2 + '."}'), Pong)
    assert _refused(Connection(30), '{"type":"pong","a":"' + "\ud800" * 3 + '"}')[0] == 1009


@pytest.mark.parametrize("text", ["[]", '"ping"', "5", "null", "true", '[{"type":"ping"}]'])
def test_json_that_is_no_object_is_4400(text):
    assert _refused(_connection(), text) == (4400, "The message is not an object")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({}, "type must be a string"),
        ({"type": "start"}, "Unknown message type 'start'"),
        ({"type": "Ping"}, "Unknown message type 'Ping'"),
        ({"type": None}, "type must be a string"),
        ({"type": 5}, "type must be a string"),
        ({"type": ["ping"]}, "type must be a string"),
        ({"type": ""}, "Unknown message type ''"),
        ({"type": "x" * 60_000}, f"Unknown message type '{'x' * 40}'"),
        ({"type": "a\nb"}, "Unknown message type 'a\\nb'"),
        ({"type": "\ud800"}, "Unknown message type '\\ud800'"),
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


def _nested(depth, brackets="[]"):
    """A message whose objects and lists nest as deep as this."""
    opening, closing = {"[]": ("[", "]"), "{}": ('{"a":', "}")}[brackets]
    inner = depth - 3
    return f'{{"type":"ping","payload":{{"a":{opening * inner}{brackets}{closing * inner}}}}}'


@pytest.mark.parametrize("brackets", ["[]", "{}"])
def test_nesting_is_accepted_to_64_and_4400_beyond(brackets):
    ping = _connection().receive(_nested(64, brackets))
    assert json.loads(Connection().pong(ping.payload))["payload"] == ping.payload
    for depth in (65, 100, *range(900, 1010), 10_000):
        assert _refused(_connection(), _nested(depth, brackets)) == (4400, "The message is nested too deep")


@pytest.mark.parametrize("text", ["[" * 50_000, '{"a":' * 10_000])
def test_nesting_that_never_ends_is_4400(text):
    assert _refused(_connection(), text) == (4400, "The message is nested too deep")


def test_broad_messages_are_not_deep_ones():
    payload = {str(number): [{"a": [number]}] for number in range(1_000)}
    assert _connection().receive(json.dumps({"type": "ping", "payload": payload})) == Ping(payload)


@pytest.mark.parametrize(
    ("reason", "clipped"),
    [
        ("", ""),
        ("x" * 123, "x" * 123),
        ("x" * 124, "x" * 123),
        ("ü" * 62, "ü" * 61),
        ("x" + "ü" * 61, "x" + "ü" * 61),
        ("€" * 42, "€" * 41),
        ("😀" * 31, "😀" * 30),
        ("a\ud800b", "a?b"),
    ],
)
def test_reason_is_cut_to_123_bytes_between_characters(reason, clipped):
    assert protocol.clip(reason) == clipped
    assert Close(Code.BAD_REQUEST, reason).reason == clipped


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=300))
def test_clipped_reason_fits_and_is_the_beginning(reason):
    clipped = protocol.clip(reason)
    assert reason.startswith(clipped)
    assert len(clipped.encode()) <= 123
    assert clipped == reason or len(clipped.encode()) >= 120
    assert protocol.clip(clipped) == clipped


def test_reason_of_an_id_in_use_fits_a_close_frame():
    connection = _connection()
    for id_ in ("😀" * 100, "\ud800" * 100):
        connection.begin(id_, object())
        code, reason = _refused(connection, _subscribe(id_))
        assert code == 4409
        assert len(reason.encode()) <= 123


def test_close_code_and_reason_tell_clients_of_this_protocol_enough():
    assert Connection().farewell(Close(Code.RESTART, "service restart")) is None


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
        assert len(outcome.reason.encode()) <= 123
    if isinstance(outcome, Ping) and outcome.payload is not None:
        assert json.loads(connection.pong(outcome.payload).encode()) == {"type": "pong", "payload": outcome.payload}


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
