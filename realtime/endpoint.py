"""What all websockets of a process share: the hub, the engine, the limits, and the end of the process."""

import asyncio
import logging
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import Any, Protocol

from channels.db import database_sync_to_async

from realtime.callers import Authenticate, Caller, CannotAuthenticate, NotAuthenticated
from realtime.garbage import Garbage
from realtime.hub import Hub
from realtime.limits import Limits, Sockets, Ticket, client_address
from realtime.log import Stream
from realtime.operations import Engine, Operation
from realtime.protocol import Subscribe
from realtime.server import ending
from realtime.watch import Watch
from realtime.watches import Probe, Watches

logger = logging.getLogger(__name__)

# Together with the hub's, the replay's and HTTP's fewer than the ten database connections of a process.
QUERY_THREADS = 4  # the queries of one client must not hold up the subscriptions of another: threads apart
PREPARE_THREADS = 2
ANSWER_LIMIT = 10.0  # seconds that an operation may take to be prepared, or a query to be answered
AT_ONCE = 10  # sockets that begin in one turn of the event loop
SMALL = 2_000  # characters of variables that are read in the event loop
SECOND = 1.0  # between two looks for sockets that wait too long, and for garbage
FAREWELL_LIMIT = 3.0  # seconds that closing all sockets may hold up the server's own end


class Socket(Protocol):
    """What the endpoint asks of a socket."""

    def end_uninitialised(self) -> None: ...

    def end_for_restart(self) -> None: ...


