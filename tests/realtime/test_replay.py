"""The replay by itself: pages in common, fair to those near and far, and nothing done for those who left."""

import asyncio
import contextlib
import threading
import time

import pytest

from realtime import replay as replay_module
from realtime.groups import State, Subscription
from realtime.replay import PAGE, Replay
from tests.realtime.memory_log import CountingEngine, MemoryLog
from tests.realtime.staging import BOTH, NEVER, TENS, TIMEOUT, Member, turns, wait_for


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(replay_module, "RETRY", 0.05)
    monkeypatch.setattr(replay_module, "PATIENCE", NEVER)


def _refused(subscription, code, text):
    raise AssertionError(f"refused: {text}")


class Desk:
    """A replay that hands over at the head of the log."""

    def __init__(self, position):
        self.log = MemoryLog(position)
        self.engine = CountingEngine()
        self.asked = []
        self.handed_over = []
        self.refused = []
        self.replay = Replay(self.log, self.engine, self._near, self._take, self._refuse)
        read = self.log.read
        self.log.read = lambda after, limit, fields: self.asked.append((after, limit)) or read(after, limit, fields)

    def _near(self, position):
        return position >= self.log.position

    def _refuse(self, subscription, code, text):
        subscription.state = State.ENDED
        self.refused.append((subscription, code))

    def _take(self, subscription):
        self.handed_over.append((subscription, subscription.position, subscription.state))

    def add(self, position, query=BOTH, variables=None, room=None):
        operation = self.engine.prepare(query, variables, None)
        member = Member(room)
        stream = self.engine.stream(operation)
        member.subscription = Subscription(operation, stream, member.offer, member.fail, position)
        self.replay.add(member.subscription, "e1")
        return member

    async def done(self):
        async with asyncio.timeout(TIMEOUT):
            await asyncio.wait([self.replay._task])


@contextlib.asynccontextmanager
async def desk(position):
    one = Desk(position)
    try:
        yield one
    finally:
        one.replay._task.cancel()
        one.replay._thread.shutdown()


def test_everything_after_the_position_is_offered_page_by_page_and_the_subscriber_handed_over():
    async def scenario():
        async with desk(1234) as one:
            member = one.add(567)
            await one.done()
            return member, one.asked, one.handed_over

    member, asked, handed_over = asyncio.run(scenario())
    assert member.added == list(range(568, 1235))
    assert [(after.token, limit) for after, limit in asked[:3]] == [("e1:567", 33), ("e1:600", 100), ("e1:700", 100)]
    assert len(asked) == 8
    assert handed_over == [(member.subscription, 1234, State.BLOCKED)]


def test_position_moves_on_where_nothing_was_wanted():
    async def scenario():
        async with desk(1000) as one:
            member = one.add(0, TENS, {"of": []})
            await one.done()
            return member.positions, [position for _, position, _ in one.handed_over], len(one.engine.executed)

    assert asyncio.run(scenario()) == ([], [1000], 0)


def test_those_who_need_the_same_page_share_it():
    async def scenario():
        async with desk(1000) as one:
            members = [one.add(position) for position in (0, 1, 50, 99, 0)]
            await one.done()
            return members, len(one.asked), one.engine.executed_on

    members, reads, on = asyncio.run(scenario())
    assert [member.added for member in members] == [list(range(n + 1, 1001)) for n in (0, 1, 50, 99, 0)]
    assert reads == 10
    assert on == list(range(1, 1001))


def test_one_who_is_near_does_not_wait_for_all_who_come_from_far():
    async def scenario():
        async with desk(100 * PAGE) as one:
            far = [one.add(number) for number in range(3)]
            near = one.add(97 * PAGE)
            await one.done()
            return one.handed_over[0][0] is near.subscription, [len(member.added) for member in (*far, near)]

    assert asyncio.run(scenario()) == (True, [10_000, 9_999, 9_998, 300])


def test_nothing_is_read_for_those_who_left():
    async def scenario():
        async with desk(1000) as one:
            members = [one.add(0), one.add(500)]
            for member in members:
                member.subscription.state = State.ENDED
            await one.done()
            return one.asked, one.handed_over, members[0].frames, one.replay._pages

    assert asyncio.run(scenario()) == ([], [], [], {})


