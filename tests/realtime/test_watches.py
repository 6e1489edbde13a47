"""Subscriptions to something that is not in the log: when they are told, how often it is looked, and how they end."""

import asyncio
import contextlib
import json
import logging
import threading
from types import SimpleNamespace

import pytest
from django.db import OperationalError
from graphql import build_schema

from realtime import watches as watches_module
from realtime.callers import Caller
from realtime.limits import Limits
from realtime.operations import Engine
from realtime.running import Running
from realtime.watch import Watch
from realtime.watches import ENDED, Watches
from tests.realtime.running_server import ACK, LEGACY, LIMIT, PROTOCOL, Board, hear, run, running_server, say, until
from tests.realtime.staging import wait_for

STATE = "subscription { state { of value } }"
SHORT = "subscription { state { value } }"
LOOK = 0.01  # seconds, in these tests
BOTH = pytest.mark.parametrize("protocol", [PROTOCOL, LEGACY])
logged = "What is watched could not be looked at"


class World:
    """What is behind the keys, and who asked for it."""

    def __init__(self, keys):
        self.values = dict.fromkeys(keys, 0)
        self.probes = []  # the keys that each look asked for
        self.executed = []  # the keys that were resolved
        self.fault = self.away = None
        self.before_probe = self.before_execute = lambda: None

    def probe(self, keys):
        self.before_probe()
        self.probes.append(set(keys))
        if self.fault:
            raise self.fault
        return {key: self.values[key] for key in keys if key in self.values}

    def resolve(self, root, info):
        key = info.context.caller.viewer
        self.before_execute()
        self.executed.append(key)
        if self.away:
            raise self.away
        return {"of": key, "value": self.values[key]}


def _engine(world):
    sdl = "type Query { a: Int } type Subscription { state: State! } type State { of: String! value: Int! }"
    schema = build_schema(sdl)
    field = schema.subscription_type.fields["state"]
    field.resolve, field.subscribe = world.resolve, lambda root, caller: Watch(caller.viewer)
    return Engine(schema)


class Gate:
    """Where a thread waits until it is opened."""

    def __init__(self):
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self):
        self.reached.set()
        assert self.opened.wait(LIMIT)


class Member:
    """A watcher. `room`: for how many more it has room; None: for all."""

    def __init__(self, operation, room=None):
        self.operation = operation
        self.values = []
        self.errors = []
        self.room = room

    def show(self, result):
        if self.room is not None:
            if self.room == 0:
                return False
            self.room -= 1
        data = json.loads(result)["data"]
        self.values.append(data and data["state"]["value"])
        return True

    def fail(self, errors):
        self.errors += errors


class Stage:
    """A world of keys that is watched."""

    def __init__(self, keys=("a",), watches_class=Watches):
        self.world = World(keys)
        self.engine = _engine(self.world)
        self.watches = watches_class(self.engine, self.world.probe, asyncio.to_thread)

    def add(self, key="a", query=STATE, room=None):
        member = Member(self.engine.prepare(query, None, None, Caller(key)), room)
        self.watches.add(member, self.engine.stream(member.operation))
        return member

    async def looks(self, count=2):
        """Two have begun from now on: the second has seen what is so now, and one was done between."""
        wanted = len(self.world.probes) + count
        await wait_for(lambda: len(self.world.probes) >= wanted)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    assert watches_module.LOOK == 1.0
    monkeypatch.setattr(watches_module, "LOOK", LOOK)


@contextlib.asynccontextmanager
async def staged(*arguments):
    stage = Stage(*arguments)
    try:
        yield stage
    finally:
        for watcher in list(stage.watches._all):
            stage.watches.remove(watcher)
        if stage.watches._task:
            await stage.watches._task


def staged_run(scenario, *arguments):
    async def within():
        async with staged(*arguments) as stage:
            return await scenario(stage)

    return run(within())


# What is told


def test_state_is_told_at_once_and_again_when_its_version_has_changed_and_not_otherwise():
    async def scenario(stage):
        member = stage.add()
        await stage.looks(4)
        first = list(member.values)
        stage.world.values["a"] = 1
        await stage.looks(4)
        return first, member.values

    assert staged_run(scenario) == ([0], [0, 1])


def test_whoever_comes_later_is_told_with_the_next_look_and_nobody_else_again():
    async def scenario(stage):
        early = stage.add()
        await stage.looks()
        late = stage.add()
        await stage.looks()
        return early.values, late.values, stage.world.executed

    assert staged_run(scenario) == ([0], [0], ["a", "a"])


def test_who_comes_while_it_is_looked_is_told_with_the_next_look_and_not_sent_away():
    async def scenario(stage):
        stage.world.before_probe = gate = Gate()
        first = stage.add("a")
        await wait_for(gate.reached.is_set)
        late = stage.add("b")
        gate.opened.set()
        await wait_for(lambda: first.values and late.values)
        return stage.world.probes[:2], late.errors

    assert staged_run(scenario, ("a", "b")) == ([{"a"}, {"a", "b"}], [])


