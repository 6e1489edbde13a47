"""One operation of a socket, from its subscribe message to its end."""

from typing import Any, Protocol

from realtime.groups import Subscription
from realtime.operations import Operation
from realtime.outbox import Outbox


class Socket(Protocol):
    """What an operation asks of its socket."""

    outbox: Outbox

    def runs(self, running: "Running") -> bool: ...

    def fail(self, running: "Running", errors: list[dict[str, Any]]) -> None: ...


class Running:
    """For the hub, or for the watches; nothing comes through once it has ended."""

    __slots__ = ("consumer", "id", "operation", "outbox", "prefix", "subscription", "watches")

    def __init__(self, consumer: "Socket", id_: str, prefix: str) -> None:
        self.consumer = consumer
        self.outbox = consumer.outbox
        self.id = id_
        self.prefix = prefix
        self.subscription: Subscription | None = None
        self.operation: Operation
        self.watches = False  # instead of a subscription

    def show(self, result: str) -> bool:
        """The state of what it watches."""
        return not self.consumer.runs(self) or self.outbox.put(self.prefix, result)

    def offer(self, subscription: Subscription, position: int, result: str) -> bool:
        if self.subscription is None and not self.consumer.runs(self):
            return True  # completed while it began: its id may be another operation's by now
        # A checkpoint stands after the event of its position.
        return self.outbox.put(self.prefix, result, subscription, max(position, subscription.position + 1))

    def fail(self, errors: list[dict[str, Any]]) -> None:
        self.consumer.fail(self, errors)
