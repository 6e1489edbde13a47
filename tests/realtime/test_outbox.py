"""What one socket is still to be sent: at once, in line, or no more."""

import asyncio
import gc
from types import SimpleNamespace

import pytest

from realtime import outbox as outbox_module
from realtime.outbox import Outbox, send_now


class Peer:
    """What a server's `send` does: writes, where the peer reads; waits before, where it does not."""

    def __init__(self):
        self.got = []
        self.fault = None
        self.takes_one = False  # each time that it is told to read
        self.reads = asyncio.Event()
        self.reads.set()
        self.events = []
        self.outbox = Outbox(
            self.send,
            lambda: self.events.append("drained"),
            lambda: self.events.append("stuck"),
            lambda: self.events.append("gone"),
        )

    async def send(self, message):
        await self.reads.wait()
        if self.takes_one:
            self.reads.clear()
        if self.fault:
            raise self.fault
        self.got.append(message["text"])


async def _settle():
    for _ in range(20):
        await asyncio.sleep(0)


def _run(scenario):
    async def limited():
        async with asyncio.timeout(60):
            return await scenario

    return asyncio.run(limited())


def _tasks():
    return len(asyncio.all_tasks())


# send_now


def test_send_that_never_waits_is_done_at_once_without_a_task():
    async def scenario():
        peer, before = Peer(), _tasks()
        unfinished = send_now(peer.send({"text": "a"}))
        return unfinished, peer.got, _tasks() - before

    assert _run(scenario()) == (None, ["a"], 0)


def test_send_that_waits_can_be_awaited_to_its_end():
    async def scenario():
        peer = Peer()
        peer.reads.clear()
        unfinished = send_now(peer.send({"text": "a"}))
        asyncio.get_running_loop().call_later(0.01, peer.reads.set)
        before = list(peer.got)
        await unfinished
        return before, peer.got

    assert _run(scenario()) == ([], ["a"])


def test_send_that_waits_several_times_goes_on_after_each():
    async def scenario():
        steps = []

        async def send():
            for number in range(3):
                await asyncio.sleep(0)
                await asyncio.sleep(0.001)
                steps.append(number)

        await send_now(send())
        return steps

    assert _run(scenario()) == [0, 1, 2]


def test_send_that_raises_raises_here():
    async def send():
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        send_now(send())


def test_cancelled_send_is_closed():
    async def scenario():
        ends = []

        async def send():
            try:
                await asyncio.Event().wait()
            finally:
                ends.append("closed")

        async def whole():
            await unfinished

        unfinished = send_now(send())
        task = asyncio.create_task(whole())
        await _settle()
        task.cancel()
        await asyncio.wait([task])
        return ends, task.cancelled()

    assert _run(scenario()) == (["closed"], True)


# At once, or in line


def test_peer_that_reads_is_sent_everything_at_once_and_costs_no_task():
    async def scenario():
        peer, before = Peer(), _tasks()
        put = [peer.outbox.put('{"id":"1","payload":', str(number), self, number) for number in range(1000)]
        return all(put), peer.got[:2], len(peer.got), _tasks() - before, peer.events

    self = object()
    expected = ['{"id":"1","payload":0}', '{"id":"1","payload":1}']
    assert _run(scenario()) == (True, expected, 1000, 0, [])


def test_frame_of_its_own_is_sent_as_it_is():
    async def scenario():
        peer = Peer()
        peer.outbox.put('{"type":"pong"}')
        return peer.got

    assert _run(scenario()) == ['{"type":"pong"}']


def test_order_is_kept_when_the_peer_stops_and_reads_again():
    async def scenario():
        peer = Peer()
        for number in range(100):
            if number % 10 == 3:
                peer.reads.clear()
            if number % 10 == 8:
                peer.reads.set()
            if number % 4 == 0:
                await asyncio.sleep(0)
            assert peer.outbox.put(f"{number}")
        peer.reads.set()
        await _settle()
        return peer.got, peer.events[-1], _tasks()

    got, last, tasks = _run(scenario())
    assert got == [str(number) for number in range(100)]
    assert last == "drained"
    assert tasks == 1


def test_line_takes_so_many_messages_and_no_more():
    async def scenario():
        peer = Peer()
        peer.reads.clear()
        put = [peer.outbox.put("x", "y") for _ in range(300)]
        peer.reads.set()
        await _settle()
        again = peer.outbox.put("z")
        return put.count(True), put[-1], len(peer.got), peer.got[-1], again, peer.events

    assert outbox_module.MAX_WAITING == 256
    assert _run(scenario()) == (256, False, 257, "z", True, ["drained"])


