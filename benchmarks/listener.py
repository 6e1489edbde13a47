"""A server process as the doorbell knows one: listens, and says when it heard each ring."""

import asyncio
import os
import threading
from time import monotonic_ns

import redis

from benchmarks.child import Answer, Failure, answer_requests
from realtime.doorbell import Listener

BARE = "killmail:bare"


class Ear:
    """Notes when each number was heard first (ns): through the doorbell, and by a bare subscriber beside it."""

    def __init__(self) -> None:
        self._heard: dict[str, dict[str, int]] = {"bare": {}, "doorbell": {}}
        self._task: asyncio.Task[None] | None = None

    async def answer(self, request: Answer) -> Answer:
        match request:
            case {"do": "listen"}:
                listener = Listener(lambda head: self._note("doorbell", head), lambda: 0)
                self._task = asyncio.create_task(listener.run())
                threading.Thread(target=self._subscribe, daemon=True).start()
                await asyncio.sleep(1)
                return {}
            case {"do": "heard", "way": way}:
                return {str(number): when for number, when in self._heard[way].items()}
        raise Failure(f"what is {request}?")

    def _subscribe(self) -> None:
        with redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=None).pubsub() as pubsub:
            pubsub.subscribe(BARE)
            for message in pubsub.listen():
                if message["type"] == "message":
                    self._note("bare", int(message["data"]))

    def _note(self, way: str, number: int) -> None:
        self._heard[way].setdefault(str(number), monotonic_ns())


if __name__ == "__main__":
    asyncio.run(answer_requests(Ear().answer))