def test_one_who_leaves_during_its_replay_gets_no_more():
    async def scenario():
        async with desk(1000) as one:
            member = one.add(0)
            await wait_for(lambda: len(member.positions) >= 200)
            member.subscription.state = State.ENDED
            had = len(member.positions)
            await one.done()
            return len(member.positions) - had, one.handed_over

    assert asyncio.run(scenario()) == (0, [])


def test_one_without_room_is_left_where_it_is_and_holds_up_nobody():
    async def scenario():
        async with desk(1000) as one:
            slow, other = one.add(0, room=150), one.add(0)
            await one.done()
            return slow.subscription.state, slow.subscription.position, len(slow.added), len(other.added)

    assert asyncio.run(scenario()) == (State.BLOCKED, 150, 150, 1000)


def test_one_that_joins_the_replay_again_before_its_page_is_done_is_in_it_once():
    async def scenario():
        async with desk(1000) as one:
            slow, entries = one.add(0, room=10), []
            others = [one.add(0) for _ in range(5)]
            near = one.replay._near

            def near_and_counted(position):
                entries.append(sum(list(page).count(slow.subscription) for page in one.replay._pages.values()))
                return near(position)

            def offer(subscription, position, result):
                if slow.offer(subscription, position, result):
                    return True
                asyncio.get_running_loop().call_soon(again)
                return False

            def again():  # its socket has drained: the hub takes it in, finds it far behind, and sends it here
                slow.room = 10
                one.replay.add(slow.subscription, "e1")

            one.replay._near = near_and_counted
            slow.subscription.offer = offer
            await one.done()
            return max(entries), slow.added, {len(other.added) for other in others}

    most, added, others = asyncio.run(scenario())
    assert added == list(range(1, 1001))
    assert others == {1000}
    assert most == 1


def test_log_that_cannot_be_read_is_asked_again_and_nothing_is_lost(caplog):
    async def scenario():
        async with desk(500) as one:
            one.log.fault = OSError("no database")
            member = one.add(0)
            await wait_for(lambda: len(one.asked) == 3)
            one.log.fault = None
            await one.done()
            return member.added

    assert asyncio.run(scenario()) == list(range(1, 501))
    assert "The log could not be read for a replay" in caplog.text


def test_page_without_events_is_not_asked_for_without_end(monkeypatch):
    """The log went back, and the hub has not seen it yet."""
    monkeypatch.setattr(replay_module, "RETRY", NEVER)

    async def scenario():
        async with desk(500) as one:
            one.replay._near = lambda position: position >= 500
            one.log.reset("e1", 100)
            one.add(300)
            for _ in range(50):  # in each of them it could be asked for again
                await turns(one.replay._thread)
            return len(one.asked)

    assert asyncio.run(scenario()) == 1


def test_loop_runs_while_a_page_is_executed_and_between_two_sockets():
    async def scenario():
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with desk(100) as one:
            one.engine.before_execute = lambda: time.sleep(0.001)
            members = [one.add(0) for _ in range(50)]
            counting = asyncio.create_task(count())
            await one.done()
            counting.cancel()
            return turns, {len(member.added) for member in members}

    turns, lengths = asyncio.run(scenario())
    assert turns > 100
    assert lengths == {100}


def test_nothing_is_executed_for_those_who_have_left():
    async def scenario():
        async with desk(5000) as one:
            texts = [f"subscription($after: String) {{ b{n}: both(after: $after) {{ position }} }}" for n in range(20)]
            begun, left = threading.Event(), threading.Event()
            one.engine.before_execute = lambda: begun.set() or left.wait()
            members = [one.add(0, text) for text in texts]
            await wait_for(begun.is_set)
            for member in members:
                member.subscription.state = State.ENDED
            left.set()
            await one.done()
            return len(one.engine.executed)

    # What was being executed, of one selection; not a page of a hundred for each of twenty.
    assert asyncio.run(scenario()) == replay_module.SLICE
