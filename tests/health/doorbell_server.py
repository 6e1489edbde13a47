"""A server process as far as the doorbell and /health/redis go: uvicorn, a listener, and no database."""

import asyncio
import contextlib
import json
import selectors
import socket
import threading
import time
import urllib.error
import urllib.request

from django.test import override_settings

from health import redis as health_redis
from health import redis_view
from killboard.environment import masked
from killboard.redis_address import read_redis_address
from realtime import doorbell
from tests.realtime.running_server import running_server


@contextlib.contextmanager
def configured(url, sentinel_password=""):
    """Settings as REDIS_URL makes them; "" is a board without Redis. With no doorbell of another test."""
    address = read_redis_address(url, "", "", sentinel_password)[0] if url else None
    config = {"hosts": [address.layer_host()], "prefix": address.prefix} if address else {}
    backend = "channels_redis.pubsub.RedisPubSubChannelLayer" if address else "channels.layers.InMemoryChannelLayer"
    layers = {"default": {"BACKEND": backend, "CONFIG": config}}
    before = doorbell._ringer, doorbell._listener
    doorbell._ringer, doorbell._listener = doorbell._Ringer(), None
    health_redis._forget()
    try:
        with override_settings(REDIS=address, REDIS_URL=url, REDIS_MASKED=url and masked(url), CHANNEL_LAYERS=layers):
            yield
    finally:
        doorbell._ringer, doorbell._listener = before
        health_redis._forget()


def soonest(question, limit, tries=10):
    """What is answered, and the seconds that it took, as soon as one answer takes less than `limit`, else at last.

    A busy machine may hold up an answer, but not each of them.
    """
    for _ in range(tries):
        begun = time.monotonic()
        answer = question()
        took = time.monotonic() - begun
        if took < limit:
            break
    return answer, took


class Server:
    """Answers /health/redis; `woken` are the positions for which its hub would have looked at the log."""

    def __init__(self):
        self.woken = []
        self.port = None

    async def __call__(self, scope, receive, send):
        if scope["type"] != "lifespan":
            return await redis_view.application(scope, receive, send)
        await receive()
        listening = asyncio.create_task(doorbell.Listener(self.woken.append, lambda: 0).run())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await send({"type": "lifespan.shutdown.complete"})

    def ask(self, method="GET"):
        """The status code, and what is said."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/health/redis", method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read() or "null")
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read() or "null")

    def wait_for(self, status, seconds=60):
        """What is said as soon as it answers so."""
        deadline = time.monotonic() + seconds
        while (answer := self.ask())[0] != status:
            assert time.monotonic() < deadline, answer
            time.sleep(0.05)
        return answer[1]


@contextlib.contextmanager
def doorbell_server(url, sentinel_password=""):
    """One that runs, with this REDIS_URL."""
    with configured(url, sentinel_password):
        server = Server()
        with running_server(server, lifespan="on") as server.port:
            yield server


class CountingProxy:
    """Before a Redis; counts the connections that are opened. `shut`: it closes each of them at once."""

    def __init__(self, port):
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port = self._listening.getsockname()[1]
        self.dials, self.shut = 0, False
        self._others, self._ended = {}, False

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        assert self._thread.is_alive(), "it did not count to the end"
        self._ended = True
        self._thread.join(60)
        for each in [self._listening, *self._others]:
            each.close()

    def _run(self):
        while not self._ended:
            if self.shut:
                for each in list(self._others):
                    self._close(each)
            for ready in self._ready():
                if ready is self._listening:
                    self._take(ready.accept()[0])
                elif ready in self._others:
                    self._pass_on(ready)

    def _ready(self):
        with selectors.PollSelector() as selector:  # select() knows no more than 1,024 files
            for each in [self._listening, *self._others]:
                selector.register(each, selectors.EVENT_READ)
            return [key.fileobj for key, _ in selector.select(0.02)]

    def _take(self, client):
        self.dials += 1
        if self.shut:
            return client.close()
        redis = socket.create_connection(("127.0.0.1", self._target))
        self._others |= {client: redis, redis: client}

    def _pass_on(self, source):
        data = b""
        with contextlib.suppress(OSError):
            data = source.recv(65536)
            self._others[source].sendall(data)
        if not data:
            self._close(source)

    def _close(self, one):
        other = self._others.pop(one, None)
        if other:
            self._others.pop(other, None)
            one.close()
            other.close()
