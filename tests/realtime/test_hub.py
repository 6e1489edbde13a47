"""The hub on a log in memory: order, at most once, nothing missing, and one execution for all who ask the same."""

import asyncio
import contextlib
import logging
import random
import time

import pytest

from realtime import hub as hub_module
from realtime.hub import Hub, HubUnavailable
from realtime.log import Head
from tests.realtime.memory_log import CountingEngine, MemoryLog

NUMBER = "subscription { number { text } }"
TIMEOUT = 10.0  # seconds until a test gives up waiting


class Member:
    """A subscriber, and what it was given."""

    def __init__(self):
        self.positions = []
        self.frames = []
        self.subscription = None

    def __call__(self, position, result):
        self.positions.append(position)
        self.frames.append(result)


class Stage:
    """A log, an engine and a hub, for one test."""

    def __init__(self, log=None, hub_class=Hub):
        self.log = log or MemoryLog()
        self.engine = CountingEngine()
        self.hub = hub_class(self.log, self.engine)

    async def join(self, query=NUMBER, variables=None):
        member = Member()
        operation = self.engine.prepare(query, variables, None)
        member.subscription = await self.hub.subscribe(operation, self.engine.stream(operation), member)
        return member

    def publish(self, count=1):
        self.log.append(count)
        self.hub._woken(self.log.position)

    async def until(self, *members, position=None):
        """Until each of them has had the last position."""
        last = self.log.position if position is None else position
        await wait_for(lambda: all(member.positions and member.positions[-1] >= last for member in members))

    async def end(self):
        for task in self.hub._tasks:
            task.cancel()
        await asyncio.gather(*self.hub._tasks, return_exceptions=True)
        self.hub._thread.shutdown()


