"""One function speaks HTTP to the outside. The only module that uses `requests`.

Each answer has a deadline for all of it and a cap on its size after decompression; redirects are not followed,
proxies and passwords of the environment are not used.
"""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.exceptions import DecodeError, HTTPError

from killmails.counts import SharedCounts
from killmails.errors import Reason, Unacceptable, Unreadable, UpstreamRefused, UpstreamUnreachable

DEADLINE = 15.0  # seconds for a whole answer
BODY_CAP = 5 * 1024 * 1024  # bytes after decompression; the largest real body has about 0.5 MB
KEPT = 1024 * 1024  # bytes of a refused body that are kept
PATIENCE = 24 * 3600.0  # seconds; who asks us to stay away for longer does not mean it
CHUNK = 8 * 1024
HASH = re.compile(r"\b[0-9a-f]{40}\b")

# Not ESI, whose answers are counted for the whole board with its limits: budget.py.
UPSTREAMS = ("zkillboard", "zkillboard_site", "sso", "everef", "static_data")
# Those that tell something of an upstream; of the rest is told how many there were.
KNOWN = (200, 301, 302, 304, 400, 401, 403, 404, 405, 408, 420, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524)
STATUSES = ("none", "other", *map(str, KNOWN))
_counts = SharedCounts(f"{upstream} {status}" for upstream in UPSTREAMS for status in STATUSES)

Told = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is complete. Names of headers are the same in capitals and in small letters."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict, compare=False)


def answers() -> dict[str, dict[str, int]]:
    """By upstream: how many questions were answered with which status; "none": no answer came."""
    told: dict[str, dict[str, int]] = {}
    for name, count in sorted(_counts.told().items()):
        upstream, status = name.split()
        told.setdefault(upstream, {})[status] = count
    return told


def _count(upstream: str, status: str) -> None:
    if upstream in UPSTREAMS:
        _counts.add(f"{upstream} {status if status in STATUSES else 'other'}")


class Client:
    """Questions to one upstream, one at a time: a thread has its own client."""

    def __init__(
        self, user_agent: str, deadline: float = DEADLINE, *, upstream: str = "zkillboard", cap: int = BODY_CAP
    ) -> None:
        self._deadline = deadline
        self._upstream = upstream
        self._cap = cap
        self._wire = _Wire()
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers.update({"User-Agent": user_agent, "Accept-Encoding": "gzip"})
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, _Adapter(self._wire))

    def get(self, url: str) -> Answer:
        """The answer with status 200 or 404. Raises UpstreamUnreachable, UpstreamRefused (any other status),
        Unacceptable (TOO_LARGE), Unreadable (cannot be unpacked).
        """
        with self._question("GET", url, self._deadline) as response:
            if response.status_code not in (200, 404):
                self._wire.hang_up()
                raise UpstreamRefused(response.status_code, retry_after(response.headers.get("Retry-After")))
            return self._read(response)

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        within: float | None = None,
    ) -> Answer:
        """The answer, whatever its status is; the body of one that is not 200 may be missing.

        `within`: seconds, where they are fewer than the client's own. Raises as `get`, but for UpstreamRefused.
        """
        seconds = self._deadline if within is None else min(within, self._deadline)
        with self._question(method, url, seconds, headers=headers, data=body) as response:
            return self._read(response)

    def download(
        self, url: str, into: BinaryIO, *, headers: Mapping[str, str] | None = None, told: Told | None = None
    ) -> Answer:
        """As `ask`, but a body of status 200 is written to the file, and the answer has none.

        `told` hears how many bytes there are so far, and of how many (None: unknown).
        """
        with self._question("GET", url, self._deadline, headers=headers) as response:
            if response.status_code != 200:
                return self._read(response)
            size = response.headers.get("Content-Length", "")
            total = int(size) if size.isdigit() and "Content-Encoding" not in response.headers else None
            written = 0
            for chunk in self._chunks(response):
                written += into.write(chunk)
                if told:
                    told(written, total)
            self._check_complete(response)
            return Answer(200, b"", response.headers)

    def hang_up(self) -> None:
        """From another thread: ends the question under way."""
        self._wire.cut()

    @contextmanager
    def _question(self, method: str, url: str, seconds: float, **options: Any) -> Iterator[requests.Response]:
        options |= {"stream": True, "allow_redirects": False, "timeout": seconds}
        status = "none"
        with self._wire.cut_after(seconds):
            try:
                with self._session.request(method, url, **options) as response:
                    status = str(response.status_code)
                    yield response
            except (requests.RequestException, HTTPError, OSError) as error:
                status = "none"
                raise UpstreamUnreachable(without_hash(f"{url}: {self._cause(error)}")) from error
            finally:
                _count(self._upstream, status)

    def _read(self, response: requests.Response) -> Answer:
        body = bytearray()
        try:
            for chunk in self._chunks(response):
                body += chunk
        except Unacceptable as error:
            if response.status_code == 200:
                error.raw = bytes(body[:KEPT])
                raise
            body.clear()  # whatever it is: the status is all that counts
        self._check_complete(response)
        return Answer(response.status_code, bytes(body), response.headers)

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        size = 0
        try:
            for chunk in response.raw.stream(CHUNK, decode_content=True):
                yield chunk
                size += len(chunk)
                if size > self._cap:
                    self._wire.hang_up()
                    raise Unacceptable(Reason.TOO_LARGE, f"the body exceeds {self._cap} bytes")
        except DecodeError as error:
            self._wire.hang_up()
            raise Unreadable(Reason.NOT_JSON, "the body cannot be unpacked") from error

    def _check_complete(self, response: requests.Response) -> None:
        if self._wire.was_cut:  # without a declared length the end of our making looks like the body's own
            text = f"{response.url}: no complete answer within {self._wire.seconds:.0f} s"
            raise UpstreamUnreachable(without_hash(text))

    def _cause(self, error: Exception) -> str:
        if self._wire.was_cut or isinstance(error, requests.ReadTimeout):
            return f"no complete answer within {self._wire.seconds:.0f} s"
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
        self.seconds = 0.0  # for the question in hand
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
        self.seconds = seconds
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


def without_hash(text: str) -> str:
    """For people: whoever knows a killmail's hash can read it at ESI, though its owner withholds it here."""
    return HASH.sub("…", text)


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
