"""The hub on a log in memory: order, at most once, nothing missing, and one execution for all who ask the same."""

import asyncio
import logging
import random
import threading
from types import SimpleNamespace

import pytest

from realtime import execution as execution_module
from realtime import hub as hub_module
from realtime import joining as joining_module
from realtime.hub import HubUnavailable
from realtime.log import Head
from tests.realtime.memory_log import MemoryLog
from tests.realtime.staging import BOTH, NEVER, NUMBER, TIMEOUT, Member, nothing_left, staged, wait_for


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    """Polling that is slow where a test says nothing else: what arrives was rung for."""
    monkeypatch.setattr(hub_module, "POLL", 0.2)


# Order, and each once


def test_subscriber_gets_each_event_once_and_in_order():
    chance = random.Random(1)

    async def scenario():
        async with staged() as stage:
            member = await stage.join()
            for _ in range(20):
                stage.publish(chance.randint(1, 5))
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
    monkeypatch.setattr(hub_module, "POLL", NEVER)

    async def scenario():
        async with staged() as stage:
            member = await stage.live()
            stage.publish(95)
            await stage.until(member)
            return member.positions, stage.log.reads

    assert asyncio.run(scenario()) == (list(range(1, 96)), 10)


def test_log_is_read_once_however_many_listen():
    async def scenario():
        async with staged() as stage:
            members = [await stage.join(f"subscription {{ n{n}: number {{ text }} }}") for n in range(20)]
            await wait_for(lambda: stage.groups() == 20)
            stage.publish()
            await stage.until(*members)
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


# Checkpoints


def test_checkpoint_comes_first_and_says_where_the_log_stands():
    async def scenario():
        async with staged(MemoryLog(position=7)) as stage:
            member = await stage.join(BOTH)
            first = member.told
            stage.publish()
            await stage.until(member)
            return first, member.told

    first, told = asyncio.run(scenario())
    assert first == [("CHECKPOINT", 7)]
    assert told == [("CHECKPOINT", 7), ("ADDED", 8)]


def test_checkpoint_comes_again_to_those_who_were_told_nothing_of_the_last_events(monkeypatch):
    monkeypatch.setattr(hub_module, "CHECKPOINTS", 0.05)

    async def scenario():
        async with staged() as stage:
            rounds = _rounds_once_the_head_is_at(stage, 7)
            narrow = await stage.live("subscription { tens(of: [5]) { position kind } }")
            wide = await stage.live(BOTH)
            evens = await stage.live("subscription { evens { position kind } }")
            stage.publish(7)
            await wait_for(lambda: len(rounds) == 3)  # after the first nothing is new: nothing is told again
            return narrow.told, wide.told[-1], evens.told

    narrow, wide, evens = asyncio.run(scenario())
    assert narrow == [("CHECKPOINT", 0), ("ADDED", 5), ("CHECKPOINT", 7)]
    assert wide == ("ADDED", 7)
    assert evens == [("ADDED", 2), ("ADDED", 4), ("ADDED", 6)]  # wants no checkpoints


def _rounds_once_the_head_is_at(stage, position):
    """The hub's rounds of checkpoints, which begin then: one in the middle of the events would tell of these."""
    tell, rounds = stage.hub._tell_place, []

    async def tell_later(head):
        if head.position == position:
            await tell(head)
            rounds.append(head)

    stage.hub._tell_place = tell_later
    return rounds


# One execution for each selection and event


def test_selection_is_executed_once_for_each_event_whoever_asks():
    async def scenario():
        async with staged() as stage:
            same = [await stage.join(text) for text in [NUMBER, "subscription{number{text}}#x", NUMBER] * 20]
            other = [await stage.join("subscription { number { position } }") for _ in range(10)]
            await wait_for(lambda: len(stage.members()) == 70)
            stage.publish(3)
            await stage.until(*same, *other)
            return stage.engine.executed, same + other

    executed, members = asyncio.run(scenario())
    assert all(member.positions == [1, 2, 3] for member in members)
    assert len(executed) == len(set(executed)) == 2 * 3


