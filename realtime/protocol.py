"""The graphql-transport-ws protocol as a state machine. Knows neither sockets nor Django.

Source: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
A frame goes in through `Connection.receive`, a message comes out, or a `Close` is raised.
"""

import json
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

SUBPROTOCOL = "graphql-transport-ws"
MAX_ID = 100  # characters
MAX_FRAME = 64 * 1024  # bytes of a message to us


class Code(IntEnum):
    """Close codes. Clients try again after 4290 and give up after all the others."""

    MESSAGE_TOO_BIG = 1009
    BAD_REQUEST = 4400
    UNAUTHORIZED = 4401
    SUBPROTOCOL_NOT_ACCEPTABLE = 4406
    INIT_TIMEOUT = 4408
    SUBSCRIBER_EXISTS = 4409
    TOO_MANY_INITS = 4429
    SLOW_CONSUMER = 4290


class Close(Exception):
    """The protocol says that the socket is to be closed, with this code and reason."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Init:
    payload: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Ping:
    payload: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Pong:
    payload: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Subscribe:
    id: str
    query: str
    variables: dict[str, Any] | None
    operation_name: str | None


@dataclass(frozen=True, slots=True)
class Complete:
    id: str


Message = Init | Ping | Pong | Subscribe | Complete


class Connection:
    """What one socket has agreed on so far: whether it is initialised, and which operations run.

    An operation is known by its id and by `token`, an object of the caller's: an id may be used again as soon
    as its operation has ended, and whatever still comes from the old one must not end the new one.
    """

    def __init__(self) -> None:
        self.initialised = False
        self.operations: dict[str, object] = {}

    def receive(self, text: str) -> Message:
        """The message in a text frame. Raises Close for what the protocol forbids."""
        if len(text) > MAX_FRAME:
            raise Close(Code.MESSAGE_TOO_BIG, f"The message exceeds {MAX_FRAME} bytes")
        fields = _fields(text)
        match fields.get("type"):
            case "connection_init":
                return self._init(fields)
            case "ping":
                return Ping(_payload(fields))
            case "pong":
                return Pong(_payload(fields))
            case "subscribe":
                return self._subscribe(fields)
            case "complete":
                return Complete(_id(fields))
        raise Close(Code.BAD_REQUEST, f"Unknown message type {str(fields.get('type'))[:40]!r}")

    def _init(self, fields: dict[str, Any]) -> Init:
        if self.initialised:
            raise Close(Code.TOO_MANY_INITS, "Too many initialisation requests")
        message = Init(_payload(fields))
        self.initialised = True
        return message

    def _subscribe(self, fields: dict[str, Any]) -> Subscribe:
        if not self.initialised:
            raise Close(Code.UNAUTHORIZED, "Unauthorized")
        id_, payload = _id(fields), _payload(fields) or {}
        query, variables, name = (payload.get(key) for key in ("query", "variables", "operationName"))
        if not isinstance(query, str):
            raise Close(Code.BAD_REQUEST, "payload.query must be a string")
        if not isinstance(variables, dict | None):
            raise Close(Code.BAD_REQUEST, "payload.variables must be an object")
        if not isinstance(name, str | None):
            raise Close(Code.BAD_REQUEST, "payload.operationName must be a string")
        if id_ in self.operations:
            raise Close(Code.SUBSCRIBER_EXISTS, f"Subscriber for {id_} already exists")
        return Subscribe(id_, query, variables, name)

    def begin(self, id_: str, token: object) -> None:
        """The operation runs from now on."""
        self.operations[id_] = token

    def end(self, id_: str, token: object | None = None) -> bool:
        """Ends the operation (any, or only that of `token`). False where it had ended before: say nothing then."""
        if id_ not in self.operations or token not in (None, self.operations[id_]):
            return False
        del self.operations[id_]
        return True


def _fields(text: str) -> dict[str, Any]:
    try:
        fields = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise Close(Code.BAD_REQUEST, "The message is not JSON") from error
    if not isinstance(fields, dict):
        raise Close(Code.BAD_REQUEST, "The message is not an object")
    return fields


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, and would send them back in a pong."""
    raise ValueError(f"{constant} is not JSON")


def _payload(fields: dict[str, Any]) -> dict[str, Any] | None:
    payload = fields.get("payload")
    if not isinstance(payload, dict | None):
        raise Close(Code.BAD_REQUEST, "payload must be an object")
    return payload


def _id(fields: dict[str, Any]) -> str:
    id_ = fields.get("id")
    if not isinstance(id_, str) or not 0 < len(id_) <= MAX_ID:
        raise Close(Code.BAD_REQUEST, f"id must be a string of 1 to {MAX_ID} characters")
    return id_


def ack() -> str:
    return '{"type":"connection_ack"}'


def pong(payload: dict[str, Any] | None) -> str:
    return json.dumps({"type": "pong"} | ({} if payload is None else {"payload": payload}))


def next_prefix(id_: str) -> str:
    """A next message is this, the result as JSON, and "}": the result is the same text for many sockets."""
    return f'{{"id":{json.dumps(id_)},"type":"next","payload":'


def error(id_: str, errors: list[dict[str, Any]]) -> str:
    return json.dumps({"id": id_, "type": "error", "payload": errors})


def complete(id_: str) -> str:
    return json.dumps({"id": id_, "type": "complete"})
