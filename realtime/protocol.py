"""The graphql-transport-ws protocol as a state machine. Knows neither sockets nor Django.

Source: https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
A frame goes in through `Connection.receive`, a message comes out, or a `Close` is raised.
"""

import json
import math
from dataclasses import dataclass
from enum import IntEnum
from itertools import chain
from typing import Any

MAX_ID = 100  # characters
MAX_DEPTH = 64  # objects and lists within each other
MAX_REASON = 123  # bytes, by RFC 6455


class Code(IntEnum):
    """Close codes.

    The client of graphql-ws (6.4) connects again after 1012, 1013, 4290, 4291, 4408 and 4499: five times, with
    growing pauses. After 1000 it does so at once, if it has operations. After all the others it gives up.
    """

    NORMAL = 1000
    MESSAGE_TOO_BIG = 1009
    RESTART = 1012
    TRY_AGAIN_LATER = 1013
    SLOW_CONSUMER = 4290
    TOO_MANY_MESSAGES = 4291
    BAD_REQUEST = 4400
    UNAUTHORIZED = 4401
    SUBPROTOCOL_NOT_ACCEPTABLE = 4406
    INIT_TIMEOUT = 4408
    SUBSCRIBER_EXISTS = 4409
    TOO_MANY_INITS = 4429
    RESTART_ELSEWHERE = 4499  # for RESTART and TRY_AGAIN_LATER where the server cannot send 1001 to 2999, as daphne
    INTERNAL_ERROR = 4500


class Close(Exception):
    """The protocol says that the socket is to be closed, with this code and reason."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = clip(reason)


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
    Every message that goes out is ASCII: what is not, a lone surrogate too, is escaped.
    """

    subprotocol = "graphql-transport-ws"
    may_be_early = False  # whether operations may come before the acknowledgement

    def __init__(self, max_frame: int = 65_536) -> None:
        """`max_frame`: bytes of UTF-8 that a message to us may have."""
        self.initialised = False
        self.operations: dict[str, object] = {}
        self._max_frame = max_frame

    def receive(self, text: str) -> Message:
        """The message in a text frame. Raises Close for what the protocol forbids."""
        fields = self._fields(text)
        match kind := fields.get("type"):
            case "connection_init":
                return self._init(fields)
            case "ping":
                return Ping(_object(fields, "payload"))
            case "pong":
                return Pong(_object(fields, "payload"))
            case "subscribe":
                return self._subscribe(fields)
            case "complete":
                return Complete(read_id(fields))
        raise unknown(kind)

    def begin(self, id_: str, token: object) -> None:
        """The operation runs from now on."""
        self.operations[id_] = token

    def end(self, id_: str, token: object | None = None) -> bool:
        """Ends the operation (any, or only that of `token`). False where it had ended before: say nothing then."""
        if id_ not in self.operations or token not in (None, self.operations[id_]):
            return False
        del self.operations[id_]
        return True

    def ack(self) -> str:
        return '{"type":"connection_ack"}'

    def pong(self, payload: dict[str, Any] | None) -> str:
        return json.dumps({"type": "pong"} | ({} if payload is None else {"payload": payload}))

    def next_prefix(self, id_: str) -> str:
        """A next message is this, the result as JSON, and "}": the result is the same text for many sockets."""
        return f'{{"id":{json.dumps(id_)},"type":"next","payload":'

    def error(self, id_: str, errors: list[dict[str, Any]]) -> str:
        return json.dumps({"id": id_, "type": "error", "payload": errors})

    def complete(self, id_: str) -> str:
        return json.dumps({"id": id_, "type": "complete"})

    def farewell(self, close: Close) -> str | None:
        """The message to send before closing, where the protocol's clients do not look at code and reason."""
        return None

    def _fields(self, text: str) -> dict[str, Any]:
        # A character has one to four bytes, so that the longest texts need no encoding to be refused.
        size = len(text)
        if size <= self._max_frame and not text.isascii():
            size = len(text.encode(errors="surrogatepass"))
        if size > self._max_frame:
            raise Close(Code.MESSAGE_TOO_BIG, f"The message exceeds {self._max_frame} bytes")
        return _read(text)

    def _init(self, fields: dict[str, Any]) -> Init:
        if self.initialised:
            raise Close(Code.TOO_MANY_INITS, "Too many initialisation requests")
        message = Init(_object(fields, "payload"))
        self.initialised = True
        return message

    def _subscribe(self, fields: dict[str, Any]) -> Subscribe:
        message = self._operation(fields)
        if message.id in self.operations:
            raise Close(Code.SUBSCRIBER_EXISTS, f"Subscriber for {message.id} already exists")
        return message

    def _operation(self, fields: dict[str, Any]) -> Subscribe:
        """The operation that the client asks for, whether or not its id is in use."""
        if not self.initialised:
            raise Close(Code.UNAUTHORIZED, "Unauthorized")
        id_, payload = read_id(fields), _object(fields, "payload")
        if payload is None:
            raise Close(Code.BAD_REQUEST, "payload must be an object")
        query, name = payload.get("query"), payload.get("operationName")
        if not isinstance(query, str):
            raise Close(Code.BAD_REQUEST, "payload.query must be a string")
        variables = _object(payload, "variables", "payload.variables")
        if not isinstance(name, str | None):
            raise Close(Code.BAD_REQUEST, "payload.operationName must be a string")
        _object(payload, "extensions", "payload.extensions")
        return Subscribe(id_, query, variables, name)


