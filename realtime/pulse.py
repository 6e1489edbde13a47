"""How the doorbell's two connections are, as heartbeats prove it: sent by one of them, and heard back by the other.

Who publishes learns that Redis took it, who listens that something came. Nothing here is believed for longer than that.
"""

import time
from dataclasses import dataclass

# In the words of the clients that /health/redis was first written for.
NOT_INITIALIZED = "not-initialized"
CONNECTING = "connecting"
READY = "ready"
RECONNECTING = "reconnecting"
END = "end"


@dataclass(frozen=True)
class Status:
    """`round_trip`: seconds that the newest heartbeat took to come back; None where none came in time."""

    publish: str = NOT_INITIALIZED
    subscribe: str = NOT_INITIALIZED
    round_trip: float | None = None

    @property
    def connected(self) -> bool:
        return self.round_trip is not None and (self.publish, self.subscribe) == (READY, READY)


class Connection:
    """One of the two; times are of time.monotonic()."""

    def __init__(self) -> None:
        self._begun = self._ended = False
        self._proven: float | None = None

    def begin(self) -> None:
        self._begun = True

    def prove(self) -> None:
        self._proven = time.monotonic()

    def end(self) -> None:
        self._ended = True

    def state(self, since: float) -> str:
        """What it is when only a proof after `since` counts."""
        if self._ended:
            return END
        if self._proven is not None:
            return READY if self._proven >= since else RECONNECTING
        return CONNECTING if self._begun else NOT_INITIALIZED


class Pulse:
    """The heartbeats of one listener."""

    def __init__(self) -> None:
        self.publishing, self.subscription = Connection(), Connection()
        self._back_at, self._round_trip = float("-inf"), 0.0

    def come_back(self, sent: float) -> None:
        self._back_at = time.monotonic()
        self._round_trip = self._back_at - sent
        self.publishing.prove()  # it may be here before the word that it was taken

    def end(self) -> None:
        self.publishing.end()
        self.subscription.end()

    def status(self, since: float) -> Status:
        round_trip = self._round_trip if self._back_at >= since else None
        return Status(self.publishing.state(since), self.subscription.state(since), round_trip)
