"""The load generator: a process that holds all the sockets, and notes when each event reached the last of them.

As light as it can be (picows, no JSON parsed for an event), so that it is not what is measured. Every socket checks
the order of what it gets; a lost, doubled or misplaced event is a fault, and a fault fails the run.
"""

import asyncio
import errno
import gc
import json
from collections import Counter
from itertools import count
from time import monotonic_ns
from typing import Any

from picows import WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from benchmarks.child import Answer, Failure, answer_requests
from benchmarks.machine import raise_open_files
from benchmarks.operations import payload

SUBPROTOCOL = "graphql-transport-ws"
AT_ONCE = 100  # connections that are being made
READY_SECONDS = 60.0
POSITION = b'"position":"'
CHECKPOINT = b'"kind":"CHECKPOINT"'
LOOK = 160  # bytes of a frame in which its position stands
SETTLE = 0.3  # seconds in which an event that comes twice would come


class Arrivals:
    """What all sockets have had: for each position how often, when first, when last (CLOCK_MONOTONIC, ns)."""

    def __init__(self) -> None:
        self.events: dict[int, list[int]] = {}
        self.faults: list[str] = []
        self.closed: Counter[str] = Counter()
        self.sample = b""


class Subscriber(WSListener):
    """One socket. `strict`: every event is for it, so that positions must be dense."""

    def __init__(self, arrivals: Arrivals, number: int, kind: str) -> None:
        self.arrivals = arrivals
        self.number = number
        self.kind = kind
        self.strict = kind != "filters"
        self.bare = kind == "bare"
        self.position: int | None = None
        self.ending = False
        self.code = "lost"
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def on_ws_connected(self, transport: WSTransport) -> None:
        self.transport = transport
        if self.bare:
            self.ready.set_result(None)
        else:
            transport.send(WSMsgType.TEXT, b'{"type":"connection_init"}')

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        now = monotonic_ns()
        message = frame.get_payload_as_bytes()
        at = message.find(POSITION, 0, LOOK)
        if at < 0:
            return self._control(transport, frame, message)
        colon = message.index(b":", at + len(POSITION))
        position = int(message[colon + 1 : message.index(b'"', colon)])
        if self.position is None or not self.strict or position != self.position + 1:
            if CHECKPOINT in message[:LOOK]:
                return self._checkpoint(position)
            self._check(position)
        self.position = position
        arrived = self.arrivals.events.get(position)
        if arrived is None:
            self.arrivals.events[position] = [1, now, now]
            self.arrivals.sample = message
        else:
            arrived[0] += 1
            arrived[2] = now

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if not self.ending:
            self.arrivals.closed[self.code] += 1
        if not self.ready.done():
            self.ready.set_exception(Failure(f"socket {self.number} was closed before it was subscribed: {self.code}"))

    def _check(self, position: int) -> None:
        last = self.position
        if last is not None and (position <= last or (self.strict and position != last + 1)):
            what = "again or out of order" if position <= last else "with a hole before it"
            self.arrivals.faults.append(f"socket {self.number}: position {position} after {last}, {what}")

    def _checkpoint(self, position: int) -> None:
        if self.position is not None and position < self.position:
            self._check(position)
        self.position = position
        if not self.ready.done():
            self.ready.set_result(None)

    def _control(self, transport: WSTransport, frame: WSFrame, message: bytes) -> None:
        if frame.msg_type == WSMsgType.CLOSE:
            self.code = f"{frame.get_close_code()} {frame.get_close_reason() or ''}".strip()
        if frame.msg_type != WSMsgType.TEXT:
            return
        match json.loads(message):
            case {"type": "connection_ack"}:
                body = {"id": "1", "type": "subscribe", "payload": payload(self.kind, self.number)}
                transport.send(WSMsgType.TEXT, json.dumps(body).encode())
            case {"type": "ping"}:
                transport.send(WSMsgType.TEXT, b'{"type":"pong"}')
            case _ if not self.ready.done():
                self.ready.set_exception(Failure(f"not subscribed: {message[:300].decode()}"))
            case _:
                self.arrivals.faults.append(f"socket {self.number}: {message[:300].decode()}")