def unknown(kind: object) -> Close:
    """The answer to a message of this type, which the protocol does not know."""
    if not isinstance(kind, str):
        return Close(Code.BAD_REQUEST, "type must be a string")
    return Close(Code.BAD_REQUEST, f"Unknown message type {kind[:40]!r}")


def clip(reason: str) -> str:
    """The reason as a close frame takes it: at most 123 bytes of UTF-8, cut between characters."""
    return reason.encode(errors="replace")[:MAX_REASON].decode(errors="ignore")


def _refuse(constant: str) -> None:
    """Python reads NaN and Infinity, and would send them back in a pong."""
    raise ValueError(f"{constant} is not JSON")


def _finite(digits: str) -> float:
    """Python reads 1e400 as infinity, see above."""
    if not math.isfinite(number := float(digits)):
        raise ValueError("not a finite number")
    return number


DECODER = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite)  # json.loads would make one each time


def _read(text: str) -> dict[str, Any]:
    try:
        fields = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Close(Code.BAD_REQUEST, "The message is not JSON") from error
    except ValueError as error:
        raise Close(Code.BAD_REQUEST, "A number in the message is not finite, or too long") from error
    except RecursionError as error:
        raise Close(Code.BAD_REQUEST, "The message is nested too deep") from error
    if not isinstance(fields, dict):
        raise Close(Code.BAD_REQUEST, "The message is not an object")
    if _deeper(fields, MAX_DEPTH):
        raise Close(Code.BAD_REQUEST, "The message is nested too deep")
    return fields


def _deeper(value: dict[str, Any], depth: int) -> bool:
    """Whether objects and lists nest deeper than this. What reads the variables later, recurses."""
    level: list[Any] = [value]
    while level and depth:
        depth -= 1
        children = chain.from_iterable(item.values() if isinstance(item, dict) else item for item in level)
        level = [child for child in children if isinstance(child, (dict, list))]
    return bool(level)


def _object(fields: dict[str, Any], key: str, name: str = "") -> dict[str, Any] | None:
    value = fields.get(key)
    if not isinstance(value, dict | None):
        raise Close(Code.BAD_REQUEST, f"{name or key} must be an object")
    return value


def read_id(fields: dict[str, Any]) -> str:
    """The id of the operation that a message speaks of."""
    id_ = fields.get("id")
    if not isinstance(id_, str) or not 0 < len(id_) <= MAX_ID:
        raise Close(Code.BAD_REQUEST, f"id must be a string of 1 to {MAX_ID} characters")
    return id_
