"""Joining at any moment: what a subscriber gets begins where it should, and has no seam."""

import asyncio
import random
import threading
import time

import pytest

from realtime import hub as hub_module
from realtime import joining as joining_module
from realtime import recent as recent_module
from realtime import replay as replay_module
from realtime.groups import State
from realtime.hub import Hub
from realtime.joining import Joining
from realtime.recent import results_for
from tests.realtime.memory_log import MemoryLog
from tests.realtime.staging import BOTH, NEVER, NUMBER, TIMEOUT, Member, nothing_left, staged, wait_for


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", 0.2)


@pytest.fixture
def little_memory(monkeypatch):
    """So little that some are brought near by the replay."""
    monkeypatch.setattr(recent_module, "KEPT", 3)


class Eager(Hub):
    """Known to be wrong: takes subscribers in at once, while events are on their way to the others."""

    def rejoin(self, subscription):
        subscription.state = State.LIVE
        self._groups.add(subscription)


def hub_with(joining_class):
    """A hub whose joining is another."""

    class Other(Hub):
        def __init__(self, log, engine, **options):
            super().__init__(log, engine, **options)
            self._joining = joining_class(log, engine, self._groups, self._in_thread, self._bell.set, self._refuse)

    return Other


class NoCatchUp(Joining):
    """Known to be wrong: does not send what happened since they came."""

    def _catch_up(self, groups, head):
        return [(group, []) for group in groups]


class NearAnyway(Joining):
    """Known to be wrong: goes live from where the log is not in memory."""

    def _near(self, position):
        return True


class Repeating(Joining):
    """Known to be wrong: forgets what they have had."""

    def _catch_up(self, groups, head):
        return [(group, results_for(self._engine, self.recent.after(0), group)) for group in groups]

    def _take_in(self, subscription, results, head):
        subscription.position = 0
        super()._take_in(subscription, results, head)


async def _interleave(seed, hub_class, steps=60):
    """Subscribers come and go while events are read and executed. What was wrong with any of them."""
    chance = random.Random(seed)
    # Many, so that most of those who join make a group of their own.
    queries = [f"subscription {{ a{number}: both {{ position }} }}" for number in range(15)]
    async with staged(hub_class=hub_class) as stage:
        members, left = await _join_where_it_is_easy_to_be_wrong(stage, queries), []
        # The hub's thread dawdles, so that joining falls into every one of its steps.
        stage.log.before_read = lambda: time.sleep(chance.random() * 0.002)
        stage.engine.before_execute = lambda: time.sleep(chance.random() * 0.0001)
        for _ in range(steps):
            match chance.randrange(6):
                case 0 | 1:
                    members.append(await stage.join(chance.choice(queries)))
                case 2 if len(members) > 1:
                    leaving = members.pop(chance.randrange(1, len(members)))
                    stage.leave(leaving)
                    left.append((leaving, list(leaving.positions)))
                case 3:
                    _block_or_drain(stage.hub, chance.choice(members))
                case _:
                    stage.publish(chance.randint(1, 3))
            await asyncio.sleep(chance.choice([0, 0, 0.0005, 0.002]))
        for member in members:
            member.room = None
            stage.hub.rejoin(member.subscription)
        stage.publish()
        await stage.until(*members)
        await stage.settled()
        faults = [_fault(member, stage.log.position) for member in members]
        faults += [f"{m.positions} after leaving with {had}" for m, had in left if m.positions != had]
        return [fault for fault in faults if fault]


async def _join_where_it_is_easy_to_be_wrong(stage, queries):
    """One while an event is read, one while it is executed, and one that is further behind than memory reaches."""
    loop, late = asyncio.get_running_loop(), []
    members = [await stage.live(queries[0]), await stage.live(queries[1], member=Member(room=2))]

    def join_while_it_is_read():
        stage.log.before_read, stage.engine.before_execute = lambda: None, join_while_it_is_executed
        late.append(asyncio.run_coroutine_threadsafe(stage.join(queries[2]), loop).result(TIMEOUT))

    def join_while_it_is_executed():
        # Only in the hub's thread: the checkpoint of who joins is executed in the loop, which must not wait.
        if threading.current_thread() is not threading.main_thread():
            stage.engine.before_execute = lambda: None
            late.append(asyncio.run_coroutine_threadsafe(stage.join(queries[3]), loop).result(TIMEOUT))

    for number in range(6):
        if number == 1:
            stage.log.before_read = join_while_it_is_read
        stage.publish()
        await stage.until(members[0])
    assert len(late) == 2
    members[1].room = None
    stage.hub.rejoin(members[1].subscription)
    return members + late


