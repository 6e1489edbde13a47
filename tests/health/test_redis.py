"""/health/redis tells what a round trip found, soon and without dialling; a process can say which Redis it is on."""

import asyncio
import json
import os
import re
import time

import pytest
import redis as redis_client
from django.conf import settings as django_settings

from health import redis as health_redis
from health import redis_view
from health.redis import identity
from tests.health.doorbell_server import CountingProxy, configured, doorbell_server, soonest
from tests.services import Redis

pytestmark = pytest.mark.services
KEYS = ["enabled", "publishClient", "subscribeClient", "connected", "url", "timestamp"]
DIALS = 2  # a second, by all who ask together
QUESTIONS = 1_000 if os.environ.get("LONG") == "1" else 400


@pytest.fixture(scope="module")
def redis():
    with Redis() as server:
        yield server


@pytest.fixture(autouse=True)
def awake(redis):
    yield
    redis.resume()


STEP_LIMIT = health_redis.STEP_LIMIT


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A busy machine is no Redis that hangs."""
    monkeypatch.setattr(health_redis, "STEP_LIMIT", 20.0)


def url_of(redis, database=0):
    return f"redis://127.0.0.1:{redis.port}/{database}"


# The answer


def test_says_that_both_clients_are_ready(redis):
    with doorbell_server(url_of(redis)) as server:
        answer = server.wait_for(200)
    assert list(answer) == KEYS
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", answer.pop("timestamp"))
    assert answer == {
        "enabled": True,
        "publishClient": "ready",
        "subscribeClient": "ready",
        "connected": True,
        "url": url_of(redis),
    }


def test_needs_no_redis_the_embedded_way():
    with doorbell_server("") as server:
        status, answer = server.ask()
    del answer["timestamp"]
    assert (status, answer) == (
        200,
        {
            "enabled": False,
            "publishClient": "not-initialized",
            "subscribeClient": "not-initialized",
            "connected": False,
            "url": None,
        },
    )


def test_url_is_the_one_that_may_be_shown(settings):
    settings.REDIS, settings.REDIS_MASKED = None, "redis://****@localhost:6379"
    _, answer = asyncio.run(redis_view.ask())
    assert answer["url"] == "redis://****@localhost:6379"


def test_process_without_a_listener_is_not_initialized(redis):
    with configured(url_of(redis)):
        status, answer = asyncio.run(redis_view.ask())
    assert (status, answer["connected"]) == (503, False)
    assert (answer["publishClient"], answer["subscribeClient"]) == ("not-initialized", "not-initialized")


def test_only_get_and_head_are_answered():
    with doorbell_server("") as server:
        assert server.ask("HEAD") == (200, None)
        assert server.ask("POST") == (405, None)


def test_answers_within_a_second_while_redis_hangs_and_is_well_soon_after(redis):
    with doorbell_server(url_of(redis)) as server:
        server.wait_for(200)
        redis.pause()
        server.wait_for(503)
        (status, answer), took = soonest(lambda: time.sleep(0.6) or server.ask(), limit=1.6)
        redis.resume()
        server.wait_for(200)
    assert took < 1.6  # with the pause, in which what others found out grows old
    assert (status, answer["connected"], answer["publishClient"]) == (503, False, "reconnecting")


def test_deaf_subscription_is_told_apart_from_a_publisher_that_works(redis):
    """A flag that was set when it subscribed would still say ready."""
    with doorbell_server(url_of(redis)) as server, redis_client.Redis(port=redis.port) as client:
        server.wait_for(200)
        deadline, answer = time.monotonic() + 60, {}
        while (answer.get("publishClient"), answer.get("subscribeClient")) != ("ready", "reconnecting"):
            assert time.monotonic() < deadline, answer
            time.sleep(0.55)  # until what was found out is forgotten
            client.client_kill_filter(_type="pubsub")  # the layer waits a second before it subscribes again
            answer = server.ask()[1]
        server.wait_for(200)
    assert answer["connected"] is False


# However many ask


async def _ask(port):
    begun = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health/redis HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    return int(head[9:12]), json.loads(body)["connected"], time.monotonic() - begun


def ask_in_parallel(port, count=QUESTIONS):
    """The answers, and the time that 99 of 100 took at most."""

    async def all_of_them():
        return await asyncio.gather(*(_ask(port) for _ in range(count)))

    answers = asyncio.run(all_of_them())
    return {answer[:2] for answer in answers}, sorted(answer[2] for answer in answers)[int(count * 0.99)]


def _hang(redis, proxy):
    redis.pause()


def _refuse(redis, proxy):
    proxy.shut = True


@pytest.mark.parametrize("fault", [_hang, _refuse], ids=["hangs", "away"])
def test_t20_a_thousand_questions_at_once_are_answered_and_dial_no_more_than_one_does(redis, fault, monkeypatch):
    with CountingProxy(redis.port) as proxy, doorbell_server(proxy.url) as server:
        server.wait_for(200)
        before = proxy.dials
        with monkeypatch.context() as patch:
            patch.setattr(redis_view, "LIMIT", 30.0)
            assert ask_in_parallel(server.port)[0] == {(200, True)}
        assert proxy.dials == before
        fault(redis, proxy)
        server.wait_for(503)
        begun, before = time.monotonic(), proxy.dials
        rounds = [ask_in_parallel(server.port) for _ in range(2)]
        while min(p99 for _, p99 in rounds) >= 1.5 and len(rounds) < 10:  # not each of them is held up
            rounds.append(ask_in_parallel(server.port))
        dials, seconds = proxy.dials - before, time.monotonic() - begun
    assert [answers for answers, _ in rounds] == [{(503, False)}] * len(rounds)
    assert min(p99 for _, p99 in rounds) < 1.5
    assert dials <= DIALS * seconds + 1  # one may have been due


def test_t20_is_not_blind_a_question_that_dials_is_counted(redis):
    with CountingProxy(redis.port) as proxy:
        proxy.shut = True
        for _ in range(20):
            with configured(proxy.url), pytest.raises(redis_client.ConnectionError):
                django_settings.REDIS.client(1.0).ping()
        assert proxy.dials >= 20


# Which Redis


def identity_at(url):
    with configured(url):
        return identity()


@pytest.fixture(scope="module")
def other_redis():
    with Redis() as server:
        yield server


def test_identity_is_equal_only_for_the_same_redis_and_database(redis, other_redis):
    own = identity_at(url_of(redis))
    assert re.fullmatch("[0-9a-f]{16}", own)
    assert identity_at(url_of(redis)) == own
    assert identity_at(url_of(redis).replace("127.0.0.1", "localhost")) == own
    assert len({own, identity_at(url_of(redis, 1)), identity_at(url_of(other_redis)), ""}) == 4


def test_identity_tells_nothing_of_the_address_and_the_token(redis):
    own = identity_at(url_of(redis))
    token = redis_client.Redis(port=redis.port).get("killmail:identity").decode()
    assert token not in own
    assert own not in token


def test_identity_of_the_embedded_way_is_none():
    assert identity_at("") == "none"


def test_identity_is_made_anew_once_when_redis_has_lost_it(redis):
    before = identity_at(url_of(redis))
    redis_client.Redis(port=redis.port).flushall()
    after = identity_at(url_of(redis))
    assert after == identity_at(url_of(redis))
    assert after not in ("", before)


def test_identity_is_empty_within_a_second_when_redis_hangs(redis, monkeypatch):
    with configured(url_of(redis)):
        own = identity()
        monkeypatch.setattr(health_redis, "STEP_LIMIT", STEP_LIMIT)
        redis.pause()

        def ask():
            health_redis._forget()  # else it would answer at once what it found out before
            return identity()

        answer, took = soonest(ask, limit=1.0)
        assert answer == ""
        assert took < 1.0
        redis.resume()
        deadline = time.monotonic() + 60
        while identity() != own:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_identity_dials_once_a_second_at_most_while_redis_is_away(redis):
    with CountingProxy(redis.port) as proxy, configured(proxy.url):
        proxy.shut = True
        begun = time.monotonic()
        assert {identity() for _ in range(200)} == {""}
        assert proxy.dials <= 1 + (time.monotonic() - begun)


def test_forked_child_has_a_connection_of_its_own(redis):
    with configured(url_of(redis)):
        own = identity()
        client = health_redis._kept._client
        pid = os.fork()
        if pid == 0:
            same = identity() == own and health_redis._kept._client is not client
            os._exit(0 if same else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert identity() == own
