"""The doorbell: rings from any thread arrive at once, and a listener that has gone deaf notices it."""

import asyncio
import contextlib
import os
import select
import socket
import threading
import time

import pytest
import redis
from channels.layers import InMemoryChannelLayer

from realtime import canary, doorbell
from realtime.doorbell import Listener, ring
from realtime.pulse import Status
from tests.services import Redis

MEMORY = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}
DEADLINE = 60.0  # seconds until a test gives up
HEARD_AGAIN = 8.0  # seconds in which a listener finds back: silence, a send that hangs, and a pause
SOON = HEARD_AGAIN if os.environ.get("LONG") == "1" else DEADLINE  # a machine that stalls takes some more
NEVER = 600.0  # seconds: what would only happen after so long, happens for another reason
SILENCE, SEND_LIMIT = doorbell.SILENCE, doorbell.SEND_LIMIT  # as they are outside of these tests


class Ear:
    """A listener in a thread with a loop of its own, as in a server; `heard` are the numbers of the rings."""

    def __init__(self, listener_class=Listener, head=0):
        self.heard = []
        self._listener = listener_class(self.heard.append, lambda: head)
        self._started = threading.Event()

    def __enter__(self):
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self._thread.start()
        self._started.wait()
        return self

    async def _run(self):
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self._listener.run())
        self._loop.call_soon(self._started.set)
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive(), "the listener did not end"

    def numbers(self):
        return list(self.heard)

    def hears(self, number, within=DEADLINE):
        """Whether a ring with this number arrives, rung anew again and again; a single one may be lost."""
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            ring(number)
            time.sleep(0.02)
            if number in self.numbers():
                return True
        return False

    def expect(self, number):
        """A ring with this number is heard; it must have been rung, once."""
        _wait_for(lambda: number in self.numbers())


@pytest.fixture(autouse=True)
def fresh(monkeypatch, settings):
    """No loop of another test; a layer in memory; and who stalls for some seconds is neither deaf nor given up."""
    settings.CHANNEL_LAYERS = MEMORY
    monkeypatch.setattr(doorbell, "_ringer", doorbell._Ringer())
    monkeypatch.setattr(doorbell, "_listener", None)
    monkeypatch.setattr(doorbell, "SILENCE", NEVER)
    monkeypatch.setattr(doorbell, "SEND_LIMIT", NEVER)


@pytest.fixture
def in_earnest(monkeypatch):
    """The limits of production."""
    monkeypatch.setattr(doorbell, "SILENCE", SILENCE)
    monkeypatch.setattr(doorbell, "SEND_LIMIT", SEND_LIMIT)


@pytest.fixture
def layer(monkeypatch):
    """Puts another layer in the place of the one that is configured."""

    def put(layer):
        monkeypatch.setattr(doorbell, "get_channel_layer", lambda: layer)
        return layer

    return put


class RecordingLayer:
    """Keeps what was sent; `hold` makes it wait, `error` makes it fail."""

    def __init__(self, error=None):
        self.sent = []
        self.error = error
        self.hold = threading.Event()
        self.hold.set()

    async def group_send(self, group, message):
        self.sent.append(message["head"])
        while not self.hold.is_set():  # noqa: ASYNC110  (set by another thread)
            await asyncio.sleep(0.001)
        if self.error:
            raise self.error


def _wait_for(condition, within=DEADLINE):
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


# Ringing


def test_ring_from_another_thread_waits_for_no_heartbeat(monkeypatch):
    monkeypatch.setattr(doorbell, "HEARTBEAT", NEVER)
    with Ear() as ear:
        assert ear.hears(1)
        for number in range(2, 12):
            ring(number)
            ear.expect(number)