class Sockets:
    """All of them, and the answers to what the benchmark asks."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self.subscribers: list[Subscriber] = []

    async def answer(self, request: Answer) -> Answer:
        match request:
            case {"do": "connect", "url": url, "kind": kind, "sockets": sockets}:
                return await self._connect(url, kind, sockets)
            case {"do": "wait", "first": first, "last": last, "receivers": receivers, "seconds": seconds}:
                return await self._wait(range(first, last + 1), receivers, seconds)
            case {"do": "sample"}:
                return {"frame": self.arrivals.sample.decode()}
            case {"do": "finish"}:
                return await self._finish()
        raise Failure(f"what is {request}?")

    async def _connect(self, url: str, kind: str, sockets: int) -> Answer:
        began = monotonic_ns()
        doors = asyncio.Semaphore(AT_ONCE)

        async def open_one(number: int) -> Subscriber:
            async with doors:
                subscriber = await _connect(url, Subscriber(self.arrivals, number, kind))
                async with asyncio.timeout(READY_SECONDS):
                    await subscriber.ready
                return subscriber

        self.subscribers = await asyncio.gather(*map(open_one, range(sockets)))
        # A collection among a hundred thousand objects would stand in the middle of what is measured.
        gc.collect()
        gc.freeze()
        gc.disable()
        return {"seconds": (monotonic_ns() - began) / 1e9}

    async def _wait(self, positions: range, receivers: int, seconds: float) -> Answer:
        """Until each of these events has reached so many sockets."""
        events, loop = self.arrivals.events, asyncio.get_running_loop()
        deadline = loop.time() + seconds
        behind = positions[0]
        while behind in positions and loop.time() < deadline:
            if (arrived := events.get(behind)) and arrived[0] >= receivers:
                behind += 1
            else:
                await asyncio.sleep(0.005)
        self._must_be_well()
        wrong = [p for p in positions if events.get(p, [0])[0] != receivers]
        if wrong:
            had = events.get(wrong[0], [0])[0]
            raise Failure(
                f"{len(wrong)} of {len(positions)} events came wrong within {seconds:.0f} s: "
                f"position {wrong[0]} reached {had} of {receivers} sockets"
            )
        return {"events": [events[position] for position in positions]}

    def _must_be_well(self) -> None:
        closed = ", ".join(f"{number} with {code!r}" for code, number in self.arrivals.closed.items())
        if closed:
            raise Failure(f"sockets were closed: {closed}")
        if self.arrivals.faults:
            raise Failure(f"{len(self.arrivals.faults)} faults, the first: {self.arrivals.faults[0]}")

    async def _finish(self) -> Answer:
        await asyncio.sleep(SETTLE)
        self._must_be_well()
        for subscriber in self.subscribers:
            subscriber.ending = True
        return {"delivered": sum(arrived[0] for arrived in self.arrivals.events.values())}


async def _connect(url: str, subscriber: Subscriber) -> Subscriber:
    """From 127.0.0.1, and when its ports are all taken from 127.0.0.2, and so on."""
    headers = {"Sec-WebSocket-Protocol": SUBPROTOCOL}
    for host in count(1):
        options: dict[str, Any] = {} if host == 1 else {"local_addr": (f"127.0.0.{host}", 0)}
        options |= {"extra_headers": headers, "websocket_handshake_timeout": READY_SECONDS}
        try:
            await ws_connect(lambda: subscriber, url, read_buffer_init_size=4096, **options)
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL or host == 250:
                raise Failure(f"socket {subscriber.number} cannot be opened: {error}") from error
        else:
            break
    return subscriber


if __name__ == "__main__":
    raise_open_files()
    asyncio.run(answer_requests(Sockets().answer))
