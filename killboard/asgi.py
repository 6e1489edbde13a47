"""What an ASGI server runs: `uvicorn killboard.asgi:application`. Hands the schema and the log to the sockets."""

import asyncio
import atexit
import os
import socket
import warnings
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from typing import Any

from channels.routing import ProtocolTypeRouter
from django.core.asgi import get_asgi_application

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[Any], Awaitable[None]]

# WhiteNoise hands files over in pieces, synchronously; Django warns at each, though they are few and small.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "killboard.settings")
django = get_asgi_application()  # first: it sets Django up for the imports below

from django.conf import settings  # noqa: E402

from health import metrics, registry  # noqa: E402
from health.views import Health  # noqa: E402
from killboard.database import limit_statements  # noqa: E402
from killboard.engine import engine  # noqa: E402
from killboard.services import require_services  # noqa: E402
from killmails.accounts import authenticate  # noqa: E402
from killmails.events import KillmailLog  # noqa: E402
from killmails.schema.sync import probe  # noqa: E402
from killmails.universe.small import provide_universe  # noqa: E402
from realtime.consumer import GraphQLConsumer  # noqa: E402
from realtime.endpoint import Endpoint  # noqa: E402
from realtime.hub import Hub  # noqa: E402
from realtime.limits import Limits  # noqa: E402
from realtime.open_files import allow_sockets  # noqa: E402
from realtime.origin import Origins  # noqa: E402

require_services()
with ThreadPoolExecutor(1) as thread:  # uvicorn imports us in its loop, where Django asks no database
    thread.submit(provide_universe).result()  # else filters by place would match nothing, without a word
    thread.submit(limit_statements).result()
hub = Hub(KillmailLog(), engine, settings.MAX_REPLAY)
limits = Limits(**settings.SOCKET_LIMITS)
limits = replace(limits, sockets=allow_sockets(limits.sockets))
hub.delivered = metrics.delivered
endpoint = Endpoint(engine, hub, limits, settings.TRUSTED_PROXIES, authenticate, probe)
health = Health()
origins = Origins(settings.ALLOWED_HOSTS, settings.CSRF_TRUSTED_ORIGINS)


async def websocket(scope: Scope, receive: Receive, send: Send) -> None:
    """At /graphql, for programs and for pages of ours; all else is refused before it is accepted: 403."""
    start()
    if scope["path"] in ("/graphql", "/graphql/") and _may_open(scope):
        await GraphQLConsumer(endpoint)(scope, receive, send)
    else:
        await send({"type": "websocket.close"})


def _may_open(scope: Scope) -> bool:
    """Programs tell no origin; a page tells its own."""
    headers: dict[bytes, list[str]] = {b"origin": [], b"host": []}
    for name, value in scope["headers"]:
        headers.setdefault(name, []).append(value.decode("latin-1"))
    origin, host = (", ".join(headers[name]) if headers[name] else None for name in (b"origin", b"host"))
    return origins.allows(origin, host, scope.get("scheme") == "wss")


@cache
def start() -> None:
    """With the server; where that tells nothing of its start (daphne), with the first that it is asked."""
    hub.start()
    endpoint.start()
    registry.start("server", f"server {socket.gethostname()}:{os.getpid()}", facts=endpoint.facts)
    atexit.register(registry.stop, "server")


async def http(scope: Scope, receive: Receive, send: Send) -> None:
    """Django, but for what must answer however many ask."""
    start()
    if health.serves(scope["path"]):
        await health(scope, receive, send)
    else:
        await django(scope, receive, send)


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """The doorbell, the hub and the word that this process lives begin with the server, not with its first client."""
    await receive()
    start()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.to_thread(registry.stop, "server")
    await send({"type": "lifespan.shutdown.complete"})


application = ProtocolTypeRouter({"http": http, "websocket": websocket, "lifespan": lifespan})