def test_filters_around_one_selection_share_its_execution():
    document = "subscription($o: Int) { number(over: $o) { text } }"

    async def scenario():
        async with staged() as stage:
            members = [await stage.live(document, {"o": over}) for over in (0, -1, 1, 0)]
            inline = await stage.live("subscription { number(over: -5) { text } }")
            stage.publish(2)
            await stage.until(*members, inline)
            return stage.engine.executed_on, [member.positions for member in members], stage.groups()

    on, positions, groups = asyncio.run(scenario())
    assert on == [1, 2]
    assert positions == [[1, 2], [1, 2], [2], [1, 2]]
    assert groups == 4


def _arrivals_beside_costly_ones(monkeypatch, before_first):
    """In which order a plain subscriber and ten costly ones have the second event. The clock moves for costs alone."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(execution_module, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    async def scenario():
        async with staged() as stage:
            costly = [await stage.live(f"subscription {{ c{n}: number {{ position padding }} }}") for n in range(10)]
            plain = await stage.live()
            had = []
            before_first(stage)
            execute = stage.engine.execute

            def costs(operation, root=None):
                if "padding" in operation.fields:
                    clock.now += 0.02
                return execute(operation, root)

            stage.engine.execute = costs
            for member, name in [(plain, "plain"), *((one, "costly") for one in costly)]:
                _note_second(member, name, had)
            for _ in range(2):
                stage.publish()
                await stage.until(plain, *costly)
            return had

    return asyncio.run(scenario())


def _note_second(member, name, had):
    offer = member.subscription.offer

    def noted(subscription, position, result):
        if position == 2:
            had.append(name)
        return offer(subscription, position, result)

    member.subscription.offer = noted


def test_what_is_quick_to_execute_does_not_wait_for_what_is_not(monkeypatch):
    assert _arrivals_beside_costly_ones(monkeypatch, lambda stage: None) == ["plain", *["costly"] * 10]


def test_order_of_execution_that_knows_no_cost_would_be_seen(monkeypatch):
    """Known to be wrong: groups in the order in which they came."""

    def forget(stage):
        groups = stage.hub._groups
        stage.hub._execution.wanted = lambda events: (
            (taken, group) for taken in events for group in [*groups._groups.values(), None]
        )

    assert _arrivals_beside_costly_ones(monkeypatch, forget) == [*["costly"] * 10, "plain"]


def test_other_variables_in_the_selection_are_executed_apart():
    document = "subscription($t: Boolean!) { number { position text @include(if: $t) } }"

    async def scenario():
        async with staged() as stage:
            members = [await stage.live(document, {"t": text}) for text in (True, False, True)]
            stage.publish()
            await stage.until(*members)
            return stage.engine.executed_on, [member.frames for member in members]

    on, (with_text, without, again) = asyncio.run(scenario())
    assert on == [1, 1]
    assert with_text == again == ['{"data":{"number":{"position":1,"text":"number 1"}}}']
    assert without == ['{"data":{"number":{"position":1}}}']


def test_checkpoint_is_executed_once_while_the_head_stands_still():
    async def scenario():
        async with staged() as stage:
            members = [await stage.live(BOTH) for _ in range(5)]
            stage.publish()
            await stage.until(*members)
            members += [await stage.live(BOTH) for _ in range(5)]
            return [(event.kind, event.position) for _, event in stage.engine.executed], len(stage.members())

    assert asyncio.run(scenario()) == ([("CHECKPOINT", 0), ("ADDED", 1), ("CHECKPOINT", 1)], 10)


def test_nothing_is_read_or_executed_when_nobody_listens():
    async def scenario():
        async with staged() as stage:
            member = await stage.live()
            stage.leave(member)
            stage.publish(3)
            await wait_for(lambda: stage.hub._head.position == 3)
            return stage.log.reads, stage.engine.executed, member.positions

    assert asyncio.run(scenario()) == (0, [], [])


def test_subscriber_that_comes_after_a_time_without_any_begins_at_the_head():
    async def scenario():
        async with staged() as stage:
            first = await stage.live(BOTH)
            stage.publish(2)
            await stage.until(first)
            stage.leave(first)
            stage.publish(5)
            await wait_for(lambda: stage.hub._head.position == 7)
            second = await stage.live(BOTH)
            stage.publish(2)
            await stage.until(second)
            return second.told

    assert asyncio.run(scenario()) == [("CHECKPOINT", 7), ("ADDED", 8), ("ADDED", 9)]


# Leaving


def test_nothing_is_kept_of_those_who_have_left():
    async def scenario():
        async with staged() as stage:
            queries = [
                NUMBER,
                BOTH,
                "subscription { tens(of: [1, 2]) { text } }",
                "subscription { tens(of: []) { text } }",
            ]
            members = [await stage.live(query) for query in queries * 3]
            stage.publish(30)
            await stage.until(*members[:2])
            groups = stage.groups()
            for member in members:
                stage.leave(member)
                stage.leave(member)
            return groups, nothing_left(stage.hub)

    assert asyncio.run(scenario()) == (4, True)


def test_unsubscribing_twice_does_no_harm_to_a_group_of_the_same_key():
    async def scenario():
        async with staged() as stage:
            gone = await stage.live()
            stage.leave(gone)
            successor = await stage.live()
            stage.leave(gone)
            stage.publish()
            await stage.until(successor)
            return gone.positions, successor.positions, stage.groups()

    assert asyncio.run(scenario()) == ([], [1], 1)


class Leaver(Member):
    """Leaves when it is given its first event."""

    hub = None

    def offer(self, subscription, position, result):
        super().offer(subscription, position, result)
        self.hub.unsubscribe(subscription)
        return True


def test_member_that_leaves_while_it_is_given_an_event_gets_no_more():
    async def scenario():
        async with staged() as stage:
            leaves = Leaver()
            leaves.hub = stage.hub
            stays = await stage.live()
            await stage.live(member=leaves)
            stage.publish(3)
            await stage.until(stays)
            return stays.positions, leaves.positions, len(stage.members())

    assert asyncio.run(scenario()) == ([1, 2, 3], [1], 1)


# A log that fails


async def _looks(stage):
    """Two have begun from now on: what came of the first has been dealt with."""
    wanted = stage.log.heads + 2
    await wait_for(lambda: stage.log.heads >= wanted)


def test_subscriber_is_refused_when_the_log_cannot_be_read(monkeypatch):
    monkeypatch.setattr(hub_module, "START_LIMIT", 0.3)

    async def scenario():
        async with staged() as stage:
            stage.log.fault = OSError("no database")
            with pytest.raises(HubUnavailable) as caught:
                await stage.join()
            left = nothing_left(stage.hub)
            monkeypatch.setattr(hub_module, "START_LIMIT", TIMEOUT)
            stage.log.fault = None
            member = await stage.live()
            stage.publish()
            await stage.until(member)
            return str(caught.value), left, stage.groups()

    message, left, groups = asyncio.run(scenario())
    assert message == "The log cannot be read at the moment; try again later."
    assert left
    assert groups == 1


def test_log_that_fails_for_a_while_costs_no_event(caplog):
    async def scenario():
        async with staged() as stage:
            member = await stage.join()
            stage.publish(2)
            await stage.until(member)
            stage.log.fault = OSError("no database")
            stage.publish(3)
            await _looks(stage)
            during = list(member.positions)
            stage.log.fault = None
            await stage.until(member)
            return during, member.positions

    with caplog.at_level(logging.ERROR, "realtime.hub"):
        assert asyncio.run(scenario()) == ([1, 2], [1, 2, 3, 4, 5])
    assert "The log could not be read; trying each" in caplog.text
    assert "no database" in caplog.text


def test_nothing_is_delivered_past_a_hole_until_it_is_filled(caplog):
    async def scenario():
        async with staged() as stage:
            member = await stage.live()
            stage.log.holes = {2}
            stage.publish(3)
            await _looks(stage)
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
            member = await stage.live()
            stage.log.holes = {1}
            stage.publish()
            await _looks(stage)
            return member.positions

    with caplog.at_level(logging.ERROR, "realtime.hub"):
        assert asyncio.run(scenario()) == []
    assert "the log has a head at 1 and no events after 0" in caplog.text


def test_hub_that_trusts_the_log_would_be_seen_to_skip_a_hole(monkeypatch):
    monkeypatch.setattr(hub_module, "check_dense", lambda *_: None)

    async def scenario():
        async with staged() as stage:
            member = await stage.live()
            stage.log.holes = {2}
            stage.publish(3)
            await stage.until(member)
            return member.positions

    assert asyncio.run(scenario()) == [1, 3]


def test_an_execution_that_fails_is_tried_again_and_loses_no_event(caplog):
    async def scenario():
        async with staged() as stage:
            first = await stage.live()
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


# A log that begins anew


@pytest.mark.parametrize(
    ("epoch", "position", "words"),
    [("e2", 3, "The log has a new epoch"), ("e1", 40, "The log went back: was the database restored?")],
)
def test_streams_with_a_place_end_with_a_log_that_begins_anew_and_others_go_on(caplog, epoch, position, words):
    async def scenario():
        async with staged(MemoryLog(position=50)) as stage:
            placed, placeless = await stage.live(BOTH), await stage.live("subscription { number { position } }")
            stage.publish()
            await stage.until(placed, placeless)
            stage.log.reset(epoch, position)
            await wait_for(lambda: stage.hub._head == Head(epoch, position))
            stage.publish(2)
            await stage.until(placeless, position=position + 2)
            await wait_for(lambda: placeless.positions[-1] == position + 2)
            return placed, placeless.positions, len(stage.hub._all)

    with caplog.at_level(logging.ERROR, "realtime.hub"):
        placed, placeless, left = asyncio.run(scenario())
    assert placed.told == [("CHECKPOINT", 50), ("ADDED", 51)]
    assert placed.code == "STREAM_EPOCH_CHANGED"
    assert len(placed.errors) == 1
    assert "e1:51" in placed.errors[0]["message"]
    assert placeless == [51, position + 1, position + 2]
    assert left == 1
    assert f"{words} (it was at e1:51, and is at {epoch}:{position})" in caplog.text


def test_what_a_new_epoch_has_had_before_it_was_noticed_reaches_streams_without_a_place():
    async def scenario():
        async with staged(MemoryLog(position=50)) as stage:
            live, slow = await stage.live(), await stage.live(member=Member(room=2))
            stage.publish(4)
            await stage.until(live)
            stage.log.reset("e2", 54 + 3)  # no ring
            slow.room = None
            stage.hub.rejoin(slow.subscription)
            await stage.until(live, slow)
            stage.publish()
            await stage.until(live, slow)
            return live.positions, slow.positions

    live, slow = asyncio.run(scenario())
    assert live == slow == list(range(51, 59))


def test_stream_without_a_place_is_not_sent_a_log_that_is_far_ahead():
    async def scenario():
        async with staged(MemoryLog(position=50)) as stage:
            live, slow = await stage.live(), await stage.live(member=Member(room=0))
            stage.publish()
            await stage.until(live)
            stage.log.reset("e2", 5000)
            await wait_for(lambda: stage.hub._head == Head("e2", 5000))
            slow.room = None
            stage.hub.rejoin(slow.subscription)
            stage.publish()
            await stage.until(live, slow)
            return live.positions, slow.positions

    assert asyncio.run(scenario()) == ([51, 5001], [5001])


def test_who_subscribes_after_the_log_has_begun_anew_begins_there():
    async def scenario():
        async with staged(MemoryLog(position=50)) as stage:
            await stage.live(BOTH)
            stage.log.reset("e2", 3)
            await wait_for(lambda: stage.hub._head == Head("e2", 3))
            member = await stage.live(BOTH)
            stage.publish()
            await stage.until(member, position=4)
            return member.told

    assert asyncio.run(scenario()) == [("CHECKPOINT", 3), ("ADDED", 4)]


# When to look


def test_event_is_found_within_a_poll_when_nobody_rings():
    async def scenario():
        async with staged() as stage:
            member = await stage.live()
            stage.log.append()  # no ring
            await stage.until(member)
            return member.positions

    assert asyncio.run(scenario()) == [1]


def test_ring_wakes_the_hub_long_before_the_next_poll(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", NEVER)

    async def scenario():
        async with staged() as stage:
            member = await stage.live()
            stage.publish()
            await stage.until(member)
            return member.positions

    assert asyncio.run(scenario()) == [1]


def test_ring_for_what_is_known_already_does_not_wake_the_hub(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", NEVER)

    async def scenario():
        async with staged(MemoryLog(position=9)) as stage:
            await stage.live()
            before = stage.log.heads
            for head in (0, 8, 9):
                stage.hub._woken(head)
            await stage.settled()
            return stage.log.heads - before

    assert asyncio.run(scenario()) == 0


def test_ring_that_comes_while_the_hub_reads_is_not_forgotten(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", NEVER)

    async def scenario():
        async with staged() as stage:
            member = await stage.live()
            loop, rung = asyncio.get_running_loop(), threading.Event()

            def publish_once():
                stage.engine.before_execute = lambda: None
                loop.call_soon_threadsafe(stage.publish)
                loop.call_soon_threadsafe(rung.set)
                assert rung.wait(TIMEOUT)

            stage.engine.before_execute = publish_once
            stage.publish()
            await stage.until(member, position=2)
            return member.positions

    assert asyncio.run(scenario()) == [1, 2]


def test_hub_ends_when_it_is_cancelled_at_the_moment_that_the_bell_rings(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", NEVER)

    async def scenario():
        async with staged() as stage:
            await stage.live()
            await stage.settled()  # it waits for the bell now
            stage.publish()
            running = stage.hub._tasks[1]
            running.cancel()
            ended, _ = await asyncio.wait([running], timeout=5)
            return len(ended)

    assert asyncio.run(scenario()) == 1


# The loop belongs to all


class Counted(Member):
    """Says how often the loop had run when it was given its event."""

    turns = 0
    seen = 0
    now = 0.0  # by the clock of this test

    def offer(self, subscription, position, result):
        Counted.now += 0.0001  # a socket's write takes its time
        self.seen = Counted.turns
        return super().offer(subscription, position, result)


@pytest.mark.parametrize("way", ["live", "joining"])
def test_loop_runs_between_the_members_of_a_large_group(way, monkeypatch):
    monkeypatch.setattr(joining_module, "time", SimpleNamespace(perf_counter=lambda: Counted.now))

    async def count_turns():
        while True:
            Counted.turns += 1
            await asyncio.sleep(0)

    async def scenario():
        async with staged() as stage:
            await stage.live(BOTH)  # so that the hub keeps what is published
            stage.publish()
            await stage.settled()
            variables = {"after": "e1:0"} if way == "joining" else None
            members = [await stage.join(BOTH, variables, Counted()) for _ in range(3000)]
            if way == "live":
                await wait_for(lambda: len(stage.members()) == 3001)
            turning = asyncio.create_task(count_turns())
            if way == "live":
                stage.publish()
            await wait_for(lambda: all(stage.log.position in member.positions for member in members))
            turning.cancel()
            return len({member.seen for member in members})

    # 3,000 of a tenth of a millisecond, in turns of five.
    assert asyncio.run(scenario()) > 40