async def wait_for(condition):
    async with asyncio.timeout(TIMEOUT):
        while not condition():  # noqa: ASYNC110  (nobody tells when it is true)
            await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def staged(log=None, hub_class=Hub):
    stage = Stage(log, hub_class)
    try:
        yield stage
    finally:
        await stage.end()


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Polling that is slow where a test says nothing else: what arrives was rung for."""
    monkeypatch.setattr(hub_module, "POLL", 0.2)


# Order, and each once


def test_subscriber_gets_each_event_once_and_in_order():
    async def scenario():
        async with staged() as stage:
            member = await stage.join()
            for _ in range(20):
                stage.publish(random.randint(1, 5))
                await asyncio.sleep(0)
            await stage.until(member)
            return member, stage.log.position

    member, last = asyncio.run(scenario())
    assert member.positions == list(range(1, last + 1))
    assert member.frames[0] == '{"data":{"number":{"text":"number 1"}}}'


def test_subscriber_begins_after_the_head():
    async def scenario():
        async with staged(MemoryLog(position=1000)) as stage:
            member = await stage.join()
            stage.publish(2)
            await stage.until(member)
            return member.positions

    assert asyncio.run(scenario()) == [1001, 1002]


def test_more_events_than_a_page_arrive_without_another_ring(monkeypatch):
    monkeypatch.setattr(hub_module, "PAGE", 10)
    monkeypatch.setattr(hub_module, "POLL", 30.0)

    async def scenario():
        async with staged() as stage:
            member = await stage.join()
            await asyncio.sleep(0.05)
            stage.publish(95)
            await stage.until(member)
            return member.positions, stage.log.reads

    assert asyncio.run(scenario()) == (list(range(1, 96)), 10)


def test_log_is_read_once_however_many_listen():
    async def scenario():
        async with staged() as stage:
            members = [await stage.join(f"subscription {{ number(over: {n}) {{ text }} }}") for n in range(20)]
            stage.publish()
            await stage.until(members[0])
            return stage.log.reads

    assert asyncio.run(scenario()) == 1


def test_stream_gets_only_what_it_wants():
    async def scenario():
        async with staged() as stage:
            evens = await stage.join("subscription { evens { position } }")
            late = await stage.join("subscription($o: Int) { number(over: $o) { position } }", {"o": 4})
            stage.publish(6)
            await stage.until(evens, late)
            return evens.positions, late.positions

    assert asyncio.run(scenario()) == ([2, 4, 6], [5, 6])


def test_checkpoint_comes_first_and_says_where_the_log_stands():
    async def scenario():
        async with staged(MemoryLog(position=7)) as stage:
            member = await stage.join("subscription { both { position kind } }")
            first = list(member.frames)
            stage.publish()
            await stage.until(member)
            return first, member.frames

    first, frames = asyncio.run(scenario())
    assert first == ['{"data":{"both":{"position":7,"kind":"CHECKPOINT"}}}']
    assert frames[1:] == ['{"data":{"both":{"position":8,"kind":"ADDED"}}}']


# One execution for each group and event


def test_selection_is_executed_once_for_each_distinct_operation_and_event():
    async def scenario():
        async with staged() as stage:
            same = [await stage.join(text) for text in [NUMBER, "subscription{number{text}}#x", NUMBER] * 20]
            other = [await stage.join("subscription { number { position } }") for _ in range(10)]
            stage.publish(3)
            await stage.until(*same, *other)
            return stage.engine.executed, same + other

    executed, members = asyncio.run(scenario())
    assert len(members) == 70
    assert all(member.positions == [1, 2, 3] for member in members)
    assert len(executed) == len(set(executed)) == 2 * 3


def test_other_variables_are_executed_apart():
    async def scenario():
        document = "subscription($o: Int) { number(over: $o) { text } }"
        async with staged() as stage:
            members = [await stage.join(document, {"o": over}) for over in (-1, -2, -1)]
            stage.publish()
            await stage.until(*members)
            return len(stage.engine.executed)

    assert asyncio.run(scenario()) == 2


def test_checkpoints_are_not_counted_among_the_executions_for_events():
    async def scenario():
        async with staged() as stage:
            members = [await stage.join("subscription { both { position } }") for _ in range(5)]
            stage.publish()
            await stage.until(*members)
            return [position for _, position in stage.engine.executed]

    assert asyncio.run(scenario()) == [0, 0, 0, 0, 0, 1]


def test_nothing_is_read_or_executed_when_nobody_listens():
    async def scenario():
        async with staged() as stage:
            member = await stage.join()
            stage.hub.unsubscribe(member.subscription)
            stage.publish(3)
            await wait_for(lambda: stage.hub._head.position == 3)
            return stage.log.reads, stage.engine.executed, member.positions

    assert asyncio.run(scenario()) == (0, [], [])


# Leaving


def test_group_goes_with_its_last_member():
    async def scenario():
        async with staged() as stage:
            first, second = await stage.join(), await stage.join()
            sizes = [len(stage.hub._groups)]
            for member in (first, second):
                stage.hub.unsubscribe(member.subscription)
                sizes.append(len(stage.hub._groups))
            return sizes

    assert asyncio.run(scenario()) == [1, 1, 0]


def test_unsubscribing_twice_does_no_harm_to_a_group_of_the_same_key():
    async def scenario():
        async with staged() as stage:
            gone = await stage.join()
            stage.hub.unsubscribe(gone.subscription)
            successor = await stage.join()
            stage.hub.unsubscribe(gone.subscription)
            stage.publish()
            await stage.until(successor)
            return gone.positions, successor.positions, len(stage.hub._groups)

    assert asyncio.run(scenario()) == ([], [1], 1)


def test_member_that_leaves_while_it_is_given_an_event_gets_no_more():
    async def scenario():
        async with staged() as stage:
            stays, leaves = await stage.join(), await stage.join()
            deliver = leaves.__call__
            leaves.subscription.deliver = lambda position, result: (
                deliver(position, result),
                stage.hub.unsubscribe(leaves.subscription),
            )
            stage.publish(3)
            await stage.until(stays)
            return stays.positions, leaves.positions

    assert asyncio.run(scenario()) == ([1, 2, 3], [1])


# Joining at any moment


class LateHead(Hub):
    """Known to be wrong: moves its head only after it has delivered."""

    async def _advance(self):
        head = await self._in_thread(self._log.head)
        if self._head is None:
            self._begin(head)
            return False
        if head.position <= self._head.position or not self._groups:
            return False
        events = await self._read(self._head)
        groups = list(self._groups.values())
        for position, group, result in await self._in_thread(self._execute, events, groups):
            hub_module._deliver(position, group, result)
        self._head = Head(head.epoch, events[-1].position)
        return True


class EarlyGroups(Hub):
    """Known to be wrong: looks before it reads who is there, so that a new group misses what is read."""

    async def _read(self, after):
        self._early = list(self._groups.values())
        return await super()._read(after)

    def _execute(self, events, groups):
        return super()._execute(events, self._early)


class Repeating(Hub):
    """Known to be wrong: gives each result to all who are in the group by then."""

    def _execute(self, events, groups):
        results = super()._execute(events, groups)
        for group in groups:
            for member in tuple(group.members):
                member.position = 0
        return results


async def _interleave(seed, hub_class):
    """Subscribers come and go while events are read and executed. What was wrong with any of them."""
    chance = random.Random(seed)
    # Many, so that most of those who join make a group of their own.
    queries = [f"subscription {{ a{number}: both {{ position }} }}" for number in range(15)]
    async with staged(hub_class=hub_class) as stage:
        # The hub's thread dawdles, so that joining falls into every one of its steps.
        stage.log.before_read = lambda: time.sleep(chance.random() * 0.002)
        stage.engine.before_execute = lambda: time.sleep(chance.random() * 0.0001)
        members, left = [await stage.join(queries[0])], []
        for _ in range(60):
            match chance.randrange(5):
                case 0 | 1:
                    members.append(await stage.join(chance.choice(queries)))
                case 2 if len(members) > 1:
                    leaving = members.pop(chance.randrange(1, len(members)))
                    stage.hub.unsubscribe(leaving.subscription)
                    left.append((leaving, list(leaving.positions)))
                case _:
                    stage.publish(chance.randint(1, 3))
            await asyncio.sleep(chance.choice([0, 0, 0.0005, 0.002]))
        stage.publish()
        await wait_for(lambda: stage.hub._head.position >= stage.log.position)
        await stage.hub._in_thread(int)  # its thread has done by now what it had to do before
        await asyncio.sleep(0.01)
        faults = [_fault(member, stage.log.position) for member in members]
        faults += [f"{m.positions} after leaving with {had}" for m, had in left if m.positions != had]
        return [fault for fault in faults if fault]


def _fault(member, last):
    """The first position is the checkpoint's; from there on each number to the last, once."""
    expected = list(range(member.positions[0], last + 1))
    return None if member.positions == expected else f"{member.positions} is not {expected}"


