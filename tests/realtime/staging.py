"""A hub on a log in memory with subscribers that are no sockets, for one test."""

import asyncio
import contextlib
import json
import sys

from realtime.hub import Hub
from tests.realtime.memory_log import CountingEngine, MemoryLog

NUMBER = "subscription { number { text } }"
BOTH = "subscription($after: String) { both(after: $after) { position kind } }"
TENS = "subscription($of: [Int!]!, $after: String) { tens(of: $of, after: $after) { position kind } }"
TIMEOUT = 60.0  # seconds until a test gives up waiting
NEVER = 600.0  # seconds: what would only happen after so long, happens for another reason


def calls_of(work):
    """How many functions of Python are called by it: the same number on every machine, unlike seconds."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


class Member:
    """A subscriber, and what it was given. `room`: for how many more it has room; None: for all."""

    def __init__(self, room=None):
        self.positions = []
        self.frames = []
        self.errors = []
        self.room = room
        self.subscription = None

    def offer(self, subscription, position, result):
        if self.room is not None:
            if self.room == 0:
                return False
            self.room -= 1
        self.positions.append(position)
        self.frames.append(result)
        return True

    def fail(self, errors):
        self.errors += errors

    @property
    def told(self):
        """Kind and position of each message, for those who select both."""
        values = [next(iter(json.loads(frame)["data"].values())) for frame in self.frames]
        return [(value["kind"], value["position"]) for value in values]

    @property
    def added(self):
        return [position for kind, position in self.told if kind == "ADDED"]

    @property
    def code(self):
        """That of the error which ended the operation; None where it runs."""
        return self.errors[0]["extensions"]["code"] if self.errors else None


class Stage:
    """A log, an engine and a hub."""

    def __init__(self, log=None, hub_class=Hub, **options):
        self.log = log or MemoryLog()
        self.engine = CountingEngine()
        self.hub = hub_class(self.log, self.engine, **options)

    async def join(self, query=NUMBER, variables=None, member=None):
        member = member or Member()
        operation = self.engine.prepare(query, variables, None)
        stream = self.engine.stream(operation)
        member.subscription = await self.hub.subscribe(operation, stream, member.offer, member.fail)
        return member

    async def live(self, query=NUMBER, variables=None, member=None):
        """As `join`, and waits until the hub has taken it in."""
        member = await self.join(query, variables, member)
        await wait_for(lambda: member.subscription in self.members())
        return member

    def leave(self, member):
        self.hub.unsubscribe(member.subscription)

    def members(self):
        """The live subscriptions."""
        return list(self.hub._groups)

    def groups(self):
        return len(self.hub._groups._groups)

    def publish(self, count=1):
        self.log.append(count)
        self.hub._woken(self.log.position)

    async def until(self, *members, position=None):
        """Until each of them has had the last position."""
        last = self.log.position if position is None else position
        await wait_for(lambda: all(member.positions and member.positions[-1] >= last for member in members))

    async def settled(self):
        """Until the hub has taken everything to everybody who is live."""
        await wait_for(lambda: self.hub._head and self.hub._head.position >= self.log.position)
        await turns(self.hub._thread)

    async def end(self):
        tasks = [*self.hub._tasks, *filter(None, [self.hub._joining.replay._task])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.hub._thread.shutdown()
        self.hub._joining.replay._thread.shutdown()


async def turns(thread):
    """Until the thread has done what it had to do before, and what waits for nothing but the loop has had its turn."""
    await asyncio.get_running_loop().run_in_executor(thread, int)
    for _ in range(20):
        await asyncio.sleep(0)


async def wait_for(condition):
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110  (nobody tells when it is true)
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def staged(log=None, hub_class=Hub, **options):
    stage = Stage(log, hub_class, **options)
    try:
        yield stage
    finally:
        await stage.end()


def nothing_left(hub):
    """Whether nothing is kept of anybody who was there."""
    groups = hub._groups
    kept = [groups._groups, groups._by_key, groups._without_keys, hub._all, hub._fields._counts]
    return not any([*kept, hub._joining._waiting, hub._joining.replay._pages])
