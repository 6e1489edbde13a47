"""A proxy on loopback before several servers: takes the next one where one refuses, or hangs up without an answer."""

import asyncio
import contextlib
import itertools
import re
import threading
from types import TracebackType
from typing import Self

from tests.e2e.processes import Board
from tests.services.service import free_port

TRIES = 400  # each of them a server and, once around, 50 ms


class Proxy:
    """Has the addresses of a board, and leads to those that it was given."""

    def __init__(self, *boards: Board) -> None:
        self.port = free_port()
        self.url, self.websocket_url = f"http://127.0.0.1:{self.port}", f"ws://127.0.0.1:{self.port}/graphql"
        self._next = itertools.cycle([board.port for board in boards])
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    async def _run(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=500):
            self._ready.set()
            await self._stop.wait()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, EOFError, asyncio.CancelledError), contextlib.closing(writer):
            request = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", request)
            request += await reader.readexactly(int(length[1]) if length else 0)
            for _ in range(TRIES):
                if await self._forward(request, reader, writer):
                    return
                await asyncio.sleep(0.05)

    async def _forward(self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether a server has answered."""
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", next(self._next))
        except OSError:
            return False
        with contextlib.closing(to_server):
            to_server.write(request)
            more = asyncio.create_task(_pipe(reader, to_server))
            first = b""
            try:
                first = await from_server.read(65_536)
                writer.write(first)
                if first:
                    await _pipe(from_server, writer)
            except OSError:
                pass  # a second answer may not follow what was passed on of the first
            finally:
                more.cancel()
            return bool(first)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
