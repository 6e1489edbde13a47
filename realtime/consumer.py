"""One websocket: frames in, frames out. What they mean is in `protocol`, where events come from in `hub`."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from graphql import OperationType

from realtime import protocol
from realtime.hub import Hub, HubUnavailable, Subscription
from realtime.operations import BadOperation, Engine, Operation

logger = logging.getLogger(__name__)

INIT_LIMIT = 10.0  # seconds until connection_init must have come
MAX_WAITING = 256  # messages that a socket may be behind
MAX_WAITING_SIZE = 1024 * 1024  # characters of them; a single larger one is let through
SEND_LIMIT = 10.0  # seconds that one message may take
QUERY_THREADS = ThreadPoolExecutor(max_workers=8, thread_name_prefix="query")  # fewer than database connections
MAX_REASON = 123  # bytes, by RFC 6455


class GraphQLConsumer(AsyncWebsocketConsumer):
    """GraphQL over one websocket, by the graphql-transport-ws protocol."""

    # Channels would subscribe each socket to the layer; only the doorbell uses it.
    channel_layer_alias = None

    def __init__(self, engine: Engine, hub: Hub) -> None:
        super().__init__()
        self._engine = engine
        self._hub = hub
        self._protocol = protocol.Connection()
        # A result is the same text for many sockets; it is put together with what is this socket's own when sent.
        self._outbox: asyncio.Queue[tuple[str, str] | protocol.Close] = asyncio.Queue()
        self._waiting = 0  # characters in line
        self._main: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscriptions: dict[str, Subscription] = {}
        self._init_limit: asyncio.TimerHandle | None = None
        self._closing = False
        self._stuck = False

    async def __call__(self, *arguments: Any) -> None:
        self._main = asyncio.current_task()
        try:
            await super().__call__(*arguments)
        except asyncio.CancelledError:
            if not self._stuck:
                raise

    async def connect(self) -> None:
        known = protocol.SUBPROTOCOL in self.scope["subprotocols"]
        await self.accept(protocol.SUBPROTOCOL if known else None)
        self._spawn(self._write())
        if not known:
            reason = f"Subprotocol not acceptable; use {protocol.SUBPROTOCOL}"
            return self._end(protocol.Close(protocol.Code.SUBPROTOCOL_NOT_ACCEPTABLE, reason))
        late = protocol.Close(protocol.Code.INIT_TIMEOUT, "Connection initialisation timeout")
        self._init_limit = asyncio.get_running_loop().call_later(INIT_LIMIT, self._end, late)

    async def disconnect(self, code: int) -> None:
        self._closing = True
        self._forget()
        for task in self._tasks:
            task.cancel()

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        if self._closing:
            return
        try:
            if text_data is None:
                raise protocol.Close(protocol.Code.BAD_REQUEST, "Binary frames are not part of the protocol")
            self._handle(self._protocol.receive(text_data))
        except protocol.Close as close:
            self._end(close)

    def _handle(self, message: protocol.Message) -> None:
        match message:
            case protocol.Init():
                self._stop_init_limit()
                self._send(protocol.ack())
            case protocol.Ping(payload):
                self._send(protocol.pong(payload))
            case protocol.Pong():
                pass
            case protocol.Subscribe():
                token = object()
                self._protocol.begin(message.id, token)
                self._spawn(self._operate(message, token))
            case protocol.Complete(id_):
                self._protocol.end(id_)
                self._drop(id_)

    async def _operate(self, message: protocol.Subscribe, token: object) -> None:
        """The life of one operation up to its result, or up to its subscription."""
        try:
            operation = await self._prepare(message)
            if operation.kind is OperationType.SUBSCRIPTION:
                return await self._subscribe(message.id, token, operation)
            execute = database_sync_to_async(self._engine.execute, thread_sensitive=False, executor=QUERY_THREADS)
            result = await execute(operation)
            if self._protocol.end(message.id, token):
                self._send(protocol.next_prefix(message.id), result.decode())
                self._send(protocol.complete(message.id))
        except BadOperation as error:
            self._fail(message.id, token, error.errors)
        except HubUnavailable as error:
            self._fail(message.id, token, [{"message": str(error), "extensions": {"code": "UNAVAILABLE"}}])
        except Exception:
            logger.exception("An operation of a websocket failed.")
            self._fail(message.id, token, [{"message": "Internal error.", "extensions": {"code": "INTERNAL_ERROR"}}])

    async def _prepare(self, message: protocol.Subscribe) -> Operation:
        # A document that is new takes milliseconds to validate: not in the loop that all sockets share.
        arguments = message.query, message.variables, message.operation_name
        return await asyncio.to_thread(self._engine.prepare, *arguments)

    async def _subscribe(self, id_: str, token: object, operation: Operation) -> None:
        prefix = protocol.next_prefix(id_)

        def deliver(position: int, result: str) -> None:
            if self._protocol.operations.get(id_) is token:
                self._send(prefix, result)

        subscription = await self._hub.subscribe(operation, self._engine.stream(operation), deliver)
        if self._closing or self._protocol.operations.get(id_) is not token:
            return self._hub.unsubscribe(subscription)  # completed while we subscribed
        self._subscriptions[id_] = subscription

    def _fail(self, id_: str, token: object, errors: list[dict[str, Any]]) -> None:
        if self._protocol.end(id_, token):
            self._send(protocol.error(id_, errors))

    def _send(self, frame: str, result: str = "") -> None:
        """Puts a message in line: a frame, or a next message's prefix and result. Closes a reader too far behind."""
        if self._closing:
            return
        if self._outbox.qsize() >= MAX_WAITING or (self._waiting and self._waiting + len(result) > MAX_WAITING_SIZE):
            return self._end(protocol.Close(protocol.Code.SLOW_CONSUMER, "slow consumer"))
        self._waiting += len(frame) + len(result)
        self._outbox.put_nowait((frame, result))

    def _end(self, close: protocol.Close) -> None:
        """Closes after what is in line, but a slow reader at once: it would never get to the end of its line."""
        self._closing = True
        self._forget()
        if close.code is protocol.Code.SLOW_CONSUMER:
            while not self._outbox.empty():
                self._outbox.get_nowait()
        self._outbox.put_nowait(close)

    async def _write(self) -> None:
        try:
            while not isinstance(item := await self._outbox.get(), protocol.Close):
                frame, result = item
                self._waiting -= len(frame) + len(result)
                async with asyncio.timeout(SEND_LIMIT):
                    await self.send(text_data=f"{frame}{result}}}" if result else frame)
            async with asyncio.timeout(SEND_LIMIT):
                await self._close_with(item)
        except TimeoutError:
            logger.info("A websocket did not read for %.0f s; dropped.", SEND_LIMIT)
            self._stuck = True
            if self._main:
                self._main.cancel()
        except Exception as error:  # noqa: BLE001  (each server has its own for a peer that is gone)
            logger.debug("A websocket is gone (%s).", type(error).__name__)

    async def _close_with(self, close: protocol.Close) -> None:
        reason = close.reason.encode(errors="replace")[:MAX_REASON].decode(errors="ignore")
        try:
            await self.close(int(close.code), reason)  # daphne takes no enumeration
        except Exception:  # noqa: BLE001  (daphne sends 1000 and 3000 to 4999 only)
            await self.close(int(protocol.Code.BAD_REQUEST), reason)

    def _drop(self, id_: str) -> None:
        if subscription := self._subscriptions.pop(id_, None):
            self._hub.unsubscribe(subscription)

    def _forget(self) -> None:
        self._stop_init_limit()
        for id_ in list(self._subscriptions):
            self._drop(id_)

    def _stop_init_limit(self) -> None:
        if self._init_limit:
            self._init_limit.cancel()

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