def _block_or_drain(hub, member):
    if member.room is None:
        member.room = 1
    else:
        member.room = None
        hub.rejoin(member.subscription)


def _fault(member, last):
    """The first position is the checkpoint's; from there on each number to the last, once."""
    expected = list(range(member.positions[0], last + 1))
    return None if member.positions == expected else f"{member.positions} is not {expected}"


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("seed", range(30))
def test_subscriber_that_joins_at_any_moment_gets_exactly_what_follows_its_checkpoint(seed):
    assert asyncio.run(_interleave(seed, Hub)) == []


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(
    "wrong",
    [Eager, hub_with(NoCatchUp), hub_with(NearAnyway), hub_with(Repeating)],
    ids=["Eager", "NoCatchUp", "NearAnyway", "Repeating"],
)
def test_interleavings_find_a_hub_that_is_wrong_about_who_gets_what(wrong):
    """Without what comes by chance."""
    assert asyncio.run(_interleave(0, wrong, steps=0)) != []


def test_subscriber_that_joins_while_events_are_read_has_its_own_fields_loaded():
    asked = []

    async def scenario():
        async with staged() as stage:
            loop = asyncio.get_running_loop()
            first = await stage.live()
            read, late = stage.log.read, []

            def read_and_let_one_join(after, limit, fields):
                asked.append((after.position, fields))
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
    assert asked[0] == (0, {"number", "text"})
    assert [after for after, fields in asked[1:] if "position" in fields] == [0]


def test_those_who_are_a_little_behind_are_served_from_memory():
    async def scenario():
        async with staged() as stage:
            first = await stage.live(BOTH)
            stage.publish(30)
            await stage.until(first)
            reads = stage.log.reads
            behind = [await stage.live(BOTH, {"after": f"e1:{after}"}) for after in (0, 10, 29, 30)]
            return stage.log.reads - reads, [member.told for member in behind], stage.engine.executed_on

    reads, told, on = asyncio.run(scenario())
    assert reads == 0
    expected = [[("ADDED", n) for n in range(after + 1, 31)] + [("CHECKPOINT", 30)] for after in (0, 10, 29, 30)]
    assert told == expected
    assert on == list(range(1, 31))  # each once, for all of them


def test_position_of_another_selection_is_loaded_again_from_the_log():
    async def scenario():
        async with staged() as stage:
            first = await stage.live("subscription { both { position } }")
            stage.publish(30)
            await stage.until(first)
            reads = stage.log.reads
            document = 'subscription { both(after: "e1:20") { position text } }'
            behind = [await stage.live(document) for _ in range(3)]
            return stage.log.reads - reads, {tuple(member.positions) for member in behind}

    assert asyncio.run(scenario()) == (1, {(*range(21, 31), 30)})


def test_log_that_cannot_be_read_while_subscribers_are_taken_in_loses_none_of_them(caplog, monkeypatch):
    monkeypatch.setattr(replay_module, "RETRY", 0.1)
    monkeypatch.setattr(replay_module, "PATIENCE", NEVER)

    async def scenario():
        async with staged() as stage:
            first = await stage.live("subscription { both { position } }")
            stage.publish(20)
            await stage.until(first)
            stage.log.fault, reads = OSError("no database"), stage.log.reads
            document = "subscription($after: String) { both(after: $after) { position text } }"
            behind = [await stage.join(document, {"after": f"e1:{after}"}) for after in (5, 19)]
            await wait_for(lambda: stage.log.reads >= reads + 3)  # the hub's own, and the replay's again and again
            during = [list(member.positions) for member in behind]
            stage.log.fault = None
            stage.publish(2)
            await stage.until(*behind)
            return during, [member.positions for member in behind]

    during, after = asyncio.run(scenario())
    assert during == [[], []]
    assert [sorted(set(positions)) for positions in after] == [list(range(6, 23)), [20, 21, 22]]
    assert "OSError: no database" in caplog.text


