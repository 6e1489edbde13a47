"""ESI as this process asks it; nothing else here knows the settings."""

import os
from dataclasses import replace
from typing import Any

from django.conf import settings

from killmails.ingest.esi_store import DatabaseStore, KeptAnswers
from killmails.upstream.budget import Budget, Store
from killmails.upstream.budget_redis import RedisStore
from killmails.upstream.esi import Esi

STEP_LIMIT = 0.4  # seconds for connecting to Redis, and as many for its answer

_kept: Esi | None = None


def esi() -> Esi | None:
    """The client of this process; None where there is no ESI, since a recording's pilots are invented."""
    global _kept  # noqa: PLW0603
    if settings.FEED == "recorded":
        return None
    if _kept is None:
        _kept = Esi(settings.ESI_URL, settings.CONTACT, Budget(_store()), KeptAnswers())
    return _kept


def _store() -> Store:
    """Where all workers of the board look: each in its own way would let them ask more than ESI allows."""
    if settings.REDIS is None:
        return DatabaseStore()
    return RedisStore(_connect, settings.REDIS.prefix)


def _connect(cluster: bool) -> Any:
    address = replace(settings.REDIS, kind="redis+cluster") if cluster else settings.REDIS
    return address.client(STEP_LIMIT)


def _forget() -> None:
    """In a forked child: a connection has one owner."""
    global _kept  # noqa: PLW0603
    _kept = None


os.register_at_fork(after_in_child=_forget)
