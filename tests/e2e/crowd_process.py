"""The other half of `crowd`: a process that holds thousands of websockets, and checks what each of them is told.

A lean client of its own: a frame is searched for its position, and nothing is decoded. Commands come in as lines of
JSON, answers go out so.
"""

import asyncio
import json
import os
import resource
import socket
import sys
from array import array
from collections import Counter
from time import monotonic_ns
from typing import Any
from urllib.parse import urlsplit

from tests.e2e.frames import GREETING, Frame, client_frame, frames_of

POSITION = b'"position":"'
CHECKPOINT = b'"kind":"CHECKPOINT"'
LOOK = 160  # bytes of a frame in which its position stands
BACK = 1.0  # seconds after which a socket that was refused, or lost, comes back: all at once, nobody rolls dice
READY = 10.0  # seconds that one attempt to connect and to subscribe may take, as in most clients


class Seen:
    """What all sockets together were told."""

    def __init__(self) -> None:
        self.arrivals: dict[int, array[int]] = {}  # by position, ns of CLOCK_MONOTONIC
        self.missing = 0
        self.doubled = 0
        self.refused: Counter[str] = Counter()  # by the error's code
        self.closed: Counter[str] = Counter()  # by close code and reason
        self.faults: list[str] = []

    def fault(self, text: str) -> None:
        if len(self.faults) < 5:
            self.faults.append(text)

    def arrive(self, position: int) -> None:
        times = self.arrivals.get(position)
        if times is None:
            times = self.arrivals[position] = array("q")
        times.append(monotonic_ns())


class Subscriber:
    """One who wants every event, and comes back for it. Each position is to be one more than the last."""

    def __init__(self, number: int, order: dict[str, Any], after: int | None, seen: Seen) -> None:
        self.number = number
        self.seen = seen
        self.url = urlsplit(order["urls"][number % len(order["urls"])])
        self.query = order["query"]
        self.epoch = order["epoch"]
        self.position = after
        self.begins = self.position is not None and order["resume"]  # whether `after` is sent the first time
        self.resume = order["resume"]
        self.persistent = order["persistent"]
        self.narrow = order["narrow"]
        self.journal = _open_journal(order["journal"], number)
        self.away = False
        self.link: Link | None = None

    async def join(self, deadline: float) -> bool:
        """Connects and subscribes, again and again; whether it was told where the log stands."""
        loop = asyncio.get_running_loop()
        while loop.time() < deadline and not self.away:
            self.link = Link(self)
            try:
                async with asyncio.timeout(min(READY, deadline - loop.time())):
                    # Many at once overflow the server's line of those that wait; the system tries again by itself.
                    await loop.create_connection(lambda: self.link, sock=await self._connected())
                    if await self.link.ready:
                        return True
            except (OSError, TimeoutError):
                self.link.end()
            await asyncio.sleep(BACK)
        return False

    async def _connected(self) -> socket.socket:
        sock = socket.socket()
        sock.setblocking(False)
        if self.narrow:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (self.url.hostname, self.url.port))
        except BaseException:
            sock.close()
            raise
        return sock

    @property
    def subscribe(self) -> bytes:
        after = f"{self.epoch}:{self.position}" if self.position is not None and self.begins else None
        self.begins = self.resume
        message = {"id": "1", "type": "subscribe", "payload": {"query": self.query, "variables": {"after": after}}}
        return json.dumps(message).encode()

    def told(self, position: int, is_checkpoint: bool) -> None:
        """A checkpoint says that everything up to it was sent: it must be no news."""
        last = self.position
        if last is not None and position != last + (not is_checkpoint):
            if position > last:
                self.seen.missing += position - last - (not is_checkpoint)
            else:
                self.seen.doubled += 1
            self.seen.fault(f"socket {self.number}: {position} after {last}, checkpoint {is_checkpoint}")
        self.position = position if last is None else max(last, position)
        if not is_checkpoint:
            self.seen.arrive(position)
            if self.journal is not None:
                os.write(self.journal, f"{position}\n".encode())

    def lost(self, link: "Link") -> None:
        if link is self.link and self.persistent and not self.away:
            link.again = asyncio.get_running_loop().create_task(self.join(link.loop.time() + 120))

    def cut(self) -> None:
        """Gone without a word; comes back when `join` is called."""
        self.away = True
        if self.link:
            self.link.end()


def _open_journal(folder: str | None, number: int) -> int | None:
    return os.open(f"{folder}/{number}", os.O_CREAT | os.O_APPEND | os.O_WRONLY) if folder else None


