"""One websocket: frames in, frames out. What they mean is in `protocol`, where events come from in `hub`."""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

from channels.consumer import AsyncConsumer
from graphql import OperationType

from realtime import protocol
from realtime.callers import CannotAuthenticate, NotAuthenticated, bearer_in
from realtime.endpoint import Endpoint
from realtime.groups import Subscription
from realtime.hub import HubUnavailable
from realtime.legacy import choose
from realtime.limits import Rate, Ticket
from realtime.log import Refused
from realtime.operations import BadOperation, Operation
from realtime.outbox import Outbox
from realtime.protocol import Close, Code
from realtime.running import Running
from realtime.server import abort, watch
from realtime.watch import Watch

logger = logging.getLogger(__name__)

INIT_LIMIT = 10.0  # seconds until connection_init must have come
EARLY = 20  # messages that wait for the acknowledgement
CLOSE_LIMIT = 5.0  # seconds that a peer has to take the close frame, and again to answer it


class GraphQLConsumer(AsyncConsumer):
    """GraphQL over one websocket. There may be ten thousand: what is kept for each is counted in bytes."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._ticket: Ticket | None = None
        self._token: str | None = None
        self._early: list[protocol.Message] | None = []  # before the acknowledgement; None after it
        self._init_limit: asyncio.TimerHandle | None = None

    async def __call__(
        self, scope: dict[str, Any], receive: Callable[[], Awaitable[dict[str, Any]]], send: Any
    ) -> None:
        """The life of the socket.

        Not Channels' own loop: that makes a task and a visit to a thread for each message, and a channel of the
        layer for each socket; only the doorbell uses the layer.
        """
        self._send = send
        self.outbox = Outbox(send, self._drained, self._stuck, self._leave)
        self._rate = Rate(self._endpoint.limits.messages_per_10_s, 10.0)
        await receive()  # websocket.connect
        try:
            await self._accept(scope, send)
            while (message := await receive())["type"] == "websocket.receive":
                self._receive(message.get("text"))
        finally:
            self._leave()
            # What a peer that does not read has not taken would be held until TCP gives up.
            asyncio.get_running_loop().call_later(CLOSE_LIMIT, abort, send)

    async def _accept(self, scope: dict[str, Any], send: Any) -> None:
        chosen = choose(scope["subprotocols"])
        self._protocol = (chosen or protocol.Connection)(self._endpoint.limits.frame_size)
        await send({"type": "websocket.accept", "subprotocol": chosen and chosen.subprotocol})
        watch(send)
        if chosen is None:
            return self._end(Close(Code.SUBPROTOCOL_NOT_ACCEPTABLE, "Subprotocol not acceptable"))
        await self._endpoint.turn()
        self._ticket = self._endpoint.enter(scope, self)
        scope["headers"].clear()  # nobody asks for them again, and ten thousand times they are 13 MB
        scope.clear()
        if self._ticket is None:
            restart = Close(Code.RESTART, "service restart")
            full = Close(Code.TRY_AGAIN_LATER, "try again later: too many sockets")
            return self._end(restart if self._endpoint.leaving else full)
        self._init_limit = asyncio.get_running_loop().call_later(INIT_LIMIT, self.end_uninitialised)

    def end_uninitialised(self) -> None:
        self._end(Close(Code.INIT_TIMEOUT, "Connection initialisation timeout"))

    def _receive(self, text: str | None) -> None:
        if self.outbox.closed:
            return
        try:
            if not self._rate.allow(time.monotonic()):
                raise Close(Code.TOO_MANY_MESSAGES, "too many messages")
            if text is None:
                raise Close(Code.BAD_REQUEST, "Binary frames are not part of the protocol")
            self._handle(self._protocol.receive(text))
        except Close as close:
            self._end(close)
        except Exception:
            logger.exception("A message of a websocket could not be handled.")
            self._end(Close(Code.INTERNAL_ERROR, "Internal error"))

    def _handle(self, message: protocol.Message) -> None:
        match message:
            case protocol.Init(payload):
                self._authenticate(payload)
            case protocol.Ping(payload):
                self._say(self._protocol.pong(payload))
            case protocol.Pong():
                pass
            case _ if self._early is not None:
                self._wait_for_ack(message)
            case protocol.Subscribe():
                self._begin(message)
            case protocol.Complete(id_):
                self._drop(id_)

    def _authenticate(self, payload: dict[str, Any] | None) -> None:
        self._initialised()
        try:
            self._token = bearer_in(payload)
        except NotAuthenticated as error:
            raise Close(Code.UNAUTHORIZED, str(error)) from error
        if self._token is None:
            self._acknowledge()
        else:
            self._endpoint.spawn(self._ask_who())

    async def _ask_who(self) -> None:
        close = None
        try:
            await self._endpoint.caller(self._token)
        except NotAuthenticated as error:
            close = Close(Code.UNAUTHORIZED, str(error))
        except CannotAuthenticate as error:
            close = Close(Code.TRY_AGAIN_LATER, str(error))
        if not self.outbox.closed:  # the peer has not gone meanwhile
            self._end(close) if close else self._acknowledge()

    def _acknowledge(self) -> None:
        self._say(self._protocol.ack())
        early, self._early = self._early or [], None
        for message in early:
            self._handle(message)

    def _wait_for_ack(self, message: protocol.Message) -> None:
        """Clients of the older protocol begin at once; those of the newer one wait, as they must."""
        if self._early is None or not self._protocol.may_be_early or len(self._early) >= EARLY:
            raise Close(Code.UNAUTHORIZED, "Unauthorized")
        self._early.append(message)

    def _begin(self, message: protocol.Subscribe) -> None:
        most = self._endpoint.limits.operations_per_socket
        self._drop(message.id)  # in the older protocol an operation replaces the one of the same name
        if len(self._protocol.operations) >= most:
            text = f"{most} operations run on this socket, and no more may; complete one, or open another socket."
            errors = [{"message": text, "extensions": {"code": "TOO_MANY_SUBSCRIPTIONS"}}]
            return self._say(self._protocol.error(message.id, errors))
        running = Running(self, message.id, self._protocol.next_prefix(message.id))
        self._protocol.begin(message.id, running)
        self._endpoint.spawn(self._operate(message, running))

    async def _operate(self, message: protocol.Subscribe, running: Running) -> None:
        """The life of one operation up to its result, or up to its subscription."""
        try:
            caller = await self._endpoint.caller(self._token, self._ticket.peer if self._ticket else "")
            operation = await self._endpoint.prepare(message, caller, lambda: self.runs(running))
            if operation is None:
                return
            if operation.kind is OperationType.SUBSCRIPTION:
                return await self._subscribe(running, operation)
            result = await self._endpoint.execute(operation, lambda: self.runs(running))
            if self._protocol.end(running.id, running):
                self._say(running.prefix, result)
                self._say(self._protocol.complete(running.id))
        except BadOperation as error:
            self.fail(running, error.errors)
        except (Refused, NotAuthenticated, CannotAuthenticate) as error:
            self.fail(running, [{"message": str(error), "extensions": {"code": str(error.code)}}])
        except (HubUnavailable, TimeoutError) as error:
            text = str(error) or "There was no answer in time; try again later."
            self.fail(running, [{"message": text, "extensions": {"code": "UNAVAILABLE"}}])
        except Exception:
            number = secrets.token_hex(4)
            logger.exception("Internal error %s in an operation of a websocket.", number)
            self.fail(running, [{"message": f"Internal error {number}.", "extensions": {"code": "INTERNAL_ERROR"}}])

    async def _subscribe(self, running: Running, operation: Operation) -> None:
        stream = await self._endpoint.stream(operation)
        if isinstance(stream, Watch):
            if self.runs(running) and not self.outbox.closed:
                running.operation, running.watches = operation, True
                self._endpoint.watches.add(running, stream)
            return
        subscription = await self._endpoint.hub.subscribe(operation, stream, running.offer, running.fail)
        if self.outbox.closed or not self.runs(running):
            return self._endpoint.hub.unsubscribe(subscription)  # completed while we subscribed
        running.subscription = subscription

    def runs(self, running: Running) -> bool:
        return self._protocol.operations.get(running.id) is running

    def fail(self, running: Running, errors: list[dict[str, Any]]) -> None:
        """Ends the operation with these errors, unless it has ended before."""
        if self._protocol.end(running.id, running):
            self._say(self._protocol.error(running.id, errors))

    def _subscriptions(self) -> list[Subscription]:
        running = self._protocol.operations.values()
        return [one.subscription for one in running if isinstance(one, Running) and one.subscription]

    def _say(self, frame: str, result: str = "") -> None:
        """What is no event cannot be said later: who asks for more than they read is closed."""
        if not self.outbox.put(frame, result):
            self._end_slow()

    # The end

    def _drained(self) -> None:
        for subscription in self._subscriptions():
            self._endpoint.hub.rejoin(subscription)

    def _stuck(self) -> None:
        logger.info("A websocket has not read for some seconds; closing it.")
        self._end_slow()

    def _end_slow(self) -> None:
        close = Close(Code.SLOW_CONSUMER, f"slow consumer{self._resume_after(sent=False)}")
        self.outbox.forget()
        self._end(close)

    def end_for_restart(self) -> None:
        """The server stops: says where to go on."""
        self._end(Close(Code.RESTART, f"service restart{self._resume_after(sent=True)}"))

    def _resume_after(self, sent: bool) -> str:
        """The place up to which all subscriptions of this socket have had everything, in words.

        `sent`: whether what is in line will be sent before the close frame.
        """
        places = []
        for subscription in self._subscriptions():
            place = self._endpoint.hub.place(subscription)
            waiting = None if sent else self.outbox.first_waiting(subscription)
            if place is not None:
                places.append(place if waiting is None else place.before(waiting))
        return f", resume after {min(places, key=lambda place: place.position).token}" if places else ""

    def _end(self, close: Close) -> None:
        """Closes after what is in line."""
        farewell = self._protocol.farewell(close)
        if farewell:
            self.outbox.put(farewell)
        self._endpoint.spawn(self._close(close))
        self._leave()

    async def _close(self, close: Close) -> None:
        try:
            async with asyncio.timeout(CLOSE_LIMIT):
                await self.outbox.finish()
                await self._send_close(close)
        except TimeoutError:
            abort(self._send)
        except Exception as error:  # noqa: BLE001  (each server has its own for a peer that is gone)
            logger.debug("A websocket is gone (%s).", type(error).__name__)

    async def _send_close(self, close: Close) -> None:
        message = {"type": "websocket.close", "code": int(close.code), "reason": close.reason}
        try:
            await self._send(message)
        except Exception:  # noqa: BLE001  (daphne sends 1000 and 3000 to 4999 only)
            restart = close.code in (Code.RESTART, Code.TRY_AGAIN_LATER)
            await self._send(message | {"code": int(Code.RESTART_ELSEWHERE if restart else Code.BAD_REQUEST)})

    def _initialised(self) -> None:
        if self._init_limit:
            self._init_limit.cancel()
            self._init_limit = None
        if self._ticket:
            self._endpoint.sockets.acknowledged(self._ticket)

    def _drop(self, id_: str) -> None:
        running = self._protocol.operations.get(id_)
        self._protocol.end(id_)
        if isinstance(running, Running) and running.watches:
            self._endpoint.watches.remove(running)
        if isinstance(running, Running) and running.subscription:
            self._endpoint.hub.unsubscribe(running.subscription)

    def _leave(self) -> None:
        """Twice does no harm."""
        self.outbox.closed = True
        self._initialised()
        for id_ in list(self._protocol.operations):
            self._drop(id_)
        if self._ticket:
            self._endpoint.leave(self._ticket)
            self._ticket = None
