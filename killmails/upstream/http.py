"""One function speaks HTTP to the outside. The only module that uses `requests`.

Each answer has a deadline for all of it and a cap on its size after decompression; redirects are not followed,
proxies and passwords of the environment are not used.
"""

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import DecodeError, HTTPError

from killmails.errors import Reason, Unacceptable, Unreadable, UpstreamRefused, UpstreamUnreachable

DEADLINE = 15.0  # seconds for a whole answer
BODY_CAP = 5 * 1024 * 1024  # bytes after decompression; the largest real body has about 0.5 MB
KEPT = 1024 * 1024  # bytes of a refused body that are kept
PATIENCE = 24 * 3600.0  # seconds; who asks us to stay away for longer does not mean it
CHUNK = 8 * 1024

answers: Counter[str] = Counter()  # of this process: questions by status, or "none" where no answer came


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is complete. `status` is 200 or 404."""

    status: int
    body: bytes


class Client:
    """Questions to one upstream, one at a time."""

    def __init__(self, user_agent: str, deadline: float = DEADLINE) -> None:
        self._deadline = deadline
        self._wire = _Wire()
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update({"User-Agent": user_agent, "Accept-Encoding": "gzip"})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(self._wire))

    def get(self, url: str) -> Answer:
        """Raises UpstreamUnreachable, UpstreamRefused (any status but 200 and 404), Unacceptable (TOO_LARGE),
        Unreadable (cannot be unpacked).
        """
        status = "none"
        with self._wire.cut_after(self._deadline):
            try:
                with self._session.get(url, stream=True, allow_redirects=False, timeout=self._deadline) as response:
                    status = str(response.status_code)
                    return self._read(response)
            except (requests.RequestException, HTTPError, OSError) as error:
                status = "none"
                raise UpstreamUnreachable(f"{url}: {self._cause(error)}") from error
            finally:
                answers[status] += 1

    def hang_up(self) -> None:
        """From another thread: ends the question under way."""
        self._wire.cut()

    def _read(self, response: requests.Response) -> Answer:
        if response.status_code not in (200, 404):
            self._wire.hang_up()
            raise UpstreamRefused(response.status_code, retry_after(response.headers.get("Retry-After")))
        try:
            body = self._body(response)
        except Unacceptable:
            if response.status_code != 404:
                raise
            body = b""  # whatever it is: that it is a 404 is all that counts
        if self._wire.was_cut:  # without a declared length the end of our making looks like the body's own
            raise UpstreamUnreachable(f"{response.url}: no complete answer within {self._deadline:.0f} s")
        return Answer(response.status_code, body)

    def _body(self, response: requests.Response) -> bytes:
        body = bytearray()
        try:
            for chunk in response.raw.stream(CHUNK, decode_content=True):
                body += chunk
                if len(body) > BODY_CAP:
                    self._wire.hang_up()
                    raise Unacceptable(Reason.TOO_LARGE, f"the body exceeds {BODY_CAP} bytes", bytes(body[:KEPT]))
        except DecodeError as error:
            self._wire.hang_up()
            raise Unreadable(Reason.NOT_JSON, "the body cannot be unpacked", bytes(body[:KEPT])) from error
        return bytes(body)

    def _cause(self, error: Exception) -> str:
        if self._wire.was_cut:
            return f"no complete answer within {self._deadline:.0f} s"
        if isinstance(error, requests.ConnectionError):
            return "no connection"
        return f"{type(error).__name__}: {str(error)[:200]}"


class _Wire:
    """The socket in use. `requests` knows time limits for single reads only: a server that drips a byte each
    second holds them for ever. So a clock of our own shuts the socket down when the time is over.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self.was_cut = False
        self._ends_at = 0.0

    def seconds_left(self) -> float:
        return max(0.001, self._ends_at - time.monotonic())

    def use(self, connected: socket.socket) -> None:
        """A second handle on the connection: TLS takes the first one over."""
        self._close()
        self._socket = connected.dup()
        if self.was_cut:  # the time was over while we were still connecting
            self.hang_up()

    def hang_up(self) -> None:
        """Ends the connection with the rest of its answer unread."""
        if self._socket:
            with suppress(OSError):  # the other side was faster
                self._socket.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def cut_after(self, seconds: float) -> Iterator[None]:
        self.was_cut = False
        self._ends_at = time.monotonic() + seconds
        clock = threading.Timer(seconds, self.cut)
        clock.daemon = True
        clock.start()
        try:
            yield
        finally:
            clock.cancel()

    def cut(self) -> None:
        self.was_cut = True
        self.hang_up()

    def _close(self) -> None:
        if self._socket:
            self._socket.close()


class _Adapter(HTTPAdapter):
    """Hands each new connection to the wire."""

    def __init__(self, wire: _Wire) -> None:
        self._wire = wire
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        pools = self.poolmanager.pool_classes_by_scheme
        self.poolmanager.pool_classes_by_scheme = {scheme: self._watched(pool) for scheme, pool in pools.items()}

    def _watched(self, pool: type[HTTPConnectionPool]) -> type[HTTPConnectionPool]:
        wire = self._wire

        class WatchedConnection(pool.ConnectionCls):  # type: ignore[name-defined]
            def _new_conn(self) -> socket.socket:
                # urllib3 gives each address of a name the whole time, one after the other.
                self.timeout = wire.seconds_left() / max(1, len(_addresses(self.host, self.port)))
                connected = super()._new_conn()
                self.timeout = wire.seconds_left()
                wire.use(connected)
                return connected

        return type("WatchedPool", (pool,), {"ConnectionCls": WatchedConnection})


def _addresses(host: str, port: int | None) -> list[Any]:
    try:
        return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []  # connecting will say it


def retry_after(value: str | None) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or a date, a day at most; None for none or nonsense."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return min(PATIENCE, float(value.strip()[:9]))
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    if date.tzinfo is None:
        date = date.replace(tzinfo=UTC)
    return min(PATIENCE, max(0.0, (date - datetime.now(UTC)).total_seconds()))
