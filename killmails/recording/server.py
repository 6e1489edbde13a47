"""A small faithful R2Z2 on loopback: zKillboard's feed as its clients meet it, played from a recording."""

import contextlib
import gzip
import http.server
import re
import socket
import socketserver
import sys
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

from killmails.recording.tape import Tape, killmail_hash, load_recording, php_json

__all__ = ["RecordingServer", "killmail_hash", "load_recording"]

REQUESTS_PER_SECOND = 15
# Upstream blocks for up to an hour a client that goes on after 429; ten minutes are enough to notice.
REFUSALS_BEFORE_BLOCK = 15
BLOCK_SECONDS = 600
WAIT_AFTER_404_SECONDS = 6
KEPT_REQUESTS = 10_000
KEPT_MISSES = 1_000
PACKAGE_PATH = re.compile(r"/ephemeral/([0-9]{1,15})\.json")


@dataclass
class _Client:
    """How often one address has asked lately."""

    arrivals: deque[float] = field(default_factory=deque)
    refusals: int = 0
    blocked_until: float = 0.0


class RecordingServer:
    """R2Z2 at `http://127.0.0.1:{port}`; killmails appear by the clock or, with rate 0, by publish().

    `rate` is killmails a second after the `ready` ones, which are there at once. Without `loop` the
    killmails are served unchanged and the feed then goes quiet; with it they come again and again, each
    time as new killmails of now, whose ids depend on the sequence alone: a server that starts again with
    `first_sequence` above the old head never gives an old id to a new killmail.
    `port` 0 takes a free one. stop() and start() again keep port and clock, like an outage upstream.
    """

    def __init__(
        self,
        killmails: Sequence[dict[str, Any]],
        *,
        rate: float,
        first_sequence: int = 1,
        ready: int = 0,
        loop: bool = False,
        port: int = 0,
    ) -> None:
        self._tape = Tape(killmails, rate=rate, first_sequence=first_sequence, ready=ready, loop=loop)
        self._port = port
        self._http: _LoopbackServer | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._clients: dict[str, _Client] = {}
        self._misses: OrderedDict[str, float] = OrderedDict()
        self.requests: deque[tuple[float, str, int]] = deque(maxlen=KEPT_REQUESTS)
        """(monotonic seconds, path, status) of the latest requests, oldest first."""
        self.violations = 0
        """How often a number was asked again less than 6 s after its 404."""

    @property
    def url(self) -> str:
        """The base address, without a slash at the end. RuntimeError while no port is known."""
        if not self._port:
            raise RuntimeError("the recording server has no address before start()")
        return f"http://127.0.0.1:{self._port}"

    @property
    def head(self) -> int | None:
        """The newest sequence published, None before the first."""
        with self._lock:
            return self._tape.head

    def start(self) -> Self:
        """Bind and serve from a thread of its own. Raises OSError when the port is taken."""
        if self._http is not None:
            raise RuntimeError("the recording server is running already")
        self._http = _LoopbackServer(self, self._port)
        self._port = self._http.server_address[1]
        self._tape.start()
        self._thread = threading.Thread(
            target=self._http.serve_forever,
            kwargs={"poll_interval": 0.05},
            name="recording-server",
            daemon=True,
        )
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving and end every open connection. May be called twice."""
        if self._http is None or self._thread is None:
            return
        self._http.shutdown()
        self._http.server_close()
        self._http.end_connections()
        self._thread.join()
        self._http = self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def publish(self, record: dict[str, Any]) -> int:
        """Put a record up at the next sequence, which is returned. ValueError unless rate is 0."""
        with self._lock:
            return self._tape.publish(record)

    def republish(self, sequence: int, record: dict[str, Any]) -> None:
        """Upload a published file again; the next publish() carries its number as `sequence_updated`."""
        with self._lock:
            self._tape.republish(sequence, record)

    def answer(self, client: str, user_agent: str, path: str) -> tuple[HTTPStatus, bytes]:
        """Status and body for one GET; counts it. The body of an error is HTML, as Cloudflare sends it."""
        with self._lock:
            now = time.monotonic()
            status = self._refusal(client, user_agent, now)
            body = None
            if status is None:
                body = self._file(path, now)
                status = HTTPStatus.NOT_FOUND if body is None else HTTPStatus.OK
            self.requests.append((now, path, int(status)))
            return status, body if body is not None else _html(status)

    def _refusal(self, address: str, user_agent: str, now: float) -> HTTPStatus | None:
        """403 or 429 for a client that has no name or asks too often, None = may have its file."""
        if not user_agent.strip():
            return HTTPStatus.FORBIDDEN
        client = self._clients.setdefault(address, _Client())
        if now < client.blocked_until:
            return HTTPStatus.FORBIDDEN
        while client.arrivals and now - client.arrivals[0] >= 1:
            client.arrivals.popleft()
        if not client.arrivals:
            client.refusals = 0
        client.arrivals.append(now)
        if len(client.arrivals) <= REQUESTS_PER_SECOND:
            return None
        client.refusals += 1
        if client.refusals <= REFUSALS_BEFORE_BLOCK:
            return HTTPStatus.TOO_MANY_REQUESTS
        client.blocked_until = now + BLOCK_SECONDS
        return HTTPStatus.FORBIDDEN

    def _file(self, path: str, now: float) -> bytes | None:
        """The bytes of the file at this path, None = no such file (yet)."""
        if path == "/ephemeral/sequence.json":
            return php_json({"sequence": self._tape.pointer})
        match = PACKAGE_PATH.fullmatch(path)
        if match is None:
            return None
        # A number that has appeared meanwhile counts too: the client could not know.
        missed = self._misses.pop(path, None)
        if missed is not None and now - missed < WAIT_AFTER_404_SECONDS:
            self.violations += 1
        package = self._tape.package(int(match[1]))
        if package is not None:
            return php_json(package)
        self._misses[path] = now
        if len(self._misses) > KEPT_MISSES:
            self._misses.popitem(last=False)
        return None


def _html(status: HTTPStatus) -> bytes:
    text = f"{status.value} {status.phrase}"
    page = f"<!DOCTYPE html><html><head><title>{text}</title></head><body><h1>{text}</h1></body></html>\n"
    return page.encode()


class _LoopbackServer(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, recording: RecordingServer, port: int) -> None:
        self.recording = recording
        self._connections: set[socket.socket] = set()
        self._connections_lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask the resolver for our name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._connections_lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._connections_lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no error of ours; the rest is printed with its traceback."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def end_connections(self) -> None:
        """Shut every kept-alive connection: a stopped server must not answer on an old one."""
        with self._connections_lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the peer was faster
                    connection.shutdown(socket.SHUT_RDWR)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one write: no waiting for a delayed ACK
    disable_nagle_algorithm = True
    server: _LoopbackServer

    def do_GET(self) -> None:
        status, body = self.server.recording.answer(
            self.client_address[0], self.headers.get("User-Agent", ""), self.path
        )
        self.send_response(status)
        is_file = status == HTTPStatus.OK
        self.send_header("Content-Type", "application/json" if is_file else "text/html; charset=UTF-8")
        if is_file:
            self.send_header("Vary", "Accept-Encoding")
            if _accepts_gzip(self.headers.get("Accept-Encoding", "")):
                body = gzip.compress(body, compresslevel=6, mtime=0)
                self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the stock name
        """Silent: `RecordingServer.requests` is the log."""


def _accepts_gzip(accept_encoding: str) -> bool:
    for coding in accept_encoding.lower().split(","):
        name, _, quality = coding.replace(" ", "").partition(";q=")
        if name == "gzip":
            return quality.strip("0.") != "" or not quality
    return False
