"""One websocket, spoken word by word: what comes is seen as it is."""

import json
import time
from types import TracebackType
from typing import Any, Self

from websockets.sync.client import connect

from tests.e2e.processes import Board

PATIENCE = 60.0  # seconds for what comes at once, on a machine that does not stall
EVENTS = "subscription ($after: String) { killmailEvents(after: $after) { position kind } }"


class Socket:
    """With an operation for each `subscribe`, whose id says whose answers are whose."""

    def __init__(self, board: Board) -> None:
        self.connection = connect(
            board.websocket_url,
            subprotocols=["graphql-transport-ws"],
            max_size=None,
            max_queue=None,
            open_timeout=PATIENCE,
        )
        self._send({"type": "connection_init"})
        assert self.hear() == {"type": "connection_ack"}

    def subscribe(self, id_: str, query: str, **variables: Any) -> None:
        self._send({"id": id_, "type": "subscribe", "payload": {"query": query, "variables": variables}})

    def hear_text(self, seconds: float = PATIENCE) -> str:
        return self.connection.recv(timeout=seconds)

    def hear(self, seconds: float = PATIENCE) -> dict[str, Any]:
        return json.loads(self.hear_text(seconds))

    def _send(self, message: dict[str, Any]) -> None:
        self.connection.send(json.dumps(message))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.connection.close()


def first_answer(board: Board, after: str | None) -> str:
    """To who goes on from a position: the code of the refusal, or the kind and the position of the first event."""
    with Socket(board) as socket:
        socket.subscribe("1", EVENTS, after=after)
        return what(socket.hear())


def what(message: dict[str, Any]) -> str:
    """An answer in short."""
    if message["type"] == "error":
        return message["payload"][0]["extensions"]["code"]
    event = message["payload"]["data"]["killmailEvents"]
    return f"{event['kind']} {event['position'].split(':')[1]}"


def wait_until(holds: Any, seconds: float = PATIENCE) -> None:
    """Until `holds()`, or AssertionError."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.02)
