"""Going on from a token: every event after it once and in order, or a refusal that says why; never something else."""

import asyncio
import contextlib
import random
import threading
from collections import Counter

import pytest

from realtime import hub as hub_module
from realtime import replay as replay_module
from realtime.hub import Hub, HubUnavailable
from realtime.joining import Joining
from realtime.log import Head, Refusal, Refused, check_token, read_token
from tests.realtime.memory_log import MemoryLog
from tests.realtime.staging import BOTH, NEVER, TENS, TIMEOUT, Member, nothing_left, staged, wait_for


@pytest.fixture(autouse=True)
def patience(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", 0.2)
    monkeypatch.setattr(replay_module, "RETRY", 0.1)


def _fault(member, after, last, wanted=lambda position: True):
    """What is wrong with what came after the token; a checkpoint comes once, when it has caught up."""
    told = member.told
    expected = [position for position in range(after + 1, last + 1) if wanted(position)]
    if member.added != expected:
        missing, added = sorted(set(expected) - set(member.added)), member.added
        return f"after {after}: {len(added)} for {len(expected)}, missing {missing[:5]}, begins {added[:3]}"
    checkpoints = [(number, position) for number, (kind, position) in enumerate(told) if kind == "CHECKPOINT"]
    if len(checkpoints) != 1:
        return f"after {after}: checkpoints {checkpoints}"
    number, position = checkpoints[0]
    before, then = [p for _, p in told[:number]], [p for _, p in told[number + 1 :]]
    in_order = all(p <= position for p in before) and all(p > position for p in then)
    return None if in_order else f"after {after}: the checkpoint {position} stands between {before[-2:]} and {then[:2]}"


async def _publishing(stage, count, rate=200):
    for _ in range(count):
        stage.publish()
        await asyncio.sleep(1 / rate)


def _publish_behind_each_page(stage):
    """An event after each page with which a replay reaches the head, and live before the page is sent: a seam."""
    loop, read = asyncio.get_running_loop(), stage.log.read

    async def publish():
        stage.publish()
        position = stage.log.position
        await wait_for(lambda: stage.hub._head.position >= position)

    def read_and_publish(after, limit, fields):
        events = read(after, limit, fields)
        if _is_replay() and events and events[-1].position >= stage.log.position:
            asyncio.run_coroutine_threadsafe(publish(), loop).result(TIMEOUT)
        return events

    stage.log.read = read_and_publish


def _is_replay():
    """Whether the replay reads, and not the hub."""
    return threading.current_thread().name.startswith("replay")


async def _resume(hub_class, tokens, published, start=6000):
    """Subscribers go on from these many positions behind, while events are published. What was wrong."""
    async with staged(MemoryLog(position=start), hub_class) as stage:
        other = await stage.live(BOTH)
        _publish_behind_each_page(stage)
        publishing = asyncio.create_task(_publishing(stage, published))
        members = []
        for behind in tokens:
            after = stage.log.position - behind
            members.append((await stage.join(BOTH, {"after": f"e1:{after}"}), after))
            await asyncio.sleep(published / 200 / len(tokens) / 2)
        await publishing
        await wait_for(lambda: len(stage.members()) == len(tokens) + 1)
        stage.publish()  # for who has had nothing so far
        await stage.until(other, *(member for member, _ in members))
        return [fault for member, after in members if (fault := _fault(member, after, stage.log.position))]


@pytest.mark.parametrize("seed", range(3))
def test_p10_subscriber_that_goes_on_from_any_token_gets_every_event_once_and_in_order(seed):
    chance = random.Random(seed)
    tokens = [chance.choice([0, 1, 99, 100, 101, 255, 256, 257, 5000])] + [chance.randint(1, 5000) for _ in range(30)]
    assert asyncio.run(_resume(Hub, tokens, 150)) == []


def test_p11_two_hundred_that_go_on_during_a_burst_see_no_seam():
    chance = random.Random(11)
    tokens = [chance.choice([0, 1, 5, 100, 250, 300, 600, 1200]) for _ in range(200)]
    assert asyncio.run(_resume(Hub, tokens, 300)) == []


class NearAnyway(Joining):
    """Known to be wrong: takes in from where the log is not in memory."""

    def _near(self, position):
        return True


class HastyReplay(Joining):
    """Known to be wrong: the replay ends at the head that was there when it began."""

    def _take_in(self, subscription, results, head):
        if head.position - subscription.position < 50:
            results = []
        super()._take_in(subscription, results, head)


class FromTheHead(Hub):
    """Known to be wrong: begins at the head, whatever the token."""

    async def _position(self, token):
        return self._head.position


def hub_with(joining_class):
    class Other(Hub):
        def __init__(self, log, engine, **options):
            super().__init__(log, engine, **options)
            self._joining = joining_class(log, engine, self._groups, self._in_thread, self._bell.set, self._refuse)

    return Other


@pytest.mark.parametrize(
    "wrong", [FromTheHead, hub_with(NearAnyway), hub_with(HastyReplay)], ids=["FromTheHead", "NearAnyway", "Hasty"]
)
def test_p11_finds_a_hub_that_has_a_seam(wrong):
    assert asyncio.run(_resume(wrong, [1, 40, 300, 600], 40)) != []


@pytest.mark.parametrize("seed", range(2))
def test_subscriber_that_goes_on_with_a_filter_gets_what_it_wants(seed):
    chance = random.Random(seed)

    async def scenario():
        async with staged(MemoryLog(position=3000)) as stage:
            publishing = asyncio.create_task(_publishing(stage, 100))
            members = []
            for _ in range(20):
                digits, after = chance.sample(range(10), 3), stage.log.position - chance.randint(1, 2500)
                member = await stage.join(TENS, {"of": digits, "after": f"e1:{after}"})
                members.append((member, after, digits))
                await asyncio.sleep(0.01)
            await publishing
            await wait_for(lambda: len(stage.members()) == 20)
            await stage.settled()
            last = stage.log.position
            faults = [_fault(member, after, last, lambda p, d=d: p % 10 in d) for member, after, d in members]
            return [fault for fault in faults if fault]

    assert asyncio.run(scenario()) == []


def test_those_who_are_equally_far_behind_share_pages_and_executions():
    async def scenario():
        async with staged(MemoryLog(position=2000)) as stage:
            members = [await stage.join(BOTH, {"after": "e1:1000"}) for _ in range(50)]
            await stage.until(*members)
            return stage.log.reads, stage.engine.executed_on

    reads, on = asyncio.run(scenario())
    assert reads <= 25
    assert len(on) < 1400  # 50,000 deliveries


def test_slow_subscriber_that_is_replayed_goes_on_where_it_was():
    async def scenario():
        async with staged(MemoryLog(position=1000)) as stage:
            slow = await stage.join(BOTH, {"after": "e1:0"}, Member(room=30))
            while slow.positions[-1:] != [1010]:
                await wait_for(lambda: slow.room == 0 or slow.positions[-1:] == [1010])
                if stage.log.position < 1010:
                    stage.publish()
                slow.room = 37
                stage.hub.rejoin(slow.subscription)
            await stage.settled()
            slow.room = None
            stage.hub.rejoin(slow.subscription)
            await wait_for(stage.members)
            return _fault(slow, 0, 1010)

    assert asyncio.run(scenario()) is None


# Tokens that are refused (P12)


@pytest.mark.parametrize(
    ("token", "code"),
    [
        ("e1:99", Refusal.TOO_OLD),
        ("e1:1101", Refusal.AHEAD),
        ("e2:1000", Refusal.EPOCH_CHANGED),
        ("garbage", Refusal.INVALID),
        ("e1:-1", Refusal.INVALID),
        (f"e1:{2**63}", Refusal.INVALID),
        ("", Refusal.INVALID),
        ("e1:1000 ", Refusal.INVALID),
        ("e1:\u0661", Refusal.INVALID),
        ("e1:01", Refusal.INVALID),
        ("e1:" + "1" * 100_000, Refusal.INVALID),
        (f"e1:{2**63 - 1}", Refusal.AHEAD),
    ],
    ids=lambda value: str(value)[:24],
)
def test_p12_token_that_cannot_be_used_is_refused_with_its_code_and_nothing_begins(token, code):
    async def scenario():
        async with staged(MemoryLog(position=1100), furthest=1000) as stage:
            member = Member()
            with pytest.raises(Refused) as caught:
                await stage.join(BOTH, {"after": token}, member)
            stage.publish(2)
            await stage.settled()
            return caught.value.code, str(caught.value), member.frames, nothing_left(stage.hub)

    refused, text, frames, left = asyncio.run(scenario())
    assert (refused, frames, left) == (code, [], True)
    assert text.startswith("after: ")
    assert len(text) < 250


def test_token_that_is_as_far_behind_as_is_allowed_is_accepted():
    async def scenario():
        async with staged(MemoryLog(position=1100), furthest=1000) as stage:
            member = await stage.join(BOTH, {"after": "e1:100"})
            await stage.until(member)
            await wait_for(stage.members)
            return _fault(member, 100, 1100)

    assert asyncio.run(scenario()) is None


@pytest.mark.parametrize("token", ["e1:0", "e1:12", f"e1:{2**63 - 1}", "abcdefghij012345:7"])
def test_token_is_read_as_it_was_written(token):
    assert read_token(token).token == token


def test_token_of_the_head_itself_is_accepted():
    check_token(Head("e1", 5), Head("e1", 5), 0)


def test_token_ahead_of_this_process_but_not_of_the_log_is_accepted(monkeypatch):
    monkeypatch.setattr(hub_module, "POLL", NEVER)

    async def scenario():
        async with staged(MemoryLog(position=10)) as stage:
            await stage.live(BOTH)
            stage.log.append(5)  # no ring: this process is behind
            member = await stage.join(BOTH, {"after": "e1:13"})
            stage.publish()
            await stage.until(member)
            return member.added

    assert asyncio.run(scenario()) == [14, 15, 16]


@pytest.mark.parametrize("position", [5, 55])
def test_token_of_a_new_epoch_that_this_process_has_not_seen_yet_is_not_taken_for_one_of_the_old(monkeypatch, position):
    """The operation may be refused for the moment; what it is sent is from the new one."""
    monkeypatch.setattr(hub_module, "POLL", 0.5)

    async def scenario():
        async with staged(MemoryLog(position=50)) as stage:
            await stage.live(BOTH)
            stage.log.reset("e2", 60)  # no ring
            member = Member()
            with contextlib.suppress(HubUnavailable):
                await stage.join(BOTH, {"after": f"e2:{position}"}, member)
            if member.subscription is None:  # again, as the refusal says
                await wait_for(lambda: stage.hub._head.epoch == "e2")
                await stage.join(BOTH, {"after": f"e2:{position}"}, member)
            await wait_for(lambda: member.errors or member.told[-1:] == [("CHECKPOINT", 60)])
            return member.code, member.told

    told = [*(("ADDED", number) for number in range(position + 1, 61)), ("CHECKPOINT", 60)]
    assert asyncio.run(scenario()) == (None, told)


# What happens to the log meanwhile


def test_log_whose_beginning_was_deleted_ends_the_operation_as_too_old():
    async def scenario():
        async with staged(MemoryLog(position=1000)) as stage:
            stage.log.holes = range(1, 501)
            member = await stage.join(BOTH, {"after": "e1:100"})
            await wait_for(lambda: member.errors)
            stage.publish()
            await stage.settled()
            return member, nothing_left(stage.hub)

    member, left = asyncio.run(scenario())
    assert member.frames == []
    assert member.code == "STREAM_TOKEN_TOO_OLD"
    assert member.errors[0]["message"].startswith("The log holds nothing before e1:501;")
    assert left


def test_those_whose_events_are_there_are_not_refused_with_those_whose_are_not():
    async def scenario():
        async with staged(MemoryLog(position=1000)) as stage:
            stage.log.holes = range(1, 151)
            before = await stage.join(BOTH, {"after": "e1:110"})
            within = await stage.join(BOTH, {"after": "e1:180"})
            at_the_edge = await stage.join(BOTH, {"after": "e1:150"})
            await wait_for(lambda: before.errors)
            await wait_for(lambda: all(one.errors or one.positions[-1:] == [1000] for one in (within, at_the_edge)))
            return before, within, at_the_edge

    before, within, at_the_edge = asyncio.run(scenario())
    assert before.code == "STREAM_TOKEN_TOO_OLD"
    assert (within.code, at_the_edge.code) == (None, None)
    assert (within.added, at_the_edge.added) == (list(range(181, 1001)), list(range(151, 1001)))


def test_hole_in_the_middle_is_never_passed_over_in_silence():
    async def scenario():
        async with staged(MemoryLog(position=1000)) as stage:
            stage.log.holes = {250}
            member = await stage.join(BOTH, {"after": "e1:100"})
            await wait_for(lambda: member.errors or member.positions[-1:] > [250])
            return member.positions, member.code

    assert asyncio.run(scenario()) == (list(range(101, 250)), "STREAM_TOKEN_TOO_OLD")


def test_who_waits_for_a_log_that_cannot_be_read_is_told_so_and_who_was_live_is_not_ended(monkeypatch):
    monkeypatch.setattr(replay_module, "PATIENCE", 0.3)

    async def scenario():
        async with staged(MemoryLog(position=3000)) as stage:
            slow = await stage.live(BOTH, member=Member(room=1))
            stage.publish(600)
            await wait_for(lambda: stage.hub._head.position == 3600)
            stage.log.fault = OSError("no database")
            slow.room = None
            stage.hub.rejoin(slow.subscription)
            heads = stage.log.heads
            await wait_for(lambda: stage.log.heads > heads + 2)  # by now the hub knows that it cannot be read
            comers = [await stage.join(BOTH, {"after": f"e1:{after}"}) for after in (0, 5, 1500)]
            await wait_for(lambda: all(comer.errors for comer in comers))
            codes = [(comer.code, comer.frames) for comer in comers]
            stage.log.fault = None
            await stage.until(slow)
            return codes, slow.added, slow.errors, len(stage.hub._all)

    codes, added, errors, left = asyncio.run(scenario())
    assert codes == [("UNAVAILABLE", [])] * 3
    assert (added, errors, left) == (list(range(3001, 3601)), [], 1)


def test_log_that_cannot_be_read_during_a_replay_loses_nothing(caplog):
    reads = Counter()

    def fail_now_and_then():
        """For the hub and for the replay, never twice together: who has just come is sent away after some seconds."""
        reads[_is_replay()] += 1
        if reads[_is_replay()] in (2, 5, 8):
            raise OSError("no database")

    async def scenario():
        async with staged(MemoryLog(position=3000)) as stage:
            stage.log.before_read = fail_now_and_then
            members = [await stage.join(BOTH, {"after": f"e1:{after}"}) for after in (0, 1500)]
            for had in (0, 500, 1000):
                await wait_for(lambda had=had: len(members[0].positions) > had)
                stage.publish(5)
                await stage.settled()
            await stage.until(*members)
            await wait_for(lambda: len(stage.members()) == 2)
            return [_fault(member, after, 3015) for member, after in zip(members, (0, 1500), strict=True)]

    assert asyncio.run(scenario()) == [None, None]
    assert "The log could not be read for a replay" in caplog.text


@pytest.mark.parametrize(("epoch", "position"), [("e2", 3), ("e1", 40), ("e2", 0)])
def test_log_that_begins_anew_during_a_replay_ends_it(epoch, position):
    async def scenario():
        async with staged(MemoryLog(position=5000)) as stage:
            await stage.live(BOTH)
            member = await stage.join(BOTH, {"after": "e1:0"})
            await wait_for(lambda: len(member.positions) > 300)
            stage.log.reset(epoch, position)
            await wait_for(lambda: member.errors)
            had = len(member.positions)
            stage.publish(3)
            await stage.settled()
            return member, len(member.positions) - had, nothing_left(stage.hub)

    member, more, left = asyncio.run(scenario())
    assert (member.code, more, left) == ("STREAM_EPOCH_CHANGED", 0, True)


@pytest.mark.parametrize(("epoch", "position"), [("e2", 3), ("e1", 40)])
def test_stream_without_a_place_that_is_replayed_goes_on_in_a_log_that_begins_anew(epoch, position):
    """A slow reader, taken off the live ones."""
    numbers = "subscription { number { position kind } }"

    async def scenario():
        async with staged() as stage:
            keeps_up = await stage.live(numbers)
            slow = await stage.live(numbers, member=Member(room=1))
            stage.publish(2000)
            await stage.until(keeps_up)
            slow.room = 300
            stage.hub.rejoin(slow.subscription)
            await wait_for(lambda: len(slow.positions) > 100)
            stage.log.reset(epoch, position)
            slow.room = None
            stage.hub.rejoin(slow.subscription)
            await wait_for(lambda: stage.hub._head == Head(epoch, position))
            stage.publish(3)
            await stage.until(keeps_up, position=position + 3)
            await wait_for(lambda: slow.positions[-1] == position + 3)
            await wait_for(lambda: len(stage.members()) == 2)
            reads, heads = stage.log.reads, stage.log.heads
            await wait_for(lambda: stage.log.heads >= heads + 2)
            return keeps_up.positions[-3:], slow.positions[-3:], stage.log.reads - reads, len(stage.members())

    expected = [position + 1, position + 2, position + 3]
    assert asyncio.run(scenario()) == (expected, expected, 0, 2)


def test_page_of_the_old_log_is_not_sent_after_it_has_begun_anew():
    """It was read, or is being read, when the hub finds that the log has begun anew."""
    numbers = "subscription { number { position kind } }"

    async def scenario():
        async with staged() as stage:
            keeps_up = await stage.live(numbers)
            slow = await stage.live(numbers, member=Member(room=1))
            stage.publish(2000)
            await stage.until(keeps_up)
            read, begun = stage.log.read, []

            def read_slowly(after, limit, fields):
                events = read(after, limit, fields)
                if after.position == 1 and not begun:
                    begun.append(after)
                    stage.log.reset("e2", 0)
                    asyncio.run_coroutine_threadsafe(wait_for(lambda: stage.hub._head.epoch == "e2"), loop).result(
                        TIMEOUT
                    )
                return events

            loop = asyncio.get_running_loop()
            stage.log.read = read_slowly
            slow.room = None
            stage.hub.rejoin(slow.subscription)
            await wait_for(lambda: stage.hub._head.epoch == "e2")
            stage.publish(3)
            await stage.until(keeps_up, position=3)
            await wait_for(lambda: keeps_up.positions[-1] == slow.positions[-1] == 3)
            await stage.settled()
            return slow.positions

    assert asyncio.run(scenario()) == [1, 1, 2, 3]
