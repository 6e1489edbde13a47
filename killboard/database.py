"""Whether the database answers, asked by a connection of its own, and the answer 503 for those who wait for it."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import TypeVar

import psycopg
from asgiref.sync import ThreadSensitiveContext, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIRequest
from django.db import InterfaceError, OperationalError, connection, connections
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.urls import reverse

FRESH = 1.0  # seconds for which an answer holds: it is asked no more often, however many want to know
PAGE_LIMIT = 60.0  # seconds for a page of the admin, or for a login, which asks EVE
STATEMENT_LIMIT = 5.0  # seconds for one statement
LIMIT = 0.8  # seconds; a database that takes longer does not answer
PATIENCE = 1.8  # seconds; then whoever waits for a result looks whether the database answers at all
RETRY_AFTER = "5"  # seconds
AWAY = "The database does not answer at the moment; try again later."

T = TypeVar("T")
_thread = ThreadPoolExecutor(1, thread_name_prefix="database-probe")
_lock = threading.Lock()
_asked: tuple[float, Future[bool]] | None = None


def limit_statements() -> None:
    """For a server, before it answers anybody: PostgreSQL ends what takes longer, instead of working on for nobody."""
    if settings.DATABASE_URL:
        connection.close()
        connection.close_pool()  # it has the options that it was made with
        options = connections.settings["default"]["OPTIONS"]
        limit = f"-c statement_timeout={STATEMENT_LIMIT * 1000:.0f}"
        options["options"] = f"{options.get('options', '')} {limit}".strip()


class Unavailable(Exception):
    """No answer now; `str()` of it is for the client."""


async def answers_soon() -> bool:
    """Takes LIMIT seconds at most, and no thread, however many wait."""
    if not settings.DATABASE_URL:
        return True  # SQLite is a file
    done, _ = await asyncio.wait([asyncio.wrap_future(_ask_once())], timeout=LIMIT)
    return any(future.result() for future in done)


async def wait_patiently(future: asyncio.Future[T], limit: float) -> T:
    """Raises Unavailable when the database stops to answer, or after `limit` seconds; `future` goes on then."""
    begun = time.monotonic()
    while not (await asyncio.wait([future], timeout=PATIENCE))[0]:
        if not await answers_soon():
            raise Unavailable(AWAY)
        if time.monotonic() - begun > limit - PATIENCE:
            raise Unavailable(f"The answer takes more than {limit:.0f} s; ask for less, or try again later.")
    return future.result()


def _ask_once() -> Future[bool]:
    """The question that is under way, or was answered just now, or a new one."""
    global _asked  # noqa: PLW0603
    with _lock:
        if _asked is None or (_asked[1].done() and time.monotonic() - _asked[0] > FRESH):
            _asked = time.monotonic(), _thread.submit(_ask)
        return _asked[1]


def _ask() -> bool:
    try:
        # Not through the pool: its connections may hang, and whoever waits for one waits with them.
        psycopg.connect(settings.DATABASE_URL, connect_timeout=2).close()
    except psycopg.Error:
        return False
    return True


def unavailable(why: str = AWAY) -> HttpResponse:
    """For people."""
    return HttpResponse(f"{why}\n", status=503, content_type="text/plain", headers={"Retry-After": RETRY_AFTER})


class DatabaseAway:
    """Middleware: pages that need the database are 503 while it is away, instead of waiting for it, or of a 500."""

    async_capable = True
    sync_capable = False  # else Django would call it in the thread that waits, since WhiteNoise below it is synchronous

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponseBase]]) -> None:
        self._get_response = get_response
        self._tasks: set[asyncio.Task[HttpResponseBase]] = set()
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponseBase:
        # Without ASGI (in tests) the caller's own thread is the right one.
        if not (_needs_database(request) and isinstance(request, ASGIRequest)):
            return await self._get_response(request)
        if not await answers_soon():
            return unavailable()
        # In a context of its own, and so in a thread of its own: at the end of a request the server waits for its
        # thread, and everybody with it.
        task = asyncio.get_running_loop().create_task(self._apart(request), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await wait_patiently(task, PAGE_LIMIT)
        except Unavailable as error:
            return unavailable(str(error))

    async def _apart(self, request: HttpRequest) -> HttpResponseBase:
        async with ThreadSensitiveContext():
            try:
                return await self._get_response(request)
            finally:
                await sync_to_async(connections.close_all)()  # back to the pool

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        return unavailable() if isinstance(exception, OperationalError | InterfaceError) else None


def _needs_database(request: HttpRequest) -> bool:
    """The admin, the login and the account page; GraphQL looks after itself, and nothing else has rows in it."""
    return request.path.startswith((reverse("admin:index"), "/auth/", "/account"))
