"""The older protocol of subscriptions-transport-ws 0.9 to 0.11, whose subprotocol is called graphql-ws.

Source: https://github.com/apollographql/subscriptions-transport-ws/blob/master/PROTOCOL.md
Its client looks at no close code: it connects again after each, if told to (`reconnect: true`).
"""

import json
from collections.abc import Sequence
from typing import Any

from realtime.protocol import Close, Code, Complete, Connection, Message, Subscribe, read_id, unknown


class LegacyConnection(Connection):
    """As `Connection`, in the words of the older protocol."""

    subprotocol = "graphql-ws"
    may_be_early = True

    def receive(self, text: str) -> Message:
        """The message in a text frame. Raises Close for what the protocol forbids, and at the client's goodbye."""
        fields = self._fields(text)
        match kind := fields.get("type"):
            case "connection_init":
                return self._init(fields)
            case "start":
                return self._subscribe(fields)
            case "stop":
                return Complete(read_id(fields))
            case "connection_terminate":
                raise Close(Code.NORMAL, "")
        raise unknown(kind)

    def next_prefix(self, id_: str) -> str:
        return f'{{"id":{json.dumps(id_)},"type":"data","payload":'

    def error(self, id_: str, errors: list[dict[str, Any]]) -> str:
        """The first of the errors: the protocol has room for one, and clients that take a list show no more."""
        return json.dumps({"id": id_, "type": "error", "payload": errors[0]})

    def farewell(self, close: Close) -> str | None:
        if close.code is Code.NORMAL:
            return None
        return json.dumps({"type": "connection_error", "payload": {"message": close.reason, "code": int(close.code)}})

    def _subscribe(self, fields: dict[str, Any]) -> Subscribe:
        """May name an operation that runs, which it then replaces.

        The client starts an operation twice when its first attempt to connect fails.
        """
        return self._operation(fields)


def choose(subprotocols: Sequence[str]) -> type[Connection] | None:
    """The protocol to speak with a client that offers these; None where we know none of them."""
    known = (Connection, LegacyConnection)
    return next((protocol for protocol in known if protocol.subprotocol in subprotocols), None)