def test_more_than_are_taken_in_between_two_events_are_taken_in_all_the_same(monkeypatch):
    monkeypatch.setattr(joining_module, "ADMITTED", 7)

    async def scenario():
        async with staged() as stage:
            members = [await stage.join(BOTH) for _ in range(50)]
            stage.publish(3)
            await stage.until(*members)
            await wait_for(lambda: len(stage.members()) == 50)
            return {tuple(member.told) for member in members}

    assert asyncio.run(scenario()) == {(("CHECKPOINT", 0), ("ADDED", 1), ("ADDED", 2), ("ADDED", 3))}


# No room


def test_subscriber_without_room_goes_on_where_it_was_when_it_has_room_again():
    async def scenario():
        async with staged() as stage:
            other = await stage.live(BOTH)
            slow = await stage.live(BOTH, member=Member(room=4))
            stage.publish(20)
            await stage.until(other)
            blocked = slow.told, slow.subscription.state, stage.hub.place(slow.subscription).token
            slow.room = 5
            stage.hub.rejoin(slow.subscription)
            await wait_for(lambda: slow.room == 0)
            slow.room = None
            stage.hub.rejoin(slow.subscription)
            await stage.until(slow)
            stage.publish()
            await stage.until(slow, other)
            return blocked, slow.told

    (told, state, place), after = asyncio.run(scenario())
    assert told == [("CHECKPOINT", 0), ("ADDED", 1), ("ADDED", 2), ("ADDED", 3)]
    assert (state, place) == (State.BLOCKED, "e1:3")
    assert after == [("CHECKPOINT", 0), *(("ADDED", n) for n in range(1, 22))]


def test_subscriber_without_room_for_its_checkpoint_gets_it_later():
    async def scenario():
        async with staged() as stage:
            member = await stage.join(BOTH, member=Member(room=0))
            await stage.settled()
            stage.publish(2)
            await stage.settled()
            live = len(stage.members())
            member.room = None
            stage.hub.rejoin(member.subscription)
            await stage.until(member)
            await wait_for(stage.members)
            return live, member.told

    assert asyncio.run(scenario()) == (0, [("ADDED", 1), ("ADDED", 2), ("CHECKPOINT", 2)])


def test_subscriber_that_waits_and_leaves_is_forgotten():
    async def scenario():
        async with staged() as stage:
            slow = await stage.join(BOTH, member=Member(room=0))
            await stage.settled()
            stage.leave(slow)
            stage.hub.rejoin(slow.subscription)
            await stage.settled()
            return nothing_left(stage.hub), slow.subscription.state

    assert asyncio.run(scenario()) == (True, State.ENDED)


@pytest.mark.parametrize("query", [BOTH, NUMBER])
def test_subscriber_that_is_found_to_be_gone_while_it_is_taken_in_is_forgotten(query):
    async def scenario():
        async with staged() as stage:
            other = await stage.live(query)
            gone = await stage.join(query, member=Member(room=0))
            stage.publish(3)
            await stage.until(other)

            def offer(subscription, position, result):  # sending finds that there is nobody
                stage.leave(gone)
                return True

            gone.subscription.offer = offer
            stage.hub.rejoin(gone.subscription)
            await wait_for(lambda: gone.subscription not in stage.hub._all)
            await stage.settled()
            stage.leave(other)
            return nothing_left(stage.hub), gone.subscription.state

    assert asyncio.run(scenario()) == (True, State.ENDED)


def test_token_ahead_of_this_process_is_not_answered_by_a_checkpoint_behind_it(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", NEVER)

    async def scenario():
        async with staged(MemoryLog(position=10)) as stage:
            await stage.live(BOTH)
            stage.log.append(5)  # no ring: this process is behind
            member = await stage.live(BOTH, {"after": "e1:13"})
            stage.publish()
            await stage.until(member)
            return member.told

    told = asyncio.run(scenario())
    assert [position for _, position in told] == sorted(position for _, position in told)
    assert all(position >= 13 for _, position in told)
    assert [position for kind, position in told if kind == "ADDED"] == [14, 15, 16]


def test_replay_that_was_quicker_than_the_hub_is_not_followed_by_a_checkpoint_behind_it(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", NEVER)

    async def scenario():
        async with staged(MemoryLog(position=950)) as stage:
            await stage.live(BOTH)
            stage.log.append(5)  # no ring
            member = await stage.live(BOTH, {"after": "e1:500"})
            stage.publish()
            await stage.until(member)
            return member.told

    told = asyncio.run(scenario())
    assert told == [*(("ADDED", n) for n in range(501, 956)), ("CHECKPOINT", 955), ("ADDED", 956)]
