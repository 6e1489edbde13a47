"""What the board's user of Redis must be allowed beside pub/sub, for the limits of ESI that all workers count there.

Asked with each command itself, on a key of our own: `ACL DRYRUN` would be a right more, which managed ones refuse.
"""

import hashlib
from dataclasses import replace
from typing import Any

import redis
from django.conf import settings

KEY = "diagnose:rights"  # after the prefix
KEPT = 60  # seconds; then the key is gone, also where HDEL is refused
SCRIPT = "return 1"  # what a script may do, its user may do without one
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

Refused = dict[str, str]  # by command: the kind of error


def refused(limit: float) -> Refused:
    """What Redis does not let us do; empty where it lets us do all. `limit`: seconds for each step.

    May run twice. Raises redis.RedisError or OSError where Redis cannot be asked.
    """
    try:
        return _ask(settings.REDIS, limit)
    except redis.exceptions.MovedError:  # a cluster behind one address, as managed ones are
        return _ask(replace(settings.REDIS, kind="redis+cluster"), limit)


def _ask(address: Any, limit: float) -> Refused:
    found: Refused = {}
    with address.client(limit) as client:
        for command, *words in _questions(f"{address.prefix}{KEY}"):
            try:
                client.execute_command(command, *words)
            except (redis.exceptions.AskError, redis.exceptions.ClusterDownError):  # of a cluster: not about rights
                raise
            except redis.exceptions.NoScriptError:  # it could not be loaded, and might be run
                continue
            except redis.exceptions.ResponseError as error:
                found[command] = type(error).__name__
    return found


def _questions(key: str) -> list[tuple[str, ...]]:
    """What killmails/upstream/budget.lua calls and what runs it, which this package may not import: a test compares."""
    return [
        ("TIME",),
        ("HSET", key, "count", "1"),
        ("EXPIRE", key, str(KEPT)),
        ("HGETALL", key),
        ("SCRIPT LOAD", SCRIPT),
        ("EVALSHA", SHA, "1", key),
        ("HDEL", key, "count"),  # the last one; with it the key is gone
    ]
