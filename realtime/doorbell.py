"""The doorbell: "the log has moved to P", through the channel layer. With `realtime.canary` all that uses the layer.

A ring may be lost, late or doubled, and nobody minds: whoever listens reads the log. That is all that the
layers can be trusted with; after a Redis restart one of them stays silent for ever, the other loses messages
and tells nobody. So a listener also rings for itself each second, and makes a new connection when it has
not heard anything for three. That it hears its own heartbeat is the proof that both of its connections work.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from channels.layers import get_channel_layer

from realtime.pulse import Pulse, Status

logger = logging.getLogger(__name__)

GROUP = "doorbell"
HEARTBEAT = 1.0  # seconds
SILENCE = 3.0  # seconds without a ring after which the connection counts as dead
SEND_LIMIT = 2.0  # seconds; a layer that hangs must not hold up anything
TURNS = 20  # of the event loop, before what has not come back counts as lost: it may be here, and the loop be busy
FRESH = 0.5  # seconds for which the answer of a check is good for all who ask
ANSWERS_AT_ONCE = 10  # canaries; whoever floods the doorbell must not fill our memory

Message = dict[str, Any]


class _Ringer:
    """Sends the newest head from any thread; never blocks, never raises. While one is on its way, the next waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: int | None = None
        self._busy = False
        self._sender: asyncio.AbstractEventLoop | None = None  # where the ring on its way is
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failing = False
        # No two alike, in whatever container.
        self.id = f"{socket.gethostname()[:60]}:{os.getpid()}:{secrets.token_hex(4)}"

    def ring(self, head: int) -> None:
        with self._lock:
            self._pending = head
            # A loop that has ended took the ring with it that was on its way.
            if self._busy and self._sender is not None and self._sender.is_running():
                return
            self._busy = True
            self._sender = self._running_loop()
            sending = self._send()
            try:
                asyncio.run_coroutine_threadsafe(sending, self._sender)
            except RuntimeError:  # the loop was closed this moment
                sending.close()

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """The listener's loop where this process has one (an in-memory layer belongs to it), else one of our own."""
        if _listener is not None and _listener.loop.is_running():
            return _listener.loop
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="doorbell", daemon=True).start()
        return self._loop

    async def _send(self) -> None:
        while (head := self._take()) is not None:
            await _send({"type": "doorbell.ring", "head": head, "from": self.id})

    def _take(self) -> int | None:
        with self._lock:
            head, self._pending = self._pending, None
            self._busy = head is not None
            return head


_ringer = _Ringer()
_listener: "Listener | None" = None  # one in a process


def _forget_loops() -> None:
    """In a forked child: the loops of its parent do not run there, though they say so."""
    global _ringer, _listener
    _ringer, _listener = _Ringer(), None


os.register_at_fork(after_in_child=_forget_loops)


def own_id() -> str:
    """How this process is called in its messages: host:pid:token."""
    return _ringer.id


def ring(head: int) -> None:
    """Says that the log has moved to position `head`. Call it after the commit; from any thread; may be lost."""
    _ringer.ring(head)


def status() -> Status:
    """How the doorbell of this process was in the last seconds; asks nobody. From any thread."""
    return Status() if _listener is None else _listener.status()


async def check(within: float) -> Status:
    """How it is now: a heartbeat goes out and is waited for, `within` seconds at most. From any event loop.

    One for all who ask at the same time, and good for half a second.
    """
    listener = _listener
    if listener is None or not listener.loop.is_running():
        return status()
    if listener.loop is asyncio.get_running_loop():
        return await listener.check(within)
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(listener.check(within), listener.loop))


async def _send(message: Message) -> bool:
    """Whether it was taken."""
    try:
        async with asyncio.timeout(SEND_LIMIT):
            await get_channel_layer().group_send(GROUP, message)
    except Exception as error:  # noqa: BLE001  (listeners look at the log each second anyway)
        if not _ringer.failing:  # once, and not for each ring until it works again
            logger.warning("The doorbell cannot ring for position %d (%s).", message["head"], type(error).__name__)
        _ringer.failing = True
        return False
    if _ringer.failing and not (_listener and _listener.deaf):  # who is deaf says it when it hears it
        logger.warning("The doorbell rings again.")
    _ringer.failing = False
    return True


