"""When Python looks for cycles of dead objects: rarely, since it stops everything while it looks.

With ten thousand sockets there are a million objects, and looking through all of them takes a large part of a
second. Python does so whenever their number has grown by a quarter, so after some hundred events too, whose
objects need no search to be freed. What does need one is a closed connection, so those are counted.
"""

import gc
import time

YOUNG = (700, 10)  # Python's own: looking through young objects takes a millisecond
NEVER = 1_000_000
CLOSED = 2_000  # connections, or a quarter of those that are open
LONGEST = 900.0  # seconds


class Garbage:
    """One for each process."""

    def __init__(self) -> None:
        self._closed = 0
        self._looked = time.monotonic()

    def tame(self) -> None:
        """From now on old objects are only looked through by `look`."""
        self.look()
        gc.freeze()  # what is there now stays: modules, the schema
        gc.set_threshold(*YOUNG, NEVER)

    def closed(self) -> None:
        """One more connection is closed."""
        self._closed += 1

    def is_due(self, still_open: int) -> bool:
        """Whether it is time to look. Requests over HTTP leave a little behind, too."""
        return self._closed >= max(CLOSED, still_open / 4) or time.monotonic() - self._looked > LONGEST

    def look(self) -> None:
        """Stops everything meanwhile: choose a moment when nobody is coming in."""
        self._closed, self._looked = 0, time.monotonic()
        gc.collect()