@pytest.mark.parametrize("step", ["before_probe", "before_execute"])
def test_who_leaves_while_it_is_looked_is_told_nothing_and_the_others_are(step):
    async def scenario(stage):
        setattr(stage.world, step, gate := Gate())
        leaver, stayer = stage.add(), stage.add()
        await wait_for(gate.reached.is_set)
        stage.watches.remove(leaver)
        stage.watches.remove(leaver)
        gate.opened.set()
        await wait_for(lambda: stayer.values)
        await stage.looks()
        return leaver.values, stayer.values

    assert staged_run(scenario) == ([], [0])


def test_change_between_looking_and_reading_is_told():
    """The state may be told twice then, and is never older than what was last looked at."""

    async def scenario(stage):
        def change():
            stage.world.before_execute = lambda: None
            stage.world.values["a"] = 7

        stage.world.before_execute = change
        member = stage.add()
        await stage.looks(3)
        return member.values

    assert staged_run(scenario) == [7, 7]


# How it ends


def test_key_that_is_gone_is_an_error_and_the_end():
    async def scenario(stage):
        gone, there = [stage.add("a"), stage.add("a", SHORT)], stage.add("b")
        await wait_for(lambda: all(member.values for member in [*gone, there]))
        del stage.world.values["a"]
        await wait_for(lambda: len(stage.watches) == 1)
        await stage.looks()
        stage.world.values["a"] = 5  # too late
        await stage.looks()
        return [(member.values, member.errors) for member in [*gone, there]]

    assert ENDED["extensions"] == {"code": "UNAUTHENTICATED"}
    assert staged_run(scenario, ("a", "b")) == [([0], [ENDED])] * 2 + [([0], [])]


def test_nobody_looks_when_nobody_watches_and_the_next_watcher_is_told():
    async def scenario(stage):
        member = stage.add()
        await wait_for(lambda: member.values)
        stage.watches.remove(member)
        await stage.watches._task
        probes = len(stage.world.probes)
        await asyncio.sleep(5 * LOOK)
        silent = len(stage.world.probes) == probes
        again = stage.add()
        await wait_for(lambda: again.values)
        return silent

    assert staged_run(scenario) is True


# Many (T26)


class Careless(Watches):
    """Known to be wrong: looks for each watcher apart."""

    async def _look(self):
        for watcher, watching in list(self._all.items()):
            versions = await self._in_thread(self._probe, {watching.key})
            if watching.stale or watching.version != versions[watching.key]:
                state = await self._in_thread(self._state, watcher.operation)
                self._show(watcher, versions[watching.key], state)


async def _thousand(stage):
    """Probes and executions until a thousand watchers of a hundred keys are told; and when one key has changed."""
    members = [stage.add(str(number % 100)) for number in range(1000)]
    await wait_for(lambda: all(member.values for member in members))
    at_first = len(stage.world.probes), len(stage.world.executed)
    stage.world.values["42"] = 1
    changed = [member for number, member in enumerate(members) if number % 100 == 42]
    await wait_for(lambda: all(member.values == [0, 1] for member in changed))
    await stage.looks()
    others = {tuple(member.values) for member in members if member not in changed}
    return at_first, stage.world.executed[at_first[1] :], others


HUNDRED = tuple(map(str, range(100)))


def test_thousand_watchers_of_a_hundred_keys_are_one_probe_for_each_look_and_one_execution_for_each_key():
    assert staged_run(_thousand, HUNDRED) == ((1, 100), ["42"], {(0,)})


def test_who_looks_for_each_watcher_is_found_out():
    """Known to be wrong."""
    at_first, executed, _ = staged_run(_thousand, HUNDRED, Careless)
    assert (at_first, executed) == ((1000, 1000), ["42"] * 10)


def test_each_selection_is_executed_once():
    async def scenario(stage):
        members = [stage.add("a", query) for query in (STATE, SHORT, STATE, SHORT)]
        await wait_for(lambda: all(member.values for member in members))
        return stage.world.executed

    assert staged_run(scenario) == ["a", "a"]


# Slow readers


def test_slow_reader_gets_only_the_newest_state_when_it_has_room_again():
    async def scenario(stage):
        slow, quick = stage.add(room=1), stage.add()
        for value in (1, 2, 3):
            await stage.looks()
            stage.world.values["a"] = value
        await stage.looks()
        before = list(slow.values)
        slow.room = 10
        await stage.looks(4)
        return before, slow.values, quick.values

    assert staged_run(scenario) == ([0], [0, 3], [0, 1, 2, 3])


def test_running_operation_tells_whether_its_line_had_room():
    line = []
    outbox = SimpleNamespace(put=lambda *text: line.append(text) or len(line) < 2)
    socket = SimpleNamespace(outbox=outbox, runs=lambda running: not running.ended)

    class Ending(Running):
        ended = False

    running = Ending(socket, "1", "prefix")
    assert [running.show("A"), running.show("B")] == [True, False]
    running.ended = True
    assert running.show("C") is True  # nobody waits for it
    assert line == [("prefix", "A"), ("prefix", "B")]


