"""The limit of the machine: a bare websocket server (picows) that writes given bytes to sockets, and nothing else."""

import asyncio
import gc
from time import monotonic_ns

from picows import WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from benchmarks.child import Answer, Failure, answer_requests
from benchmarks.machine import raise_open_files

DIGITS = 8  # of a position in a frame


class Broadcaster:
    """Sends a frame to the first so many sockets when it is told to."""

    def __init__(self) -> None:
        self.transports: list[WSTransport] = []

    def listener(self, request: WSUpgradeRequest) -> WSListener:
        return _Socket(self.transports)

    async def answer(self, request: Answer) -> Answer:
        match request:
            case {"do": "listen"}:
                server = await ws_create_server(self.listener, "127.0.0.1", 0, backlog=2048)
                return {"port": server.sockets[0].getsockname()[1]}
            case {"do": "prepare"}:
                gc.collect()
                gc.freeze()
                gc.disable()
                return {}
            case {"do": "broadcast", "before": before, "after": after, "first": first, "last": last, "receivers": to}:
                return {"began": [await self._send(before, p, after, to) for p in range(first, last + 1)]}
        raise Failure(f"what is {request}?")

    async def _send(self, before: str, position: int, after: str, receivers: int) -> int:
        began = monotonic_ns()
        frame = f"{before}{position:0{DIGITS}d}{after}".encode()
        for transport in self.transports[:receivers]:
            transport.send(WSMsgType.TEXT, frame)
        await asyncio.sleep(0)
        return began


class _Socket(WSListener):
    def __init__(self, transports: list[WSTransport]) -> None:
        self._transports = transports

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transports.append(transport)


if __name__ == "__main__":
    raise_open_files()
    asyncio.run(answer_requests(Broadcaster().answer))
