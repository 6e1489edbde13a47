"""What `manage.py diagnose_redis` tests, in this order, up to the first failure.

The canary of the fourth and the fifth test goes the way of every ring, and wakes nobody: no client of the API sees it.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import redis
from django.conf import settings

from health import redis_rights
from health.same_redis import Unasked, elsewhere, strangers
from realtime.canary import Flight, send_canary

STEP_LIMIT = 2.0  # seconds for each step of a test
CANARY_LIMIT = 4.0  # seconds until a server that has not answered counts as silent


@dataclass(frozen=True)
class Result:
    """`passed`: None where it could not be asked. `details`: one line for each thing to be named."""

    number: int
    name: str
    passed: bool | None
    text: str
    details: list[str] = field(default_factory=list)
    seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Failed(Exception):
    """A test that did not pass, in words."""


def diagnose() -> Iterator[Result]:
    """Each result as soon as it is known; the last one is that of the test that failed, if one did."""
    flight = Flight()
    tests: list[tuple[str, Callable[[], tuple[str, list[str]]]]] = [
        ("Environment", _test_environment),
        ("PING", _test_ping),
        ("Publish and subscribe", _test_pubsub),
        ("Killmail channel", lambda: _test_channel(flight)),
        ("Canary", lambda: _test_canary(flight)),
        ("Same Redis", lambda: _test_processes(flight)),
    ]
    for number, (name, test) in enumerate(tests, 1):
        result = _run(number, name, test)
        yield result
        if not result.passed:
            return


def _run(number: int, name: str, test: Callable[[], tuple[str, list[str]]]) -> Result:
    begun = time.monotonic()
    passed: bool | None = True
    details: list[str] = []
    try:
        text, details = test()
    except Unasked as error:
        passed, text = None, str(error)
    except Failed as error:
        passed, (text, *details) = False, error.args
    except (redis.RedisError, OSError) as error:  # a time-out is an OSError, too
        passed, text = False, _cause(error)
    return Result(number, name, passed, text, details, round(time.monotonic() - begun, 6))


def _cause(error: Exception) -> str:
    """In words of ours: a driver's text may hold what was written in the address."""
    if isinstance(error, redis.AuthenticationError | redis.exceptions.NoPermissionError):
        return "Redis refused the user or the password: see REDIS_URL and REDIS_PASSWORD."
    if isinstance(error, redis.TimeoutError | TimeoutError):
        return f"Redis did not answer within {STEP_LIMIT:.0f} s: does it hang, or does something between swallow it?"
    kind = type(error).__name__
    return f"Redis at {settings.REDIS} does not answer ({kind}): is it running, and is REDIS_URL right?"


def _test_environment() -> tuple[str, list[str]]:
    if settings.REDIS is None:
        missing = "USE_REDIS_PUBSUB is false" if settings.REDIS_URL else "REDIS_URL is not set"
        raise Failed(
            f"{missing}, so this board uses no Redis: its pub/sub reaches one process only. For more than one, "
            "set REDIS_URL and USE_REDIS_PUBSUB=true for each of them."
        )
    return f"USE_REDIS_PUBSUB=true, REDIS_URL={settings.REDIS_MASKED}", []


def _test_ping() -> tuple[str, list[str]]:
    """And whether this user may count there what is asked of ESI: without it a board works, and has no names."""
    begun = time.monotonic()
    settings.REDIS.ping(STEP_LIMIT)
    took = time.monotonic() - begun
    refused = redis_rights.refused(STEP_LIMIT)
    if refused:
        commands, kinds = ", ".join(refused), ", ".join(sorted(set(refused.values())))
        raise Failed(
            f"Redis answers, and refuses {commands} with keys {settings.REDIS.prefix}* ({kinds}), so that ESI cannot "
            "be asked within its limits: docs/troubleshooting.md lists the rights of the board's user."
        )
    return f"dialled and answered in {_ms(took)}", []


def _test_pubsub() -> tuple[str, list[str]]:
    """On a channel of its own, to which nobody else listens."""
    channel = f"{settings.REDIS.prefix}diagnose:{secrets.token_hex(8)}"
    word = secrets.token_bytes(8)
    with settings.REDIS.client(STEP_LIMIT) as client, client.pubsub() as pubsub:
        pubsub.subscribe(channel)
        pubsub.get_message(timeout=STEP_LIMIT)  # that it is subscribed
        begun = time.monotonic()
        client.publish(channel, word)
        message = pubsub.get_message(timeout=STEP_LIMIT)
    if not message or message["data"] != word:
        raise Failed("Redis takes what is published, and does not hand it on: may this user use PUBLISH and SUBSCRIBE?")
    return f"a message on a channel of its own came back in {_ms(time.monotonic() - begun)}", []


def _test_channel(flight: Flight) -> tuple[str, list[str]]:
    _fly(flight)
    if flight.heard is None:
        raise Failed(
            "A canary on the channel of the killmails did not come back, though a test channel works: "
            f"may this user use the channels {settings.REDIS.prefix}*?"
        )
    return f"a canary on the channel of the killmails came back in {_ms(flight.heard)}", []


def _fly(flight: Flight) -> None:
    try:
        found = asyncio.run(send_canary(CANARY_LIMIT))
    except (redis.RedisError, OSError) as error:
        raise Failed(_cause(error)) from error
    flight.heard = flight.heard if found.heard is None else found.heard
    flight.answers |= found.answers


def _test_canary(flight: Flight) -> tuple[str, list[str]]:
    if not flight.answers:
        # It may be this process that is on another Redis than all others: the database knows where they are.
        raise Failed("no server answered: is one running, and with this REDIS_URL?", *elsewhere())
    servers = "server" if len(flight.answers) == 1 else "servers"
    details = [f"server {process} in {_ms(seconds)}" for process, seconds in sorted(flight.answers.items())]
    return f"{len(flight.answers)} {servers} answered", details


def _test_processes(flight: Flight) -> tuple[str, list[str]]:
    def answered() -> set[str]:
        return set(flight.answers)

    number, faults = strangers(answered, lambda: _fly(flight))
    if faults:
        raise Failed(f"{len(faults)} of {number} processes of the board are not where this one is, or silent:", *faults)
    return f"{number} living processes of the board, all on this Redis", []


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
