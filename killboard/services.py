"""Asks each configured service once whether it answers, before a process begins its work."""

import logging
import ssl
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from urllib.parse import urlsplit

import amqp
import psycopg
import redis
from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from kombu import Connection

from killboard.checks import obey_checks

logger = logging.getLogger(__name__)

LIMIT = 5  # seconds for each service


class ServiceError(Exception):
    """A service that is set and cannot be used; the text names its variable, never its password."""

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def require_services(kind: str = "server") -> None:
    """Ends this process, a `server`, `worker` or `beat`, when a check refuses it or a service does not answer (exit
    code 2), or lacks its tables (5). Asks once, also in a process that is all three.
    """
    with _lock:
        obey_checks(kind)
        _require_answers()


_lock = threading.Lock()


@cache
def _require_answers() -> None:
    _ask(_ask_database, _ask_redis, _ask_rabbitmq, _ask_for_tables)
    pubsub = "Redis (distributed)" if settings.USE_REDIS_PUBSUB else "In-memory (single process only)"
    logger.info("PubSub: %s", pubsub)


def ask_services() -> None:
    """Ends the process with exit code 2 when a service that is set does not answer."""
    _ask(_ask_database, _ask_redis, _ask_rabbitmq)


def explain_database(tables: bool) -> None:
    """Ends the process when the database is away (exit code 2) or, asked for `tables`, lacks some of them (5)."""
    _ask(_ask_database, *([_ask_for_tables] if tables else []))


def _ask(*asks: Callable[[], None]) -> None:
    try:
        # In a thread: servers import us from within their event loop, where Django's database refuses to work.
        with ThreadPoolExecutor(max_workers=1) as thread:
            for ask in asks:
                thread.submit(ask).result()
    except ServiceError as error:
        print(f"killboard does not start: {error}", file=sys.__stderr__)
        sys.exit(error.exit_code)


def _ask_database() -> None:
    variable = "DATABASE_URL" if settings.DATABASE_URL else "DATA_DIR"
    try:
        if settings.DATABASE_URL:
            # Not through the pool, whose time-out would hide the reason.
            psycopg.connect(settings.DATABASE_URL, connect_timeout=LIMIT).close()
        else:
            connection.ensure_connection()
    except (Error, psycopg.Error) as error:
        where = _where(settings.DATABASE_URL) if settings.DATABASE_URL else connection.settings_dict["NAME"]
        raise ServiceError(f"{variable}: {where} {_cause(error)}.") from error
    finally:
        connection.close()


def _ask_for_tables() -> None:
    try:
        executor = MigrationExecutor(connection)
        if executor.migration_plan(executor.loader.graph.leaf_nodes()):
            raise ServiceError("the database lacks tables of this version; run: python manage.py migrate", 5)
    finally:
        connection.close()


def _ask_redis() -> None:
    if settings.REDIS is None:
        return
    try:
        settings.REDIS.ping(LIMIT)
    except (redis.RedisError, OSError) as error:
        raise ServiceError(f"REDIS_URL: {settings.REDIS} {_cause(error)}.") from error


def _ask_rabbitmq() -> None:
    if not settings.RABBITMQ_URL:
        return
    parts = urlsplit(settings.RABBITMQ_URL)
    host = f"{parts.hostname}:{parts.port or (5671 if parts.scheme == 'amqps' else 5672)}"
    try:
        with Connection(settings.RABBITMQ_URL, connect_timeout=LIMIT) as broker:
            broker.connect()
    except (amqp.AMQPError, OSError) as error:
        raise ServiceError(f"RABBITMQ_URL: {host} {_cause(error)}.") from error


def _where(address: str) -> str:
    """Host and port, and nothing else of an address."""
    parts = urlsplit(address)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)


def _cause(error: Exception) -> str:
    """Why, in words of ours: a driver's text may hold what was written in the address."""
    text = str(error).lower()
    if isinstance(error, ssl.SSLError) or "certificate" in text:
        return "shows a certificate that cannot be trusted, or speaks no TLS"
    if "no master found" in text and "authentication" not in text:
        return "is not known to the sentinels, or they do not answer"
    refusals = ("password", "authentication", "noauth", "access_refused", "acl")
    if isinstance(error, redis.AuthenticationError) or any(word in text for word in refusals):
        return "refused the user or the password"
    if "does not exist" in text:
        return "answers, but has no such database or user"
    if "timed out" in text or "timeout" in text:
        return f"did not answer within {LIMIT} s"
    return f"does not answer ({type(error).__name__}); is it running, is the address right"
