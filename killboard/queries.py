"""Executes GraphQL for HTTP in threads of its own: bounded in number, and in the time that anybody waits."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from django.db import Error, connections
from graphql import ExecutionResult

from killboard.database import Unavailable, wait_patiently
from killmails.accounts import authenticate
from realtime.callers import NOBODY, Caller, NotAuthenticated, bearer_of
from realtime.operations import DATABASE_AWAY, Engine, Operation, is_away

T = TypeVar("T")
THREADS = 3  # with those of the websockets fewer than the ten database connections of a process
MOST = 500  # requests at a time, those included that wait for a thread
LIMIT = 10.0  # seconds for the whole

_threads = ThreadPoolExecutor(THREADS, thread_name_prefix="graphql")
_waiting = 0


async def caller_of(authorization: str | None, address: str) -> Caller:
    """Who sent this header; nobody in particular without one. Raises NotAuthenticated and Unavailable."""
    token = bearer_of(authorization)
    if token is None:
        return Caller(None, address)
    try:
        viewer = await _run(authenticate, token)
    except Error as error:
        raise Unavailable(DATABASE_AWAY) from error
    if viewer is None:
        raise NotAuthenticated
    return Caller(viewer, address)


async def prepare(
    engine: Engine, query: str, variables: Mapping[str, Any] | None, name: str | None, caller: Caller = NOBODY
) -> Operation:
    """Raises BadOperation and Unavailable. A document that is new is read in a thread: it may take a while."""
    if engine.knows(query):
        return engine.prepare(query, variables, name, caller)
    return await _run(engine.prepare, query, variables, name, caller)


async def execute(engine: Engine, operation: Operation) -> ExecutionResult:
    """Raises Unavailable, at the latest three seconds after the database has stopped to answer."""
    return await _run(engine.result, operation)


async def _run(function: Callable[..., T], *arguments: Any) -> T:
    global _waiting  # noqa: PLW0603
    if _waiting >= MOST:
        raise Unavailable("Too many requests are waiting; try again later.")
    _waiting += 1
    future = asyncio.get_running_loop().run_in_executor(_threads, _in_thread, function, arguments)
    try:
        return await wait_patiently(future, LIMIT)
    finally:
        future.cancel()  # one that has begun ends by itself
        _waiting -= 1


def _in_thread(function: Callable[..., T], arguments: Sequence[Any]) -> T:
    try:
        return function(*arguments)
    finally:
        connections.close_all()  # back to the pool


def database_is_away(result: ExecutionResult) -> bool:
    """Whether that is why there are errors."""
    return any(is_away(error.original_error) for error in result.errors or ())
