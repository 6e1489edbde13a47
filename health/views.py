"""`/health`, `/health/live`, `/health/ready`, `/health/redis` and `/metrics`, for people, supervisors and Prometheus.

An ASGI application of its own, before Django's: there each question would take threads, and a thousand of them seconds.
"""

import hmac
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import orjson
from django.conf import settings

from health import metrics, redis_view
from health.checks import Checks, Parts, report
from health.part import State, overall
from realtime.limits import client_address, is_loopback

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

JSON = "application/json"
RETRY_AFTER = "5"  # seconds
FORWARDING = {b"x-forwarded-for", b"forwarded", b"x-real-ip"}  # headers of who asks for somebody else


class Health:
    """One for each process; belongs to its event loop."""

    def __init__(self) -> None:
        self._checks = Checks()
        self._said: tuple[Parts, bytes] = {}, b""
        self._pages = {
            "/health": self._health,
            "/health/live": self._live,
            "/health/ready": self._ready,
            "/metrics": self._metrics,
        }

    def serves(self, path: str) -> bool:
        return _plain(path) in (*self._pages, "/health/redis")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """GET and HEAD."""
        if _plain(scope["path"]) == "/health/redis":
            return await redis_view.application(scope, receive, send)
        if scope["method"] not in ("GET", "HEAD"):
            return await _answer(scope, send, 405, b"", JSON, allow="GET, HEAD")
        await self._pages[_plain(scope["path"])](scope, send)

    async def _health(self, scope: Scope, send: Send) -> None:
        parts = await self._checks.all()
        if parts != self._said[0]:  # else a thousand questions make one text
            self._said = parts, orjson.dumps(report(parts))
        await _tell(scope, send, parts, self._said[1])

    async def _ready(self, scope: Scope, send: Send) -> None:
        parts = await self._checks.ready()
        await _tell(scope, send, parts, orjson.dumps(report(parts)))

    async def _live(self, scope: Scope, send: Send) -> None:
        await _answer(scope, send, 200, orjson.dumps({"status": State.OK}), JSON)

    async def _metrics(self, scope: Scope, send: Send) -> None:
        if _may_read_metrics(scope):
            text = metrics.render(await self._checks.all())
            return await _answer(scope, send, 200, text, metrics.CONTENT_TYPE)
        text = b"Only from this machine, or with METRICS_TOKEN as a bearer token.\n"
        await _answer(scope, send, 403, text, "text/plain; charset=utf-8")


def _plain(path: str) -> str:
    return path.removesuffix("/")


async def _tell(scope: Scope, send: Send, parts: Parts, body: bytes) -> None:
    if overall(parts) is State.DOWN:
        await _answer(scope, send, HTTPStatus.SERVICE_UNAVAILABLE, body, JSON, retry_after=RETRY_AFTER)
    else:
        await _answer(scope, send, HTTPStatus.OK, body, JSON)


async def _answer(scope: Scope, send: Send, status: int, body: bytes, kind: str, **also: str) -> None:
    told = {"content-type": kind, "cache-control": "no-store", "content-length": str(len(body))}
    told |= {name.replace("_", "-"): value for name, value in also.items()}
    headers = [(name.encode(), value.encode()) for name, value in told.items()]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _may_read_metrics(scope: Scope) -> bool:
    """From this machine, or with the token.

    Behind a proxy on this machine everybody's peer is this machine. So whoever is forwarded must be known to be here:
    every address on the way, none of them told by a header that no proxy of ours writes.
    """
    if settings.METRICS_TOKEN and any(_is_token(value) for value in _values(scope, b"authorization")):
        return True
    peer = (scope.get("client") or [""])[0]
    forwarded = [value.decode("latin-1") for value in _values(scope, b"x-forwarded-for")]
    if any(name in FORWARDING for name, _ in scope["headers"]) and not (settings.TRUSTED_PROXIES and forwarded):
        return False
    entries = [entry.strip() for value in forwarded for entry in value.split(",")]
    address = client_address(peer, forwarded, settings.TRUSTED_PROXIES)
    return all(is_loopback(one) for one in (peer, address, *entries))


def _is_token(value: bytes) -> bool:
    scheme, _, token = value.partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), settings.METRICS_TOKEN.encode())


def _values(scope: Scope, name: bytes) -> list[bytes]:
    return [value for each, value in scope["headers"] if each == name]