@pytest.mark.parametrize("seed", range(30))
def test_subscriber_that_joins_at_any_moment_gets_exactly_what_follows_its_checkpoint(seed):
    assert asyncio.run(_interleave(seed, Hub)) == []


@pytest.mark.parametrize("wrong", [LateHead, EarlyGroups, Repeating])
def test_interleavings_find_a_hub_that_is_wrong_about_who_gets_what(wrong):
    def found(seed):
        try:
            return asyncio.run(_interleave(seed, wrong)) != []
        except TimeoutError:
            return True

    assert any(found(seed) for seed in range(30))


def test_subscriber_that_joins_while_events_are_read_has_its_own_fields_loaded(monkeypatch):
    asked = []

    async def scenario():
        async with staged() as stage:
            loop = asyncio.get_running_loop()
            first = await stage.join()
            read, late = stage.log.read, []

            def read_and_let_one_join(after, limit, fields):
                asked.append(fields)
                if len(asked) == 1:
                    joining = stage.join("subscription { number { position } }")
                    late.append(asyncio.run_coroutine_threadsafe(joining, loop).result(TIMEOUT))
                return read(after, limit, fields)

            stage.log.read = read_and_let_one_join
            stage.publish()
            await stage.until(first)
            await stage.until(*late)
            return late[0].positions

    assert asyncio.run(scenario()) == [1]
    assert asked == [{"number", "text"}, {"number", "text", "position"}]


# A log that fails


def test_subscriber_is_refused_when_the_log_cannot_be_read(monkeypatch):
    monkeypatch.setattr(hub_module, "START_LIMIT", 0.3)

    async def scenario():
        async with staged() as stage:
            stage.log.fault = OSError("no database")
            with pytest.raises(HubUnavailable) as caught:
                await stage.join()
            stage.log.fault = None
            member = await stage.join()
            stage.publish()
            await stage.until(member)
            return str(caught.value), len(stage.hub._groups)

    message, groups = asyncio.run(scenario())
    assert message == "The log of killmails cannot be read at the moment; try again later."
    assert groups == 1


def test_log_that_fails_for_a_while_costs_no_event(caplog):
    async def scenario():
        async with staged() as stage:
            member = await stage.join()
            stage.publish(2)
            await stage.until(member)
            stage.log.fault = OSError("no database")
            stage.publish(3)
            await asyncio.sleep(0.3)
            during = list(member.positions)
            stage.log.fault = None
            await stage.until(member)
            return during, member.positions

    with caplog.at_level(logging.ERROR, "realtime.hub"):
        assert asyncio.run(scenario()) == ([1, 2], [1, 2, 3, 4, 5])
    assert "The log could not be read; trying again" in caplog.text
    assert "no database" in caplog.text


def test_nothing_is_delivered_past_a_hole_until_it_is_filled(caplog):
    async def scenario():
        async with staged() as stage:
            member = await stage.join()
            stage.log.holes = {2}
            stage.publish(3)
            await asyncio.sleep(0.5)
            during = list(member.positions)
            stage.log.holes = set()
            await stage.until(member)
            return during, member.positions

    with caplog.at_level(logging.ERROR, "realtime.hub"):
        assert asyncio.run(scenario()) == ([], [1, 2, 3])
    assert "the log has a hole: position 3 follows 1" in caplog.text


