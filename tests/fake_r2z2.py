"""An R2Z2 on loopback that misbehaves as it is told: each file may have a list of answers, faults among them."""

import http.server
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from killmails.recording.tape import php_json

LIMIT = 60.0  # seconds; a silence ends then at the latest, whatever a test does


@dataclass(frozen=True)
class Reply:
    """One answer. By default: 200, all of `body` at once, with its own length declared."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    declared: int | None = None  # the Content-Length when it is to be a lie
    silent_for: float = 0.0  # seconds before the first byte of the status line
    drip: float = 0.0  # seconds before each byte of the body
    stream: Callable[[], Iterator[bytes]] | None = None  # instead of `body`, without a declared length
    hang_up: bool = False  # end the connection without a byte


NOT_FOUND = Reply(b"<!DOCTYPE html><html><body>404</body></html>", status=404)


class FakeR2Z2:
    """Serves `/ephemeral/{name}.json`. What was asked is in `asked`, with the time in `times`, headers in `headers`."""

    def __init__(self) -> None:
        self._replies: dict[str, list[Reply]] = {}
        self._stopping = threading.Event()
        self.asked: list[str] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self._http = _Server(self)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=[0.005], daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stopping.set()
        self._http.shutdown()
        self._http.server_close()

    def put(self, sequence: int, content: bytes | Mapping[str, Any]) -> None:
        """The file of this number: bytes as they are, or a package."""
        self.script(str(sequence), Reply(content if isinstance(content, bytes) else php_json(content)))

    def point(self, content: Any) -> None:
        """What sequence.json says: a number, bytes, or any JSON."""
        if isinstance(content, int):
            content = {"sequence": content}
        self.script("sequence", Reply(content if isinstance(content, bytes) else json.dumps(content).encode()))

    def script(self, name: str | int, *replies: Reply) -> None:
        """The answers for this file, one after the other; the last one for ever."""
        self._replies[str(name)] = list(replies)

    def remove(self, sequence: int) -> None:
        del self._replies[str(sequence)]

    def forget(self) -> None:
        """Begins the list of what was asked anew."""
        for kept in (self.asked, self.times, self.headers):
            kept.clear()

    def reply_to(self, path: str, headers: Mapping[str, str]) -> Reply:
        name = path.removeprefix("/ephemeral/").removesuffix(".json")
        self.asked.append(name)
        self.times.append(time.monotonic())
        self.headers.append(dict(headers))
        replies = self._replies.get(name, [NOT_FOUND])
        return replies.pop(0) if len(replies) > 1 else replies[0]

    def pause(self, seconds: float) -> bool:
        """Whether to go on; False when the test is over."""
        return not self._stopping.wait(min(seconds, LIMIT))


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, fake: FakeR2Z2) -> None:
        self.fake = fake
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.fake.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up in the middle is what many tests want."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        fake = self.server.fake
        reply = fake.reply_to(self.path, self.headers)
        if reply.hang_up or not (reply.silent_for == 0 or fake.pause(reply.silent_for)):
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if reply.stream is None:
            length = len(reply.body) if reply.declared is None else reply.declared
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self._write(fake, reply)

    def _write(self, fake: FakeR2Z2, reply: Reply) -> None:
        self.close_connection = self.close_connection or reply.stream is not None or reply.declared is not None
        if reply.stream is not None:
            for part in reply.stream():
                self.wfile.write(part)
                self.wfile.flush()
        elif not reply.drip:
            self.wfile.write(reply.body)
        else:
            for byte in reply.body:
                self.wfile.flush()
                if not fake.pause(reply.drip):
                    return
                self.wfile.write(bytes([byte]))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the stock name
        """Silent: `FakeR2Z2.asked` is the log."""


def gzip_bomb(size: int) -> Iterator[bytes]:
    """A valid gzip stream that unpacks to `size` bytes (whole MiB) of spaces, made as fast as it is read."""
    block, checksum = b" " * 1024 * 1024, 0
    pack = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = pack.compress(block) + pack.flush(zlib.Z_FULL_FLUSH)
    yield b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    for _ in range(size // len(block)):
        checksum = zlib.crc32(block, checksum)
        yield packed
    yield b"\x03\x00" + checksum.to_bytes(4, "little") + (size % 2**32).to_bytes(4, "little")
