"""A real uvicorn in a thread, with the settings that the board is served with; and a client for it."""

import asyncio
import contextlib
import json
import socket
import threading
import time

import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from killboard.management.commands.serve import UVICORN
from realtime.consumer import GraphQLConsumer
from realtime.endpoint import Endpoint
from realtime.hub import Hub
from realtime.limits import Limits
from tests.realtime.memory_log import CountingEngine, MemoryLog

PROTOCOL = "graphql-transport-ws"
LEGACY = "graphql-ws"
INIT = {"type": "connection_init"}
ACK = {"type": "connection_ack"}
LIMIT = 60.0  # seconds until a test gives up


@contextlib.contextmanager
def running_server(application, send_buffer=None, **options):
    """Serves the application on a free loopback port, which is given.

    `send_buffer`: bytes that the system keeps for a client that does not read.
    """
    listening = socket.create_server(("127.0.0.1", 0))
    if send_buffer:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
    options = UVICORN | {"log_level": "critical", "timeout_graceful_shutdown": 1, "lifespan": "off"} | options
    config = uvicorn.Config(application, **options)
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listening])), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(LIMIT)
        assert not thread.is_alive(), "the server did not stop"


class Board:
    """A server with a log in memory; `endpoint` belongs to the server's loop."""

    def __init__(self, limits=None, trusted_proxies=0, **options):
        self.log = MemoryLog()
        self.engine = CountingEngine()
        self.endpoint = None
        self.port = None
        self.loop = None
        self._options = {"limits": limits or Limits(), "trusted_proxies": trusted_proxies} | options

    async def __call__(self, scope, receive, send):
        if self.endpoint is None:
            self.loop = asyncio.get_running_loop()
            self.endpoint = Endpoint(self.engine, Hub(self.log, self.engine), **self._options)
        await GraphQLConsumer.as_asgi(endpoint=self.endpoint)(scope, receive, send)

    @property
    def hub(self):
        return self.endpoint.hub

    def open(self, **options):
        options = {"subprotocols": [PROTOCOL], "compression": None, "max_size": None, "open_timeout": LIMIT} | options
        return connect(f"ws://127.0.0.1:{self.port}/graphql", **options)

    @contextlib.asynccontextmanager
    async def ready(self, **options):
        """A socket that is initialised."""
        async with self.open(**options) as ws:
            await say(ws, INIT)
            assert await hear(ws) == ACK
            yield ws

    @contextlib.asynccontextmanager
    async def ready_with_small_buffer(self):
        """A socket whose reader holds up the server soon, when it does not read."""
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        raw.connect(("127.0.0.1", self.port))
        raw.setblocking(False)
        async with self.ready(sock=raw, max_queue=1, ping_interval=None) as ws:
            yield ws

    def live(self):
        """How many subscriptions get their events from the hub."""
        return 0 if self.endpoint is None else len(list(self.hub._groups))

    def subscriptions(self):
        """How many there are, whether or not the hub has taken them in."""
        return 0 if self.endpoint is None else len(self.hub._all)

    async def consumer(self):
        """The server's side of the only socket there is, from when it waits for its initialisation on."""
        await until(lambda: [one for one in list(self.endpoint._consumers.values()) if one._init_limit])
        (consumer,) = self.endpoint._consumers.values()
        return consumer

    def sockets(self):
        """How many sockets are counted."""
        return 0 if self.endpoint is None else self.endpoint.sockets._count


def run(scenario):
    async def limited():
        async with asyncio.timeout(LIMIT):
            return await scenario

    return asyncio.run(limited())


async def say(ws, message):
    await ws.send(message if isinstance(message, str | bytes) else json.dumps(message))


async def hear(ws):
    return json.loads(await ws.recv())


async def subscribe(ws, id_="1", query="subscription { number { position } }", **payload):
    await say(ws, {"type": "subscribe", "id": id_, "payload": {"query": query} | payload})


async def close_of(ws):
    """What the server closed with, after any frames that it still sent."""
    code, reason, _ = await rest_of(ws)
    return code, reason


async def rest_of(ws):
    """Code and reason of the close, and the frames before it."""
    frames = []
    try:
        while True:
            frames.append(await hear(ws))
    except ConnectionClosed:
        assert len((ws.close_reason or "").encode()) <= 123
        return ws.close_code, ws.close_reason, frames


def position_of(frame):
    (data,) = frame["payload"]["data"].values()
    return data["position"]


async def until(condition):
    while not condition():  # noqa: ASYNC110  (what it looks at is in another thread)
        await asyncio.sleep(0.005)