def test_head_without_its_events_is_refused(caplog):
    async def scenario():
        async with staged() as stage:
            member = await stage.join()
            stage.log.holes = {1}
            stage.publish()
            await asyncio.sleep(0.3)
            return member.positions

    with caplog.at_level(logging.ERROR, "realtime.hub"):
        assert asyncio.run(scenario()) == []
    assert "the log has a head beyond 0 and no events there" in caplog.text


def test_an_execution_that_fails_is_tried_again_and_loses_no_event(caplog):
    async def scenario():
        async with staged() as stage:
            first = await stage.join()
            faults = iter([OSError("no thread")])

            def fail_once():
                for fault in faults:
                    raise fault

            stage.engine.before_execute = fail_once
            stage.publish(3)
            await stage.until(first)
            return first.positions

    assert asyncio.run(scenario()) == [1, 2, 3]
    assert "OSError: no thread" in caplog.text


def test_log_that_goes_back_is_followed_from_there(caplog):
    """A database restored from its backup, say: what comes then must not be taken for old."""

    async def scenario():
        async with staged(MemoryLog(position=50)) as stage:
            member = await stage.join("subscription { both { position } }")
            stage.log.reset("e1", position=40)
            await wait_for(lambda: stage.hub._head == Head("e1", 40))
            stage.publish(2)
            await wait_for(lambda: len(member.positions) == 3)
            return member.positions

    assert asyncio.run(scenario()) == [50, 41, 42]
    assert "The log went back: was the database restored? (e1:40)" in caplog.text


class Trusting(Hub):
    """Known to be wrong: does not look whether positions are dense."""

    async def _read(self, after):
        return await self._in_thread(self._log.read, after, hub_module.PAGE, self._fields())


def test_hub_that_trusts_the_log_would_be_seen_to_skip_a_hole():
    async def scenario():
        async with staged(hub_class=Trusting) as stage:
            member = await stage.join()
            stage.log.holes = {2}
            stage.publish(3)
            await stage.until(member)
            return member.positions

    assert asyncio.run(scenario()) == [1, 3]


def test_new_epoch_goes_on_at_its_head(caplog):
    async def scenario():
        async with staged(MemoryLog(position=50)) as stage:
            member = await stage.join("subscription { both { position } }")
            stage.publish()
            await stage.until(member)
            stage.log.reset("e2", position=3)
            await wait_for(lambda: stage.hub._head == Head("e2", 3))
            stage.publish(2)
            await wait_for(lambda: len(member.positions) == 4)
            return member.positions

    with caplog.at_level(logging.WARNING, "realtime.hub"):
        assert asyncio.run(scenario()) == [50, 51, 4, 5]
    assert "The log has a new epoch (e2:3)" in caplog.text


# When to look


def test_event_is_found_within_a_poll_when_nobody_rings(monkeypatch):
    async def scenario():
        async with staged() as stage:
            member = await stage.join()
            await asyncio.sleep(0.05)
            started = time.monotonic()
            stage.log.append()  # no ring
            await stage.until(member)
            return time.monotonic() - started

    assert asyncio.run(scenario()) < 0.2 + 0.3


def test_ring_wakes_the_hub_long_before_the_next_poll(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", 30.0)

    async def scenario():
        async with staged() as stage:
            member = await stage.join()
            await asyncio.sleep(0.05)
            started = time.monotonic()
            stage.publish()
            await stage.until(member)
            return time.monotonic() - started

    assert asyncio.run(scenario()) < 0.5


def test_ring_for_what_is_known_already_does_not_wake_the_hub(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", 30.0)

    async def scenario():
        async with staged(MemoryLog(position=9)) as stage:
            await stage.join()
            await asyncio.sleep(0.05)
            before = stage.log.heads
            for head in (0, 8, 9):
                stage.hub._woken(head)
            await asyncio.sleep(0.1)
            return stage.log.heads - before

    assert asyncio.run(scenario()) == 0


def test_ring_that_comes_while_the_hub_reads_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", 30.0)

    async def scenario():
        async with staged() as stage:
            member = await stage.join()
            await asyncio.sleep(0.05)
            loop = asyncio.get_running_loop()
            execute = stage.engine.before_execute

            def publish_once():
                stage.engine.before_execute = execute
                loop.call_soon_threadsafe(stage.publish)
                time.sleep(0.05)

            stage.engine.before_execute = publish_once
            stage.publish()
            await stage.until(member, position=2)
            return member.positions

    assert asyncio.run(scenario()) == [1, 2]


def test_hub_ends_when_it_is_cancelled_at_the_moment_that_the_bell_rings():
    async def scenario():
        async with staged() as stage:
            await stage.join()
            await asyncio.sleep(0.02)  # it waits for the bell now
            stage.publish()
            running = stage.hub._tasks[1]
            running.cancel()
            ended, _ = await asyncio.wait([running], timeout=1)
            return len(ended)

    assert asyncio.run(scenario()) == 1
