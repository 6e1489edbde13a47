"""What an ASGI server runs: `uvicorn killboard.asgi:application`. Hands the schema and the log to the sockets."""

import os
import warnings
from collections.abc import Awaitable, Callable

from channels.routing import ProtocolTypeRouter, URLRouter
from django.core.asgi import get_asgi_application
from django.urls import re_path

# WhiteNoise hands files over in pieces, synchronously; Django warns at each, though they are few and small.
warnings.filterwarnings("ignore", message="StreamingHttpResponse must consume synchronous iterators")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "killboard.settings")
http = get_asgi_application()  # first: it sets Django up for the imports below

from killboard.engine import engine  # noqa: E402
from killboard.services import require_services  # noqa: E402
from killmails.events import KillmailLog  # noqa: E402
from realtime.consumer import GraphQLConsumer  # noqa: E402
from realtime.hub import Hub  # noqa: E402

require_services()
hub = Hub(KillmailLog(), engine)
websocket = GraphQLConsumer.as_asgi(engine=engine, hub=hub)


async def refuse(scope: object, receive: object, send: Callable[[dict[str, str]], Awaitable[None]]) -> None:
    """A websocket at any other address: 403, instead of an error of ours."""
    await send({"type": "websocket.close"})


elsewhere = re_path(r"", refuse)  # type: ignore[arg-type]  # Channels takes ASGI applications here
routes = URLRouter([re_path(r"^graphql/?$", websocket), elsewhere])
application = ProtocolTypeRouter({"http": http, "websocket": routes})
