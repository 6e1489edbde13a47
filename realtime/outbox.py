"""What one socket is still to be sent: at once while it reads, in a bounded line while it does not."""

import asyncio
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, NamedTuple

from realtime.server import direct, write_text

MAX_WAITING = 256  # messages in line
MAX_WAITING_SIZE = 1024 * 1024  # characters of them, beyond which there is room for nothing more
SEND_LIMIT = 10.0  # seconds that one message may take

Send = Callable[[dict[str, Any]], Coroutine[Any, Any, None]]


class Waiting(NamedTuple):
    """A text in line, in its two halves; an event says whose it is, and its position."""

    prefix: str
    rest: str
    owner: object
    position: int

    @property
    def size(self) -> int:
        return len(self.prefix) + len(self.rest)

    def message(self) -> dict[str, Any]:
        return {"type": "websocket.send", "text": whole(self.prefix, self.rest)}


def whole(prefix: str, rest: str) -> str:
    """A result is the same text for many sockets: it is put together with what is one socket's own when it is sent."""
    return f"{prefix}{rest}}}" if rest else prefix


class Outbox:
    """The sending half of one socket. Everything here happens in the event loop; only what is in line waits.

    `drained` is called when the line has come to its end, `stuck` when one message took longer than `SEND_LIMIT`,
    `gone` when there is nobody to send to any more.
    """

    __slots__ = ("_direct", "_drained", "_gone", "_line", "_send", "_size", "_stuck", "_task", "closed")

    def __init__(
        self, send: Send, drained: Callable[[], None], stuck: Callable[[], None], gone: Callable[[], None]
    ) -> None:
        self._send = send
        self._direct = direct(send)
        self._drained = drained
        self._stuck = stuck
        self._gone = gone
        self._line: deque[Waiting] | None = None  # a socket that reads has none
        self._size = 0
        self._task: asyncio.Task[None] | None = None
        self.closed = False

    def put(self, prefix: str, rest: str = "", owner: object = None, position: int = 0) -> bool:
        """Sends a frame, or a next message's prefix and result, or puts it in line. False where the line is full."""
        if self.closed:
            return True
        if self._line is not None:
            return self._put_in_line(Waiting(prefix, rest, owner, position))
        if self._direct is None or not write_text(self._direct, whole(prefix, rest)):
            self._send_one(Waiting(prefix, rest, owner, position))
        return True

    def _send_one(self, waiting: Waiting) -> None:
        """Through ASGI. What the server does not take at once begins the line."""
        try:
            unfinished = send_now(self._send(waiting.message()))
        except Exception:  # noqa: BLE001  (each server has its own for a peer that is gone)
            return self._lost()
        if unfinished is not None:
            self._line, self._size = deque([waiting]), waiting.size
            self._task = asyncio.create_task(self._empty(self._line, unfinished))

    def _put_in_line(self, waiting: Waiting) -> bool:
        assert self._line is not None
        if len(self._line) >= MAX_WAITING or self._size > MAX_WAITING_SIZE:
            return False
        self._line.append(waiting)
        self._size += waiting.size
        return True

    async def _empty(self, line: deque[Waiting], sending: Awaitable[None]) -> None:
        """Sends what waits. What is being sent stays at the head of the line until it is with the server."""
        try:
            while True:
                async with asyncio.timeout(SEND_LIMIT):
                    await sending
                self._size -= line.popleft().size
                if not line:
                    break
                sending = self._send(line[0].message())
        except TimeoutError:
            return self._stuck()
        except Exception:  # noqa: BLE001  (each server has its own for a peer that is gone)
            return self._lost()
        self._line = self._task = None
        if not self.closed:
            self._drained()

    def _lost(self) -> None:
        self.forget()
        self._gone()

    def first_waiting(self, owner: object) -> int | None:
        """The position of the first event in line that is the owner's."""
        return next((waiting.position for waiting in self._line or () if waiting.owner is owner), None)

    def forget(self) -> None:
        """Drops what waits, and takes no more."""
        self.closed, self._line = True, None
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    async def finish(self) -> None:
        """Takes no more; waits until what is in line has been sent."""
        self.closed = True
        if self._task is not None:
            await asyncio.wait([self._task])


def send_now(coroutine: Coroutine[Any, Any, None]) -> Awaitable[None] | None:
    """Runs a coroutine up to its first wait, here and now; what is left of it, or None where it did not wait.

    A task for each message would cost as much again as the message: servers only wait for peers that do not read.
    """
    try:
        waits_for = coroutine.send(None)
    except StopIteration:
        return None
    return _the_rest(coroutine, waits_for)


@types.coroutine
def _the_rest(coroutine: Coroutine[Any, Any, None], waits_for: Any) -> Generator[Any, Any, None]:
    try:
        yield waits_for
    except BaseException:  # a cancellation, most likely
        coroutine.close()
        raise
    yield from coroutine