class Listener:
    """Listens until it is cancelled. `woken(head)` is called in the loop for each ring that arrives.

    `overheard(message)` is for whoever only wants to see what passes: it gets all of it, and answers no canary.
    """

    loop: asyncio.AbstractEventLoop

    def __init__(
        self,
        woken: Callable[[int], None],
        head: Callable[[], int],
        overheard: Callable[[Message], None] | None = None,
    ) -> None:
        self._woken = woken
        self._head = head
        self._overheard = overheard
        self._heard = 0.0
        self.deaf = False
        self._taken = True  # the newest heartbeat, by the layer
        self._pulse = Pulse()
        self._asked, self._came_back = asyncio.Event(), asyncio.Event()
        self._checking: asyncio.Task[Status] | None = None
        self._checked = float("-inf")
        self._answering: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        global _listener  # noqa: PLW0603  (`ring` and `check` have to find it)
        self.loop = asyncio.get_running_loop()
        _listener = self
        heartbeat = asyncio.create_task(self._beat())
        try:
            while True:
                await self._listen_until_silent()
        finally:
            heartbeat.cancel()
            self._pulse.end()

    def status(self, since: float | None = None) -> Status:
        """`since` (of time.monotonic()): only what was proven after it counts; else within the allowed silence."""
        return self._pulse.status(time.monotonic() - SILENCE if since is None else since)

    async def check(self, within: float) -> Status:
        """See `check` of this module; in the listener's own loop."""
        fresh = time.monotonic() - self._checked < FRESH
        if self._checking is None or (self._checking.done() and not fresh):
            self._checking = asyncio.create_task(self._ask(within))
        return await asyncio.shield(self._checking)

    async def _ask(self, within: float) -> Status:
        since = time.monotonic()
        self._came_back.clear()
        if self._taken:  # else the connection is down, and is dialled at the heartbeat's own pace, however many ask
            self._asked.set()
        await _wait(self._came_back, within)
        for _ in range(TURNS):
            if not self._came_back.is_set():
                await asyncio.sleep(0)
        self._checked = time.monotonic()
        return self.status(since)

    async def _beat(self) -> None:
        while True:
            await _wait(self._asked, HEARTBEAT if self._taken else 2 * HEARTBEAT)
            self._asked.clear()
            self._pulse.publishing.begin()
            message = {"type": "doorbell.ring", "head": self._head(), "from": _ringer.id, "beat": time.monotonic()}
            self._taken = await _send(message)
            if self._taken:
                self._pulse.publishing.prove()

    async def _listen_until_silent(self) -> None:
        """One connection's life. The reader is one task that lives long: a cancelled `receive` loses its channel."""
        reader = asyncio.create_task(self._read())
        self._heard = time.monotonic()
        try:
            while not reader.done() and time.monotonic() - self._heard < SILENCE:
                await asyncio.wait([reader], timeout=HEARTBEAT)
        finally:
            reader.cancel()
            (error,) = await asyncio.gather(reader, return_exceptions=True)
        self._lost("silent" if isinstance(error, asyncio.CancelledError) else f"broken, {type(error).__name__}")
        await self._drop_connections()

    def _lost(self, how: str) -> None:
        if not self.deaf:  # once, and not each second until it is back
            logger.warning("The doorbell is %s; looking at the log each second until it rings again.", how)
        self.deaf = True

    def _hear(self) -> None:
        if self.deaf:
            logger.warning("The doorbell rings again.")
            _ringer.failing = False  # said, for both ways
        self.deaf, self._heard = False, time.monotonic()
        self._pulse.subscription.prove()

    async def _read(self) -> None:
        self._pulse.subscription.begin()
        layer = get_channel_layer()
        channel = await layer.new_channel("doorbell.")
        await layer.group_add(GROUP, channel)
        while True:
            message = await layer.receive(channel)
            self._hear()
            self._take(message)

    def _take(self, message: Message) -> None:
        """What is no ring wakes nobody."""
        kind = message.get("type")
        if kind == "doorbell.ring":
            if message.get("from") == _ringer.id and "beat" in message:
                self._pulse.come_back(message["beat"])
                self._came_back.set()
            self._woken(int(message["head"]))
        if self._overheard is not None:
            self._overheard(message)
        elif kind == "doorbell.canary" and len(self._answering) < ANSWERS_AT_ONCE:
            answer = asyncio.create_task(self._answer(message))
            self._answering.add(answer)
            answer.add_done_callback(self._answering.discard)

    async def _answer(self, canary: Message) -> None:
        """To who asked, and nobody else: `sent` is by the clock of who asked."""
        try:
            answer = {"type": "doorbell.answer", "from": _ringer.id, "sent": canary["sent"]}
            async with asyncio.timeout(SEND_LIMIT):
                await get_channel_layer().send(canary["reply"], answer)
        except Exception as error:  # noqa: BLE001  (who asked will say that we did not answer)
            logger.info("A canary of diagnose_redis could not be answered (%s).", type(error).__name__)

    async def _drop_connections(self) -> None:
        try:
            async with asyncio.timeout(SEND_LIMIT):
                await get_channel_layer().flush()
        except Exception as error:  # noqa: BLE001  (what is dead need not be closed politely)
            logger.info("Closing the doorbell's connection failed (%s).", type(error).__name__)
        await asyncio.sleep(HEARTBEAT)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    # Not wait_for: in Python 3.11 it swallows a cancellation that comes together with the event.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