def test_ring_from_many_threads_at_once_ends_with_the_newest():
    with Ear() as ear:
        assert ear.hears(1)
        threads = [threading.Thread(target=ring, args=[number]) for number in range(2, 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ring(50)
        ear.expect(50)


def test_ring_needs_no_listener():
    ring(1)


def test_rings_while_one_is_on_its_way_become_one(layer):
    recording = layer(RecordingLayer())
    recording.hold.clear()
    ring(1)
    _wait_for(lambda: recording.sent == [1])
    for number in range(2, 1000):
        ring(number)
    recording.hold.set()
    _wait_for(lambda: recording.sent == [1, 999])
    time.sleep(0.05)
    assert recording.sent == [1, 999]


def test_last_ring_is_never_left_lying(layer):
    recording = layer(RecordingLayer())
    for number in range(1, 3000):
        ring(number)
    _wait_for(lambda: recording.sent[-1:] == [2999])


@pytest.mark.parametrize("error", [OSError("no Redis"), RuntimeError("x"), TypeError("x")], ids=repr)
def test_broken_layer_is_a_warning_and_the_next_ring_goes_out(layer, caplog, error):
    recording = layer(RecordingLayer(error))
    ring(7)
    _wait_for(lambda: "cannot ring for position 7" in caplog.text)
    recording.error = None
    ring(8)
    _wait_for(lambda: recording.sent == [7, 8])
    _wait_for(lambda: caplog.records[1:])
    kind = type(error).__name__
    assert [record.getMessage() for record in caplog.records] == [
        f"The doorbell cannot ring for position 7 ({kind}).", "The doorbell rings again.",
    ]  # fmt: skip


def test_process_that_could_not_ring_and_was_never_deaf_says_once_that_it_rings_again(layer, caplog):
    class Failing(InMemoryChannelLayer):
        error = None

        async def group_send(self, group, message):
            if self.error:
                raise self.error
            await super().group_send(group, message)

    failing = layer(Failing())
    with Ear() as ear:
        assert ear.hears(1)
        failing.error = OSError("no Redis")
        ring(2)
        _wait_for(lambda: "cannot ring" in caplog.text)
        failing.error = None
        assert ear.hears(3)
        assert ear.hears(4)
    told = [record.getMessage() for record in caplog.records if record.name == "realtime.doorbell"]
    assert told[0].startswith("The doorbell cannot ring for position ")  # of a ring, or a heartbeat
    assert told[1:] == ["The doorbell rings again."]


def test_hanging_layer_holds_nobody_up(layer):
    recording = layer(RecordingLayer())
    recording.hold.clear()
    ring(1)
    _wait_for(lambda: recording.sent == [1])
    for number in range(2, 101):
        ring(number)
    assert recording.sent == [1]  # it hangs still, and we are here
    recording.hold.set()
    _wait_for(lambda: recording.sent == [1, 100])


def test_hanging_layer_is_given_up(layer, monkeypatch, caplog):
    monkeypatch.setattr(doorbell, "SEND_LIMIT", 0.3)
    recording = layer(RecordingLayer())
    recording.hold.clear()
    ring(1)
    _wait_for(lambda: recording.sent == [1])
    ring(100)
    _wait_for(lambda: recording.sent == [1, 100])
    recording.hold.set()
    ring(101)
    _wait_for(lambda: recording.sent[-1] == 101)
    assert "cannot ring for position 1 (TimeoutError)" in caplog.text


def test_ring_goes_out_again_after_the_loop_that_carried_one_has_ended(layer):
    recording = layer(RecordingLayer())
    recording.hold.clear()
    with Ear():
        ring(1)
        _wait_for(lambda: 1 in recording.sent)
    recording.hold.set()
    ring(2)
    _wait_for(lambda: recording.sent[-1] == 2)


def test_forked_child_can_ring(layer):
    with Ear() as ear:
        assert ear.hears(1)
        pid = os.fork()
        if pid == 0:
            recording = RecordingLayer()
            doorbell.get_channel_layer = lambda: recording
            ring(5)
            deadline = time.monotonic() + DEADLINE
            while recording.sent != [5] and time.monotonic() < deadline:
                time.sleep(0.01)
            os._exit(0 if recording.sent == [5] else 1)
        assert os.waitpid(pid, 0)[1] == 0


# Listening


def test_listener_rings_for_itself_with_the_head_that_it_knows(monkeypatch):
    monkeypatch.setattr(doorbell, "HEARTBEAT", 0.05)
    with Ear(head=42) as ear:
        _wait_for(lambda: ear.numbers().count(42) >= 3)


def test_listener_makes_a_new_connection_when_it_hears_nothing(monkeypatch, layer):
    class Deaf(InMemoryChannelLayer):
        """Sends nothing; counts how often it was made anew."""

        flushed = 0

        async def group_send(self, group, message):
            pass

        async def flush(self):
            self.flushed += 1
            await super().flush()

    monkeypatch.setattr(doorbell, "HEARTBEAT", 0.02)
    monkeypatch.setattr(doorbell, "SILENCE", 0.1)
    deaf = layer(Deaf())
    with Ear():
        _wait_for(lambda: deaf.flushed >= 3)


def test_listener_outlives_a_layer_that_fails_for_a_while(monkeypatch, layer):
    class Failing(InMemoryChannelLayer):
        fails = True

        async def new_channel(self, prefix="specific."):
            if self.fails:
                raise OSError("no Redis")
            return await super().new_channel(prefix)

        async def flush(self):
            raise OSError("no Redis")

    monkeypatch.setattr(doorbell, "HEARTBEAT", 0.02)
    failing = layer(Failing())
    with Ear() as ear:
        time.sleep(0.2)
        assert ear.heard == []
        failing.fails = False
        assert ear.hears(5)


def test_listener_ends_when_it_is_cancelled_at_any_moment(monkeypatch):
    monkeypatch.setattr(doorbell, "HEARTBEAT", 0.001)
    monkeypatch.setattr(doorbell, "SILENCE", 0.002)
    for delay in range(40):
        with Ear():
            time.sleep(delay * 0.0005)


# What is proven


def test_process_without_a_listener_has_no_connections():
    assert doorbell.status() == asyncio.run(doorbell.check(1.0)) == Status("not-initialized", "not-initialized", None)


def test_heartbeat_that_comes_back_proves_both_connections_to_any_event_loop():
    begun = time.monotonic()
    with Ear():
        _wait_for(lambda: asyncio.run(doorbell.check(1.0)).connected)
        status = doorbell.status()
        assert (status.publish, status.subscribe) == ("ready", "ready")
        assert 0 < status.round_trip < time.monotonic() - begun
    status = asyncio.run(doorbell.check(1.0))
    assert (status.publish, status.subscribe, status.connected) == ("end", "end", False)


def test_heartbeat_of_another_process_proves_the_subscription_only(layer, monkeypatch):
    class Foreign(InMemoryChannelLayer):
        """What is sent arrives as if another process had sent it."""

        async def group_send(self, group, message):
            await super().group_send(group, message | {"from": "elsewhere:1:aa"})

    monkeypatch.setattr(doorbell, "HEARTBEAT", 0.05)
    layer(Foreign())
    with Ear() as ear:
        _wait_for(lambda: ear.heard)
        seen = []
        _wait_for(lambda: seen.append(asyncio.run(doorbell.check(0.3))) or seen[-1].publish == "ready")
    assert seen[-1] == Status("ready", "ready", None)
    assert not any(status.connected for status in seen)


def test_those_who_ask_together_share_one_heartbeat(layer, monkeypatch):
    class Counting(InMemoryChannelLayer):
        """Sends nothing before so many have asked."""

        sent, asked, wanted = 0, 0, 0

        async def group_send(self, group, message):
            self.sent += 1
            while self.asked < self.wanted:  # noqa: ASYNC110  (as above)
                await asyncio.sleep(0.001)
            await super().group_send(group, message)

    class Asked(Listener):
        async def check(self, within):
            counting.asked += 1
            return await super().check(within)

    async def ask(count):
        counting.wanted = counting.asked + count
        return await asyncio.gather(*(doorbell.check(DEADLINE) for _ in range(count)))

    monkeypatch.setattr(doorbell, "HEARTBEAT", NEVER)
    counting = layer(Counting())
    with Ear(Asked):
        _wait_for(lambda: asyncio.run(doorbell.check(1.0)).connected)
        time.sleep(doorbell.FRESH)
        before = counting.sent
        assert all(status.connected for status in asyncio.run(ask(100)))
        assert counting.sent == before + 1


def test_failing_connection_is_not_tried_more_often_because_somebody_asks(layer, monkeypatch):
    monkeypatch.setattr(doorbell, "HEARTBEAT", 0.1)
    monkeypatch.setattr(doorbell, "FRESH", 0.0)
    broken = layer(BrokenLayer())
    with Ear():
        _wait_for(lambda: broken.sent)
        begun, before = time.monotonic(), broken.sent
        for _ in range(50):
            asyncio.run(doorbell.check(0.01))
        assert broken.sent - before <= (time.monotonic() - begun) / 0.1 + 1


class BrokenLayer(InMemoryChannelLayer):
    sent = 0

    async def group_send(self, group, message):
        self.sent += 1
        raise OSError("no Redis")


# Canaries


async def _beside_a_listener(scenario, **more):
    """In one loop: a layer in memory reaches no further. The result, and what the listener would have looked for."""
    woken = []
    listening = asyncio.create_task(Listener(woken.append, lambda: 0, **more).run())
    await asyncio.sleep(0)
    try:
        return await scenario, woken
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


def test_canary_is_answered_by_who_listens_and_wakes_nobody(monkeypatch):
    monkeypatch.setattr(doorbell, "HEARTBEAT", NEVER)
    monkeypatch.setattr(canary, "LATER", 0.05)
    flight, woken = asyncio.run(_beside_a_listener(canary.send_canary(DEADLINE)))
    assert list(flight.answers) == [doorbell.own_id()]
    assert all(0 < seconds < DEADLINE for seconds in (flight.heard, *flight.answers.values()))
    assert woken == []


def test_who_only_overhears_answers_no_canary():
    overheard, answers = [], {}

    async def scenario():
        while "doorbell.canary" not in [message["type"] for message in overheard]:
            answers.update((await canary.send_canary(0.3)).answers)

    asyncio.run(_beside_a_listener(scenario(), overheard=overheard.append))
    assert answers == {}


def test_canary_that_is_none_harms_nobody(monkeypatch):
    monkeypatch.setattr(canary, "LATER", 0.05)

    async def scenario():
        for message in ({"type": "doorbell.canary"}, {"type": "doorbell.canary", "sent": 1, "reply": "no such"}, {}):
            await doorbell.get_channel_layer().group_send(doorbell.GROUP, message)
        return await canary.send_canary(DEADLINE)

    flight, _ = asyncio.run(_beside_a_listener(scenario()))
    assert list(flight.answers) == [doorbell.own_id()]


# With a real Redis


@pytest.fixture(scope="module")
def redis_server():
    with Redis() as server:
        yield server


@pytest.fixture
def pubsub(redis_server, settings):
    """The layer of production, on a Redis that only this module uses."""
    settings.CHANNEL_LAYERS = _pubsub_layer(redis_server.port)
    return redis_server


def _pubsub_layer(port):
    hosts = [{"address": f"redis://127.0.0.1:{port}/0", "socket_timeout": None}]
    backend = "channels_redis.pubsub.RedisPubSubChannelLayer"
    return {"default": {"BACKEND": backend, "CONFIG": {"hosts": hosts, "prefix": "killmail:"}}}


@pytest.mark.services
def test_ring_through_redis_waits_for_no_heartbeat(pubsub, monkeypatch):
    monkeypatch.setattr(doorbell, "HEARTBEAT", NEVER)
    with Ear() as ear:
        assert ear.hears(1)
        for number in range(2, 30):
            ring(number)
            ear.expect(number)


@pytest.mark.services
def test_quiet_listener_hears_after_longer_than_any_timeout(pubsub, monkeypatch):
    monkeypatch.setattr(doorbell, "HEARTBEAT", NEVER)
    with Ear() as ear:
        assert ear.hears(1)
        time.sleep(5.5)  # redis-py's own limit is 5 s
        ring(2)
        ear.expect(2)


def _flush_all(server):
    with redis.Redis(port=server.port) as client:
        client.flushall()


def _kill_clients(server):
    with redis.Redis(port=server.port) as client:
        for kind in ("normal", "pubsub"):
            client.client_kill_filter(_type=kind, skipme=True)


def _kill_and_start(server):
    server.kill()
    time.sleep(1.0)
    server.start()


def _pause_for_5_seconds(server):
    server.pause()
    time.sleep(5.0)
    server.resume()


FAULTS = [_flush_all, _kill_clients, Redis.restart, _kill_and_start, _pause_for_5_seconds]


@pytest.mark.services
@pytest.mark.usefixtures("in_earnest")
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_listener_hears_again_after(pubsub, fault):
    with Ear() as ear:
        assert ear.hears(1)
        fault(pubsub)
        assert ear.hears(2, within=SOON), f"deaf after {fault.__name__}"
        for number in range(3, 8):  # and stays so
            assert ear.hears(number)


@pytest.mark.services
@pytest.mark.usefixtures("in_earnest")
def test_ring_holds_nobody_up_while_redis_hangs(pubsub):
    with Ear() as ear:
        assert ear.hears(1)
        pubsub.pause()
        try:
            started = time.monotonic()
            for number in range(2, 500):
                ring(number)
            assert time.monotonic() - started < DEADLINE  # and not two seconds for each
        finally:
            pubsub.resume()


class Proxy:
    """Between clients and Redis; `freeze` makes today's connections half-open: nothing passes, nobody is told."""

    def __init__(self, port):
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._pairs, self._frozen, self._ended = [], [], False

    def __enter__(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended = True
        self._thread.join(DEADLINE)
        for each in [self._listening, *(end for pair in self._pairs + self._frozen for end in pair)]:
            each.close()

    def freeze(self):
        self._pairs, frozen = [], self._pairs
        self._frozen += frozen

    def _run(self):
        while not self._ended:
            pairs = list(self._pairs)
            other = {a: b for one, two in pairs for a, b in ((one, two), (two, one))}
            for ready in select.select([self._listening, *other], [], [], 0.02)[0]:
                if ready is self._listening:
                    self._pairs.append((ready.accept()[0], socket.create_connection(("127.0.0.1", self._target))))
                elif any(ready in pair for pair in self._pairs):
                    self._pass_on(ready, other[ready])

    def _pass_on(self, source, target):
        data = b""
        with contextlib.suppress(OSError):
            data = source.recv(65536)
            target.sendall(data)
        if not data:
            self._pairs = [pair for pair in self._pairs if source not in pair]
            source.close()
            target.close()


class Trusting(Listener):
    """Known to be wrong: trusts its connection, however silent."""

    async def _listen_until_silent(self):
        await self._read()


@pytest.mark.services
@pytest.mark.usefixtures("in_earnest")
def test_listener_hears_again_after_its_connections_are_half_open(redis_server, settings):
    with Proxy(redis_server.port) as proxy:
        settings.CHANNEL_LAYERS = _pubsub_layer(proxy.port)
        with Ear() as ear:
            assert ear.hears(1)
            proxy.freeze()
            assert ear.hears(2, within=SOON)


@pytest.mark.services
@pytest.mark.usefixtures("in_earnest")
def test_listener_that_trusts_a_half_open_connection_stays_deaf(redis_server, settings):
    with Proxy(redis_server.port) as proxy:
        settings.CHANNEL_LAYERS = _pubsub_layer(proxy.port)
        with Ear(Trusting) as ear:
            assert ear.hears(1)
            proxy.freeze()
            assert not ear.hears(2, within=HEARD_AGAIN)
