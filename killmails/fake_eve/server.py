"""The server of a fake ESI and its SSO, on 127.0.0.1, in threads of its own."""

import contextlib
import hashlib
import http.server
import json
import re
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from killmails.fake_eve.faults import Fault, Faults
from killmails.fake_eve.limits import GROUPS, Clock, Limits
from killmails.fake_eve.messages import Reply, Request
from killmails.fake_eve.routes import Route, route_of
from killmails.fake_eve.sso import Application, FakeSso
from killmails.fake_eve.world import World

LIMIT = 60.0  # seconds; a silence ends then at the latest
NO_PAGE = Reply(404, {"error": "Requested page does not exist!"})
NOWHERE = Route("GET", re.compile(""), lambda *_: NO_PAGE)


@dataclass(frozen=True)
class Asked:
    """A question that came, and the status of its answer; `at` by the monotonic clock."""

    at: float
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    status: int


class FakeEsi:
    """ESI and EVE's SSO at `url`. What they know is in `world`, which may change at any time; `asked`: what was asked.

    `speed`: ESI's seconds in one of ours, so that its windows pass sooner. `groups`: tokens and seconds of its buckets.
    `violations`: each question that broke a rule. `early`: what was asked for again before it had expired.
    """

    def __init__(
        self,
        world: World | None = None,
        *,
        port: int = 0,
        speed: float = 1.0,
        groups: Mapping[str, tuple[int, int]] = GROUPS,
        application: Application | None = None,
    ) -> None:
        self.world = world or World()
        self.clock = Clock(speed)
        self.limits = Limits(self.clock, groups)
        self.sso = FakeSso(self.world, self.clock, application or Application())
        self.asked: list[Asked] = []
        self.early: list[str] = []
        self._expires_at: dict[str, float] = {}
        self._faults = Faults()
        self._down_until = 0.0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._http = _Server(self, port)
        self.sso.url = self.url

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def violations(self) -> list[str]:
        return self.limits.violations

    def start(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=[0.02], name="fake-esi", daemon=True).start()
        return self

    def stop(self) -> None:
        """Ends the server; whoever asks from now on is refused the connection."""
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()
        self._http.end_connections()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def fail(self, pattern: str, fault: Fault, times: int = 1) -> None:
        """The next answers to paths that begin like this (a regular expression); times 0: until `heal`."""
        with self._lock:
            self._faults.add(pattern, fault, times)

    def heal(self) -> None:
        """Forgets all faults that are still to come, and a downtime."""
        with self._lock:
            self._faults.clear()
            self._down_until = 0.0

    def go_down(self, seconds: float) -> None:
        """503 with the words of the daily maintenance, on every route, for so long."""
        with self._lock:
            self._down_until = time.monotonic() + seconds

    def counts(self) -> Counter[tuple[str, int]]:
        """How often the first two words of a path were answered with a status."""
        with self._lock:
            return Counter(("/".join(one.path.partition("?")[0].split("/")[:3]), one.status) for one in self.asked)

    def _look_at(self, request: Request) -> None:
        if not request.headers.get("User-Agent", "").strip():
            self.limits.violations.append("a question without a User-Agent")
        if not re.fullmatch(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}", request.headers.get("X-Compatibility-Date", "")):
            self.limits.violations.append("a question without an X-Compatibility-Date")

    def reply_to(self, request: Request) -> Reply | Fault:
        with self._lock:
            reply = self._of_sso(request) or self._of_esi(request)
            status = 0 if isinstance(reply, Fault) and reply.hang_up else reply.status
            self.asked.append(
                Asked(time.monotonic(), request.method, request.target, request.headers, request.body, status)
            )
        return reply

    def _of_sso(self, request: Request) -> Reply | Fault | None:
        if not re.match(r"/(v2/)?oauth/|/\.well-known/|/favicon\.ico", request.path):
            return None
        return self._scripted(request) or self.sso.answer(request) or NO_PAGE

    def _of_esi(self, request: Request) -> Reply | Fault:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        reply = self._answer(replace(request, holder=self.sso.holder(token)))
        self._look_at(request)
        return reply

    def _answer(self, request: Request) -> Reply | Fault:
        """Limits before all else, as at a gate; then what was scripted, then what is right."""
        found = route_of(request)
        route = found[0] if found else NOWHERE
        # Who brings no token is counted by address, and here all are one.
        user = f"{self.sso.application.client_id}:{request.holder[0]}" if request.holder else ""
        refusal = self.limits.refuse(route.group, user)
        if refusal:
            return Reply(refusal.status, {"error": "Too many errors or requests"}, refusal.headers)
        reply = self._scripted(request) or (found and found[0].answer(self.world, request, found[1])) or NO_PAGE
        if isinstance(reply, Reply) and reply.status == 200 and request.method == "GET":
            reply = self._fresh(reply, route, request)
        if isinstance(reply, Fault) and reply.free:
            return reply
        return replace(reply, headers={**self.limits.charge(route.group, user, reply.status), **reply.headers})

    def _scripted(self, request: Request) -> Reply | Fault | None:
        if time.monotonic() < self._down_until:
            return Reply(503, {"error": "ESI is currently in maintenance mode. Please try again later."})
        return self._faults.take(request.target)

    def _fresh(self, reply: Reply, route: Route, request: Request) -> Reply:
        """With what a cache needs to know; 304 for who has it already."""
        now = time.time()
        if self._expires_at.get(request.target, 0.0) > now:
            self.early.append(request.target)
        ends = now + route.expires / self.clock.speed
        self._expires_at[request.target] = ends
        etag = f'"{hashlib.sha256(json.dumps(reply.body).encode()).hexdigest()[:32]}"'
        headers = {**reply.headers, "ETag": etag, "Expires": formatdate(ends, usegmt=True)}
        if request.headers.get("If-None-Match") == etag:
            return Reply(304, None, headers)
        return replace(reply, headers=headers)

    def pause(self, seconds: float) -> bool:
        """Whether to go on; False when the server ends."""
        return not self._stopping.wait(min(seconds, LIMIT))


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, fake: FakeEsi, port: int) -> None:
        self.fake = fake
        self._connections: set[socket.socket] = set()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask the resolver for our name, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """A server that is gone answers on no old connection."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):  # the client was faster
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is nothing to tell of."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # headers and body in one write: no waiting for a delayed ACK
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        fake = self.server.fake
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        reply = fake.reply_to(Request(self.command, parts.path, parts.query, self.path, dict(self.headers), body))
        if isinstance(reply, Reply):
            self._reply(reply)
        elif reply.hang_up or not (reply.silent_for == 0 or fake.pause(reply.silent_for)):
            self.close_connection = True
        elif reply.stream is not None:
            self._stream(reply)
        else:
            self._send(reply.status, reply.headers, reply.body, reply.drip)

    def _reply(self, reply: Reply) -> None:
        if reply.text is not None:
            self._send(reply.status, {**reply.headers, "Content-Type": "text/html"}, reply.text.encode())
        else:
            body = json.dumps(reply.body).encode() if reply.body is not None else b""
            self._send(reply.status, reply.headers, body)

    def _send(self, status: int, headers: Mapping[str, str], body: bytes, drip: float = 0.0) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if not drip:
            self.wfile.write(body)
            return
        for byte in body:
            self.wfile.flush()
            if not self.server.fake.pause(drip):
                return
            self.wfile.write(bytes([byte]))

    def _stream(self, fault: Fault) -> None:
        self.close_connection = True
        self.send_response(fault.status)
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for part in fault.stream() if fault.stream else ():
            self.wfile.write(part)
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the stock name
        """Silent: `FakeEsi.asked` is the log."""