# Faults


def test_probe_that_fails_is_logged_once_and_nothing_is_missed(caplog):
    async def scenario(stage):
        member = stage.add()
        await wait_for(lambda: member.values)
        for value in (1, 2):
            stage.world.fault = OperationalError("connection refused")
            stage.world.values["a"] = value
            late = stage.add()
            await stage.looks(3)
            assert (member.values[-1], late.values, late.errors) == (value - 1, [], [])
            stage.world.fault = None
            await wait_for(lambda value=value, late=late: member.values[-1] == value and late.values == [value])
        return member.values

    with caplog.at_level(logging.ERROR):
        assert staged_run(scenario) == [0, 1, 2]
    assert caplog.text.count(logged) == 2  # once for each time
    assert "connection refused" in caplog.text


def test_database_that_goes_away_between_looking_and_reading_is_no_state(caplog):
    """A client that was told an error would wait for the next change to be told more."""

    async def scenario(stage):
        stage.world.away = OperationalError("connection refused")
        member = stage.add()
        await stage.looks(3)
        nothing = [*member.values, *member.errors]
        stage.world.away = None
        await wait_for(lambda: member.values)
        return nothing, member.values

    with caplog.at_level(logging.ERROR):
        assert staged_run(scenario) == ([], [0])
    assert caplog.text.count(logged) == 1


# Over sockets


@pytest.fixture
def board():
    world = World(["a", "b"])
    board = Board(
        Limits(messages_per_10_s=10_000),
        authenticate=lambda token: token if token in world.values else None,
        probe=world.probe,
    )
    board.engine, board.world = _engine(world), world
    with running_server(board) as board.port:
        yield board


@contextlib.asynccontextmanager
async def _socket(board, protocol=PROTOCOL, token="a"):
    async with board.open(subprotocols=[protocol]) as ws:
        await say(ws, {"type": "connection_init", "payload": {"authorization": f"Bearer {token}"}})
        assert await hear(ws) == ACK
        yield ws


def _begin(protocol, id_, query=STATE):
    return {"type": "subscribe" if protocol == PROTOCOL else "start", "id": id_, "payload": {"query": query}}


@BOTH
def test_socket_is_told_the_state_its_changes_and_the_end_of_its_token(board, protocol):
    async def scenario():
        async with _socket(board, protocol) as ws:
            await say(ws, _begin(protocol, "s"))
            frames = [await hear(ws)]
            board.world.values["a"] = 1
            frames.append(await hear(ws))
            del board.world.values["a"]
            frames.append(await hear(ws))
            await say(ws, {"type": "ping"} if protocol == PROTOCOL else _begin(protocol, "s", "{ nothing }"))
            return frames, await hear(ws), len(board.endpoint.watches)

    (first, second, end), after, left = run(scenario())
    kind = "next" if protocol == PROTOCOL else "data"
    states = [{"id": "s", "type": kind, "payload": {"data": {"state": {"of": "a", "value": n}}}} for n in (0, 1)]
    assert [first, second] == states
    assert end == {"id": "s", "type": "error", "payload": [ENDED] if protocol == PROTOCOL else ENDED}
    assert (after["type"], left) == ("pong" if protocol == PROTOCOL else "error", 0)


def test_thousand_that_come_and_go_leave_nothing(board):
    async def scenario():
        async with _socket(board) as ws:
            await say(ws, _begin(PROTOCOL, "first"))  # from now on the document is known
            await hear(ws)
            await say(ws, {"type": "complete", "id": "first"})
            for number in range(1000):
                await say(ws, _begin(PROTOCOL, str(number)))
                await say(ws, {"type": "complete", "id": str(number)})
            await say(ws, _begin(PROTOCOL, "last"))
            while (await hear(ws))["id"] != "last":
                pass
            some = len(board.endpoint.watches)
            await say(ws, {"type": "complete", "id": "last"})
            await until(board.endpoint.watches._task.done)
            return some, len(board.endpoint.watches), board.endpoint._tasks

    assert run(scenario()) == (1, 0, set())


def test_socket_that_closes_leaves_nothing(board):
    async def scenario():
        async with _socket(board) as ws:
            for number in range(20):
                await say(ws, _begin(PROTOCOL, str(number)))
            assert len([await hear(ws) for _ in range(20)]) == len(board.endpoint.watches) == 20
        await until(lambda: board.sockets() == 0 and board.endpoint.watches._task.done())
        return len(board.endpoint.watches)

    assert run(scenario()) == 0


def test_operation_of_the_older_protocol_replaces_the_one_of_its_name(board):
    async def scenario():
        async with _socket(board, LEGACY) as ws:
            for query in (STATE, STATE, SHORT):
                await say(ws, _begin(LEGACY, "s", query))
            while (await hear(ws))["payload"]["data"]["state"] != {"value": 0}:
                pass
            return len(board.endpoint.watches)

    assert run(scenario()) == 1