def test_line_takes_so_many_characters_and_one_larger_message():
    async def scenario():
        peer = Peer()
        peer.reads.clear()
        large = "y" * (outbox_module.MAX_WAITING_SIZE + 1)
        first = peer.outbox.put("x", large)
        second = peer.outbox.put("x", "y")
        peer.reads.set()
        await _settle()
        peer.reads.clear()
        put = [peer.outbox.put("x", "y" * (outbox_module.MAX_WAITING_SIZE // 4 - 1)) for _ in range(5)]
        return first, second, put

    assert _run(scenario()) == (True, False, [True, True, True, True, True])


def test_two_large_answers_find_room_one_after_the_other():
    """Each is followed by a message of its own, which must not make the next answer too much."""

    async def scenario():
        peer = Peer()
        peer.reads.clear()
        large = "y" * (outbox_module.MAX_WAITING_SIZE - 10)
        put = [peer.outbox.put("x", large), peer.outbox.put("end"), peer.outbox.put("x", large)]
        return put, peer.outbox.put("end"), peer.outbox.put("one more")

    assert _run(scenario()) == ([True, True, True], False, False)


def test_frames_of_its_own_count_in_the_line_as_results_do():
    """Pongs are as long as the pings were."""

    async def scenario():
        peer = Peer()
        peer.reads.clear()
        return [peer.outbox.put("x" * 60_000) for _ in range(40)].count(True)

    assert _run(scenario()) <= 18


def test_first_that_waits_is_known_for_each_owner():
    async def scenario():
        peer, one, other = Peer(), object(), object()
        before = peer.outbox.first_waiting(one)
        peer.reads.clear()
        for owner, position in [(other, 4), (one, 5), (one, 6), (None, 0)]:
            peer.outbox.put("x", "y", owner, position)
        await asyncio.sleep(0)
        waiting = [peer.outbox.first_waiting(owner) for owner in (one, other, object())]
        peer.reads.set()
        await _settle()
        return before, waiting, peer.outbox.first_waiting(one)

    assert _run(scenario()) == (None, [5, 4, None], None)


# The end


@pytest.mark.parametrize("waits", [False, True])
def test_peer_that_is_gone_is_found_once(waits):
    async def scenario():
        peer = Peer()
        peer.fault = OSError("gone")
        if waits:
            peer.reads.clear()
        put = [peer.outbox.put("x") for _ in range(3)]
        peer.reads.set()
        await _settle()
        put.append(peer.outbox.put("x"))
        return put, peer.events, peer.outbox.closed, peer.got

    assert _run(scenario()) == ([True] * 4, ["gone"], True, [])


def _clock_of_the_loop():
    """Moves on when it is told to, so that a machine that stalls changes nothing."""
    loop = asyncio.get_running_loop()
    clock = SimpleNamespace(now=loop.time())
    loop.time = lambda: clock.now
    return clock


def test_message_that_takes_too_long_is_said_once(monkeypatch):
    monkeypatch.setattr(outbox_module, "SEND_LIMIT", 10.0)

    async def scenario():
        peer, clock = Peer(), _clock_of_the_loop()
        peer.reads.clear()
        for _ in range(5):
            peer.outbox.put("x")
        seen = []
        for seconds in (9.9, 0.2, 20.0):
            await _settle()
            clock.now += seconds
            await _settle()
            seen.append(list(peer.events))
        return seen, peer.got

    assert _run(scenario()) == ([[], ["stuck"], ["stuck"]], [])


def test_slow_peer_that_takes_each_message_in_time_is_not_stuck(monkeypatch):
    monkeypatch.setattr(outbox_module, "SEND_LIMIT", 10.0)

    async def scenario():
        peer, clock = Peer(), _clock_of_the_loop()
        peer.reads.clear()
        peer.takes_one, had = True, []
        for _ in range(8):
            peer.outbox.put("x")
        for _ in range(8):
            await _settle()
            clock.now += 4.0
            peer.reads.set()
            await _settle()
            had.append(len(peer.got))
        return peer.events, had

    assert _run(scenario()) == (["drained"], list(range(1, 9)))


def test_forgotten_line_is_not_sent_and_its_task_ends():
    async def scenario():
        peer = Peer()
        peer.reads.clear()
        for _ in range(5):
            peer.outbox.put("x")
        peer.outbox.forget()
        peer.reads.set()
        await _settle()
        gc.collect()
        return peer.got, peer.outbox.put("x"), peer.got, peer.events, _tasks()

    assert _run(scenario()) == ([], True, [], [], 1)


def test_finish_sends_what_is_in_line_and_takes_no_more():
    async def scenario():
        peer = Peer()
        peer.reads.clear()
        for number in range(5):
            peer.outbox.put(str(number))
        asyncio.get_running_loop().call_later(0.02, peer.reads.set)
        finishing = asyncio.create_task(peer.outbox.finish())
        await asyncio.sleep(0)
        peer.outbox.put("late")
        await finishing
        return peer.got, peer.events

    assert _run(scenario()) == (["0", "1", "2", "3", "4"], [])


def test_finish_of_a_peer_that_reads_does_not_wait():
    async def scenario():
        peer = Peer()
        peer.outbox.put("x")
        return send_now(peer.outbox.finish()), peer.got

    assert _run(scenario()) == (None, ["x"])
