"""Which Redis this process talks to: a name for it that two processes can compare, and that tells no secret."""

import hashlib
import logging
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

import redis
from django.conf import settings

logger = logging.getLogger(__name__)

KEY = "identity"  # after the prefix; holds the token that the first process left there
STEP_LIMIT = 0.3  # seconds for each step of an answer
NONE = "none"  # without Redis
AWAY = ""


class _Kept:
    """One connection for all who ask in this process; dialled anew only a second after it failed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Any = None
        self._failed = float("-inf")

    def token(self) -> bytes | None:
        with self._lock:
            if time.monotonic() - self._failed < 1.0:
                return None
            try:
                return self._ask()
            except (redis.RedisError, OSError) as error:
                logger.debug("Redis does not tell which one it is (%s).", type(error).__name__)
                self._failed = time.monotonic()
                client, self._client = self._client, None
                with suppress(Exception):
                    client.close()
                return None

    def _ask(self) -> bytes:
        if self._client is None:
            self._client = settings.REDIS.client(STEP_LIMIT)
        try:
            return _token(self._client)
        except redis.exceptions.MovedError:  # a cluster behind one address, as managed ones are
            self._client.close()
            self._client = replace(settings.REDIS, kind="redis+cluster").client(STEP_LIMIT)
            return _token(self._client)


def _token(client: Any) -> bytes:
    """No INFO, which managed ones refuse; a replica and a cluster can answer this, too."""
    key = f"{settings.REDIS.prefix}{KEY}"
    token = client.get(key)
    if token is None:  # two at once: one of them leaves its own, and both read that
        client.set(key, secrets.token_hex(16), nx=True)
        token = client.get(key)
    return bytes(token or b"")


_kept = _Kept()


def identity() -> str:
    """Equal for two processes exactly when they talk to the same Redis, database and prefix.

    "none" without Redis, "" when it cannot be reached within a second. It changes when Redis loses its data, for all
    processes within a heartbeat of theirs.
    """
    if settings.REDIS is None:
        return NONE
    token = _kept.token()
    if not token:
        return AWAY
    return hashlib.sha256(settings.REDIS.prefix.encode() + token).hexdigest()[:16]


def _forget() -> None:
    """In a forked child: a connection has one owner."""
    global _kept  # noqa: PLW0603
    _kept = _Kept()


os.register_at_fork(after_in_child=_forget)
