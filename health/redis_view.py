"""`GET /health/redis`: whether the doorbell of this server works, found out by ringing it.

An ASGI application of its own, before Django's: there each question would take threads, and a thousand of them seconds.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import orjson
from django.conf import settings

from realtime import doorbell
from realtime.pulse import Status

LIMIT = 0.5  # seconds in which a heartbeat has to come back


async def ask() -> tuple[int, dict[str, Any]]:
    """The status code, and what is said."""
    enabled = settings.REDIS is not None
    status = await doorbell.check(LIMIT) if enabled else Status()
    answer = {
        "enabled": enabled,
        "publishClient": status.publish,
        "subscribeClient": status.subscribe,
        "connected": status.connected,
        "url": settings.REDIS_MASKED or None,
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
    }
    return (200 if status.connected or not enabled else 503), answer


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """As ASGI has it. GET and HEAD."""
    if scope["method"] in ("GET", "HEAD"):
        status, answer = await ask()
        headers, body = [(b"content-type", b"application/json")], orjson.dumps(answer)
    else:
        status, headers, body = 405, [(b"allow", b"GET, HEAD")], b""
    headers += [(b"cache-control", b"no-store"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