class Endpoint:
    """One for each process. `trusted_proxies`: how many stand before it and add to X-Forwarded-For.

    `authenticate` tells who brought a token, `probe` what has changed of what is watched; both ask the database.
    """

    def __init__(
        self,
        engine: Engine,
        hub: Hub,
        limits: Limits,
        trusted_proxies: int = 0,
        authenticate: Authenticate = lambda token: None,
        probe: Probe = lambda keys: {},
    ) -> None:
        self.hub = hub
        self.limits = limits
        self.sockets = Sockets(limits)
        self._engine = engine
        self._authenticate = authenticate
        self._trusted_proxies = trusted_proxies
        self._consumers: dict[Ticket, Socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._queries = ThreadPoolExecutor(max_workers=QUERY_THREADS, thread_name_prefix="query")
        self._preparing = ThreadPoolExecutor(max_workers=PREPARE_THREADS, thread_name_prefix="prepare")
        self.watches = Watches(engine, probe, self._in_query_thread)
        self._door: deque[asyncio.Future[None]] = deque()
        self._heard: dict[int, Callable[[int, FrameType | None], Any]] = {}
        self._garbage = Garbage()
        self._started = self._tamed = self.leaving = False

    async def turn(self) -> None:
        """Waits until it is this socket's turn to begin.

        When thousands come back at once, queries and events have their turn after every few of them.
        """
        if not self._door:
            self.spawn(self._open_the_door())
        place = asyncio.get_running_loop().create_future()
        self._door.append(place)
        await place

    async def _open_the_door(self) -> None:
        while self._door:
            for place in [self._door.popleft() for _ in range(min(AT_ONCE, len(self._door)))]:
                if not place.done():  # its socket has not gone meanwhile
                    place.set_result(None)
            await asyncio.sleep(0)

    def enter(self, scope: dict[str, Any], socket: Socket) -> Ticket | None:
        """A place for one more socket; None where there is none."""
        now = time.monotonic()
        if self.leaving:
            return None
        self.start()
        forwarded = [value.decode("latin-1") for name, value in scope["headers"] if name == b"x-forwarded-for"]
        peer = (scope.get("client") or [""])[0]
        ticket = self.sockets.enter(client_address(peer, forwarded, self._trusted_proxies), now)
        if ticket is not None:
            self._consumers[ticket] = socket
        self._end_overdue(now)
        return ticket

    def _end_overdue(self, now: float) -> None:
        while overdue := self.sockets.overdue(now):
            self._consumers[overdue].end_uninitialised()

    def leave(self, ticket: Ticket) -> None:
        self.sockets.leave(ticket)
        if self._consumers.pop(ticket, None):
            self._garbage.closed()

    # Operations. What may ask the database or takes milliseconds runs in a thread, not in the loop of all sockets.

    async def caller(self, token: str | None, address: str = "") -> Caller:
        """Who calls. To be asked again for each operation: a socket may be open for longer than its token holds.

        Raises NotAuthenticated and CannotAuthenticate.
        """
        if token is None:
            return Caller(None, address)
        try:
            viewer: Hashable | None = await _in_thread(self._preparing, self._authenticate, token)
        except Exception as error:
            logger.warning("A token could not be looked up.", exc_info=True)
            raise CannotAuthenticate from error
        if viewer is None:
            raise NotAuthenticated
        return Caller(viewer, address)

    async def prepare(self, message: Subscribe, caller: Caller, wanted: Callable[[], bool]) -> Operation | None:
        """None where it is not wanted any more when its turn comes. Raises BadOperation."""
        arguments = message.query, message.variables, message.operation_name, caller
        if self._engine.knows(message.query) and len(str(message.variables)) < SMALL:
            return self._engine.prepare(*arguments)

        def prepare() -> Operation | None:
            return self._engine.prepare(*arguments) if wanted() else None

        operation: Operation | None = await _in_thread(self._preparing, prepare)
        return operation

    async def _in_query_thread(self, function: Callable[..., Any], *arguments: object) -> Any:
        return await _in_thread(self._queries, function, *arguments)

    async def stream(self, operation: Operation) -> Stream | Watch:
        """Raises BadOperation."""
        return await _in_thread(self._preparing, self._engine.stream, operation)

    async def execute(self, operation: Operation, wanted: Callable[[], bool]) -> str:
        """ "" where the result is not wanted any more when its turn comes."""

        def execute() -> bytes:
            return self._engine.execute(operation) if wanted() else b""

        result: bytes = await _in_thread(self._queries, execute)
        return result.decode()

    def facts(self) -> dict[str, Any]:
        """What this process tells of itself to those who watch. From any thread."""
        return {"sockets": len(self._consumers), **self.hub.facts()}

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Runs it to its end, whatever becomes of the socket."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # The end of the process

    def start(self) -> None:
        """In the event loop, with the first socket at the latest. Twice does no harm.

        Not in a thread of another program, whose signals and whose collector are its own.
        """
        if self._started:
            return
        self._started = True
        self._tamed = threading.current_thread() is threading.main_thread()
        if self._tamed:
            self._garbage.tame()
            self._listen_for_the_end()
        self._each_second()

    def _each_second(self) -> None:
        self._end_overdue(time.monotonic())
        # Not while sockets come back, thousands at once perhaps.
        if self._tamed and self._garbage.is_due(len(self._consumers)) and not self._door:
            self._garbage.look()
        asyncio.get_running_loop().call_later(SECOND, self._each_second)

    def _listen_for_the_end(self) -> None:
        """On SIGTERM and SIGINT sockets are told where to go on, before the server closes them without a word."""
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            previous = signal.getsignal(signum)
            if not callable(previous) or signum in self._heard:
                continue
            self._heard[signum] = ending(previous)

            def heard(number: int, frame: FrameType | None) -> None:
                if loop.is_closed():
                    self._heard[number](number, frame)
                else:
                    loop.call_soon_threadsafe(self._end, number)

            signal.signal(signum, heard)

    def _end(self, signum: int) -> None:
        go_on = self._heard[signum]
        if self.leaving:
            return go_on(signum, None)  # asked twice: at once
        self.leaving = True
        self.spawn(self._say_farewell(lambda: go_on(signum, None)))

    async def _say_farewell(self, go_on: Callable[[], None]) -> None:
        """Closes all sockets, then lets the server do what it does at the signal."""
        try:
            async with asyncio.timeout(FAREWELL_LIMIT):
                for number, consumer in enumerate(list(self._consumers.values())):
                    consumer.end_for_restart()
                    if number % 50 == 0:
                        await asyncio.sleep(0)
                await asyncio.wait(self._tasks - {asyncio.current_task()})
        except (TimeoutError, ValueError):  # ValueError: nothing to wait for
            pass
        finally:
            go_on()


async def _in_thread(threads: ThreadPoolExecutor, function: Callable[..., Any], *arguments: object) -> Any:
    """Raises TimeoutError; what runs in the thread runs on then."""
    async with asyncio.timeout(ANSWER_LIMIT):
        return await database_sync_to_async(function, thread_sensitive=False, executor=threads)(*arguments)