class Link(asyncio.Protocol):
    """One connection of a subscriber."""

    def __init__(self, owner: Subscriber) -> None:
        self.owner = owner
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[bool] = self.loop.create_future()
        self.transport: asyncio.Transport | None = None
        self.buffer = b""
        self.open = False
        self.again: asyncio.Task[bool] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        host = f"{self.owner.url.hostname}:{self.owner.url.port}"
        transport.write(GREETING.format(path=self.owner.url.path, host=host).encode())

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # the rest of a refusal
        self.buffer += data
        if not self.open:
            head, found, self.buffer = self.buffer.partition(b"\r\n\r\n")
            if not found:
                self.buffer = head
                return
            self.open = True
            if b" 101 " not in head[:20]:
                self.owner.seen.closed[head[:40].decode("latin-1")] += 1
                return self.end()
            self._say(b'{"type":"connection_init"}')
        frames, self.buffer = frames_of(self.buffer)
        for kind, message in frames:
            self._frame(kind, message)

    def _frame(self, kind: int, message: bytes) -> None:
        at = message.find(POSITION, 0, LOOK)
        if at >= 0:
            begin = message.index(b":", at + len(POSITION))
            self.owner.epoch = message[at + len(POSITION) : begin].decode()
            is_checkpoint = CHECKPOINT in message[:LOOK]
            self.owner.told(int(message[begin + 1 : message.index(b'"', begin)]), is_checkpoint)
            if is_checkpoint and not self.ready.done():
                self.ready.set_result(True)
        elif kind == Frame.PING:
            self.transport.write(client_frame(message, Frame.PONG))
        elif kind == Frame.CLOSE:
            self.owner.seen.closed[f"{int.from_bytes(message[:2])} {message[2:].decode()}"] += 1
            self.transport.write(client_frame(message[:2], Frame.CLOSE))
        elif message.startswith(b'{"type":"connection_ack"'):
            self._say(self.owner.subscribe)
        else:
            self._refused(json.loads(message))

    def _refused(self, message: dict[str, Any]) -> None:
        assert message["type"] == "error", message
        self.owner.seen.refused[message["payload"][0]["extensions"]["code"]] += 1
        self.owner.away = True
        self.end()

    def _say(self, message: bytes) -> None:
        self.transport.write(client_frame(message))

    def connection_lost(self, error: Exception | None) -> None:
        was_ready = self.ready.done() and not self.ready.cancelled() and self.ready.result()
        self._give_up()
        if was_ready:
            self.owner.lost(self)

    def _give_up(self) -> None:
        if not self.ready.done():
            self.ready.set_result(False)

    def end(self) -> None:
        self._give_up()
        if self.transport:
            self.transport.abort()


class Process:
    """The subscribers, and the answers to the other half."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.subscribers: list[Subscriber] = []

    async def do_open(self, **order: Any) -> dict[str, Any]:
        """More subscribers; `wait`: until they have been told where the log stands."""
        first = len(self.subscribers)
        numbers = range(first, first + order.pop("count"))
        after = order.pop("after") or [None] * len(numbers)
        new = [Subscriber(number, order, had, self.seen) for number, had in zip(numbers, after, strict=True)]
        self.subscribers += new
        return await self._join(new, order["seconds"], order["wait"], order["apart"])

    async def do_cut(self) -> dict[str, Any]:
        for subscriber in self.subscribers:
            subscriber.cut()
        return {}

    async def do_back(self, seconds: float) -> dict[str, Any]:
        for subscriber in self.subscribers:
            subscriber.away = False
        return await self._join(self.subscribers, seconds, True, 0.0)

    async def _join(self, who: list[Subscriber], seconds: float, wait: bool, apart: float) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        begun = loop.time()
        tasks = []
        for one in who:
            tasks.append(loop.create_task(one.join(loop.time() + seconds)))
            if apart:
                await asyncio.sleep(apart)
        joined = sum(await asyncio.gather(*tasks)) if wait else 0
        self.joining = tasks  # asyncio itself holds tasks weakly
        return {"joined": joined, "seconds": loop.time() - begun}

    async def do_stall(self, number: int) -> dict[str, Any]:
        """Reads no more."""
        self.subscribers[number].link.transport.pause_reading()
        return {}

    async def do_read_on(self, number: int) -> dict[str, Any]:
        """And quickly: what waits in the narrow buffers would take longer than a closing socket is held for."""
        transport = self.subscribers[number].link.transport
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        transport.resume_reading()
        return {}

    async def do_wait(self, position: int, seconds: float) -> dict[str, Any]:
        """Until all have had everything up to there; how many have not."""
        deadline = asyncio.get_running_loop().time() + seconds
        while behind := sum((one.position or 0) < position for one in self.subscribers):
            if asyncio.get_running_loop().time() > deadline:
                break
            await asyncio.sleep(0.02)
        return {"behind": behind}

    async def do_report(self) -> dict[str, Any]:
        seen = self.seen
        report = {name: getattr(seen, name) for name in ("missing", "doubled", "refused", "closed", "faults")}
        return report | {"delivered": sum(len(times) for times in seen.arrivals.values())}

    async def do_late(self, committed: dict[str, int]) -> dict[str, Any]:
        """Seconds from the commit to the arrival, of each delivery of these positions."""
        arrivals = ((when, self.seen.arrivals.get(int(key), ())) for key, when in committed.items())
        late = sorted((arrived - when) / 1e9 for when, each in arrivals for arrived in each)
        if not late:
            return {"count": 0}
        at = {name: late[min(len(late) - 1, int(len(late) * part))] for name, part in (("p50", 0.5), ("p99", 0.99))}
        return at | {"max": late[-1], "count": len(late)}


async def main() -> None:
    process, loop = Process(), asyncio.get_running_loop()
    commands = asyncio.StreamReader(limit=2**24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        command = json.loads(line)
        answer = await getattr(process, f"do_{command.pop('do')}")(**command)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(main())
