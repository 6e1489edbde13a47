"""The doorbell: "the log has moved to P", through the channel layer. The only module that uses the layer.

A ring may be lost, late or doubled, and nobody minds: whoever listens reads the log. That is all that the
layers can be trusted with; after a Redis restart one of them stays silent for ever, the other loses messages
and tells nobody. So a listener also rings for itself each second, and makes a new connection when it has
not heard anything for three.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable

from channels.layers import get_channel_layer

logger = logging.getLogger(__name__)

GROUP = "doorbell"
HEARTBEAT = 1.0  # seconds
SILENCE = 3.0  # seconds without a ring after which the connection counts as dead
SEND_LIMIT = 2.0  # seconds; a layer that hangs must not hold up anything


class _Ringer:
    """Sends the newest head from any thread; never blocks, never raises. While one is on its way, the next waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: int | None = None
        self._busy = False
        self._sender: asyncio.AbstractEventLoop | None = None  # where the ring on its way is
        self._loop: asyncio.AbstractEventLoop | None = None
        self.failing = False

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
        if _listening_loop is not None and _listening_loop.is_running():
            return _listening_loop
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            threading.Thread(target=self._loop.run_forever, name="doorbell", daemon=True).start()
        return self._loop

    async def _send(self) -> None:
        while (head := self._take()) is not None:
            await _send(head)

    def _take(self) -> int | None:
        with self._lock:
            head, self._pending = self._pending, None
            self._busy = head is not None
            return head


_ringer = _Ringer()
_listening_loop: asyncio.AbstractEventLoop | None = None


def _forget_loops() -> None:
    """In a forked child: the loops of its parent do not run there, though they say so."""
    global _ringer, _listening_loop
    _ringer, _listening_loop = _Ringer(), None


os.register_at_fork(after_in_child=_forget_loops)


def ring(head: int) -> None:
    """Says that the log has moved to position `head`. Call it after the commit; from any thread; may be lost."""
    _ringer.ring(head)


async def _send(head: int) -> None:
    try:
        message = {"type": "doorbell.ring", "head": head}
        async with asyncio.timeout(SEND_LIMIT):
            await get_channel_layer().group_send(GROUP, message)
        _ringer.failing = False
    except Exception as error:  # noqa: BLE001  (listeners look at the log each second anyway)
        if not _ringer.failing:  # once, and not for each ring until it works again
            logger.warning("The doorbell cannot ring for position %d (%s).", head, type(error).__name__)
        _ringer.failing = True


class Listener:
    """Listens until it is cancelled. `woken(head)` is called in the loop for each ring that arrives."""

    def __init__(self, woken: Callable[[int], None], head: Callable[[], int]) -> None:
        self._woken = woken
        self._head = head
        self._heard = 0.0
        self._deaf = False

    async def run(self) -> None:
        global _listening_loop  # noqa: PLW0603  (one listener in a process, and `ring` has to find it)
        _listening_loop = asyncio.get_running_loop()
        heartbeat = asyncio.create_task(self._beat())
        try:
            while True:
                await self._listen_until_silent()
        finally:
            heartbeat.cancel()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT)
            await _send(self._head())

    async def _listen_until_silent(self) -> None:
        """One connection's life. The reader is one task that lives long: a cancelled `receive` loses its channel."""
        reader = asyncio.create_task(self._read())
        self._heard = asyncio.get_running_loop().time()
        try:
            while not reader.done() and asyncio.get_running_loop().time() - self._heard < SILENCE:
                await asyncio.wait([reader], timeout=HEARTBEAT)
        finally:
            reader.cancel()
            (error,) = await asyncio.gather(reader, return_exceptions=True)
        self._lost("silent" if isinstance(error, asyncio.CancelledError) else f"broken, {type(error).__name__}")
        await self._drop_connections()

    def _lost(self, how: str) -> None:
        if not self._deaf:  # once, and not each second until it is back
            logger.warning("The doorbell is %s; looking at the log each second until it rings again.", how)
        self._deaf = True

    def _hear(self) -> None:
        if self._deaf:
            logger.warning("The doorbell rings again.")
        self._deaf, self._heard = False, asyncio.get_running_loop().time()

    async def _read(self) -> None:
        layer = get_channel_layer()
        channel = await layer.new_channel("doorbell.")
        await layer.group_add(GROUP, channel)
        while True:
            message = await layer.receive(channel)
            self._hear()
            self._woken(int(message["head"]))

    async def _drop_connections(self) -> None:
        try:
            async with asyncio.timeout(SEND_LIMIT):
                await get_channel_layer().flush()
        except Exception as error:  # noqa: BLE001  (what is dead need not be closed politely)
            logger.info("Closing the doorbell's connection failed (%s).", type(error).__name__)
        await asyncio.sleep(HEARTBEAT)
