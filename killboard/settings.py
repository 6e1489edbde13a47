"""All settings, read once. The only module that reads the environment; `.env.example` explains each variable."""

import logging
import os
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dj_database_url

from killboard.environment import Environment, SettingError, masked, misspelt, read_dotenv, split_address
from killboard.fixed import *  # noqa: F403
from killboard.logs import logging_config
from killboard.redis_address import EXAMPLES, RedisAddress, read_redis_address
from realtime.origin import Origins

BASE_DIR = Path(__file__).resolve().parent.parent
INSECURE_KEY = "insecure-key-for-a-board-on-your-own-machine-never-for-production"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DATABASE_EXAMPLE = "postgresql://user:password@localhost:5432/killboard"
NEW_KEY = "make one with: python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'"
UPSTREAMS = {
    "R2Z2_URL": "https://r2z2.zkillboard.com",
    "ESI_URL": "https://esi.evetech.net",
    "PRICES_URL": "https://data.everef.net",
    "STATIC_DATA_URL": "https://developers.eveonline.com/static-data",
    "ZKILLBOARD_URL": "https://zkillboard.com",
}
RABBITMQ_EXAMPLE = "amqp://user:password@localhost:5672/"


def _database(address: str, file: Path) -> dict[str, Any]:
    if not address:
        options = {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"}
        test = {"NAME": str(file.with_name("test.sqlite3"))}
        return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(file), "OPTIONS": options, "TEST": test}
    parts = split_address("DATABASE_URL", address, ("postgresql", "postgres"), DATABASE_EXAMPLE)
    if not parts.path.strip("/"):
        raise SettingError(f"DATABASE_URL: names no database; write it like {DATABASE_EXAMPLE}.")
    database: dict[str, Any] = dict(dj_database_url.parse(address, conn_max_age=0))
    # Under ASGI persistent connections are never given back (64 stayed open); the pool keeps a few for all.
    pool = {"min_size": 0, "max_size": 10, "timeout": 2}
    # A network that is gone says so to nobody: 15 s without a sign of life end a connection.
    alive = {"keepalives_idle": 5, "keepalives_interval": 5, "keepalives_count": 2, "tcp_user_timeout": 15_000}
    database["OPTIONS"] = {"connect_timeout": 5, **alive, **database.get("OPTIONS", {}), "pool": pool}
    database["CONN_HEALTH_CHECKS"] = True  # one that the database has closed meanwhile is not handed out
    return database


def _make_folder(data_dir: Path) -> None:
    """Where SQLite and the embedded queue live."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SettingError(
            f"DATA_DIR: {data_dir} cannot be made ({error.strerror}); name a folder to write in."
        ) from error
    if not os.access(data_dir, os.W_OK | os.X_OK):
        raise SettingError(f"DATA_DIR: {data_dir} cannot be written to; change its owner or name another folder.")


def _redis(env: Environment) -> dict[str, Any]:
    """Where Redis is, and the doorbell, which goes through it; REDIS builds clients, and is None in memory."""
    address, password = env.text("REDIS_URL"), env.text("REDIS_PASSWORD")
    ca_file, sentinel_password = env.text("REDIS_CA_FILE"), env.text("REDIS_SENTINEL_PASSWORD")
    redis, url = read_redis_address(address, password, ca_file, sentinel_password) if address else (None, "")
    use_redis = env.boolean("USE_REDIS_PUBSUB", redis is not None)
    if use_redis and redis is None:
        raise SettingError(f"REDIS_URL: is missing while USE_REDIS_PUBSUB=true; write it like {EXAMPLES['redis']}.")
    redis = redis if use_redis else None
    return {
        "REDIS_URL": url,
        "REDIS": redis,
        "REDIS_MASKED": masked(url) if url else "",
        "USE_REDIS_PUBSUB": use_redis,
        "CHANNEL_LAYERS": {"default": _channel_layer(redis)},
    }


def _feed(env: Environment, data_dir: Path, services: bool, database_url: str) -> tuple[str, str]:
    """What FEED says, and what it comes to: live, recorded or off."""
    asked = env.choice("FEED", "live" if services else "auto", ("auto", "live", "recorded", "off"))
    if asked == "auto" and services:
        raise SettingError("FEED: auto is for a board without services; with one write FEED=live or FEED=off.")
    if asked == "recorded" and database_url:
        raise SettingError("FEED: recorded would put invented killmails into DATABASE_URL; unset one of the two.")
    if asked != "auto":
        return asked, asked
    # `manage.py serve` found out and left word here, so that a second terminal meets the same database.
    decided = data_dir / "feed"
    recorded = decided.is_file() and decided.read_text(errors="replace").strip() == "recorded"
    return asked, "recorded" if recorded else "live"


def _channel_layer(redis: RedisAddress | None) -> dict[str, Any]:
    if redis is None:
        return {"BACKEND": "channels.layers.InMemoryChannelLayer"}
    config = {"hosts": [redis.layer_host()], "prefix": redis.prefix}
    return {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": config}


def _sockets(env: Environment) -> dict[str, Any]:
    """What the endpoint of all websockets is told."""
    limits = {
        "sockets": env.integer("MAX_SOCKETS", 10_000, 0, 10**6),
        "sockets_per_address": env.integer("MAX_SOCKETS_PER_ADDRESS", 20, 0, 10**6),
        "unacknowledged": env.integer("MAX_UNACKNOWLEDGED_SOCKETS", 200, 1, 10**6),
        "operations_per_socket": env.integer("MAX_OPERATIONS_PER_SOCKET", 20, 1, 10**4),
        "messages_per_10_s": env.integer("MAX_MESSAGES_PER_10_S", 100, 1, 10**6),
        "frame_size": env.integer("MAX_FRAME_SIZE", 65_536, 1024, 2**24),
    }
    return {
        "SOCKET_LIMITS": limits,  # by the names of realtime.limits.Limits
        "MAX_QUERIES_PER_10_S": env.integer("MAX_QUERIES_PER_10_S", 200, 0, 10**6),
        "MAX_REPLAY": env.integer("MAX_REPLAY", 100_000, 100, 10**9),
        "TRUSTED_PROXIES": env.integer("TRUSTED_PROXIES", 0, 0, 10),
        "CSRF_TRUSTED_ORIGINS": _trusted_origins(env),
    }


def _trusted_origins(env: Environment) -> list[str]:
    origins = env.words("TRUSTED_ORIGINS")
    try:
        Origins([], origins)
    except ValueError as error:
        raise SettingError(f"TRUSTED_ORIGINS: {error}.") from error
    return origins


def _secret_key(env: Environment, debug: bool) -> str:
    key = env.text("SECRET_KEY", INSECURE_KEY)
    if not debug and (key == INSECURE_KEY or len(key) < 50):
        raise SettingError(
            "SECRET_KEY: set one of at least 50 characters when DEBUG is off, for example the output of: "
            'python3 -c "import secrets; print(secrets.token_urlsafe(50))"'
        )
    return key


def _read(env: Environment) -> dict[str, Any]:
    data_dir = Path(env.text("DATA_DIR", str(BASE_DIR / "var"))).expanduser().absolute()
    database_url = env.address("DATABASE_URL", ("postgresql", "postgres"), DATABASE_EXAMPLE)
    redis = _redis(env)
    rabbitmq_url = env.address("RABBITMQ_URL", ("amqp", "amqps"), RABBITMQ_EXAMPLE)
    services = bool(database_url or redis["REDIS_URL"] or rabbitmq_url)
    _make_folder(data_dir)
    debug = env.boolean("DEBUG", not services)
    host = env.text("HOST", "127.0.0.1")
    if debug and host not in LOOPBACK:
        raise SettingError(
            f"DEBUG: true shows errors to everybody, and HOST={host} lets everybody in; set DEBUG=false and REDIS_URL."
        )
    feed_asked, feed = _feed(env, data_dir, services, database_url)
    port = env.integer("PORT", 4000, 1, 65535)
    file = data_dir / ("recorded.sqlite3" if feed == "recorded" else "killboard.sqlite3")
    return {
        "DATA_DIR": data_dir,
        "DATABASE_URL": database_url,
        **redis,
        "RABBITMQ_URL": rabbitmq_url,
        "FEED_ASKED": feed_asked,
        "FEED": feed,
        **{name: _upstream_address(env, name, default) for name, default in UPSTREAMS.items()},
        "CONTACT": _contact(env),
        **_sso(env, debug, port),
        "DEBUG": debug,
        "SECRET_KEY": _secret_key(env, debug),
        "ALLOWED_HOSTS": env.words("ALLOWED_HOSTS") or ["localhost", "127.0.0.1", "[::1]"],
        "HOST": host,
        "PORT": port,
        "WORKER_ID": env.name("WORKER_ID"),
        "METRICS_TOKEN": env.secret("METRICS_TOKEN", 16),
        "LOG_FORMAT": env.choice("LOG_FORMAT", "text", ("text", "json")),
        "LOG_LEVEL": env.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error")).upper(),
        "DATABASES": {"default": _database(database_url, file)},
        **_sockets(env),
    }


def _sso(env: Environment, debug: bool, port: int) -> dict[str, Any]:
    """Logging in with EVE: on where EVE_CLIENT_ID is set."""
    client_id, keys = env.secret("EVE_CLIENT_ID", 1), env.words("TOKEN_KEYS")
    callback = _upstream_address(env, "EVE_CALLBACK_URL", f"http://localhost:{port}/auth/callback")
    for key in keys:
        if not re.fullmatch(r"[A-Za-z0-9_-]{43}=", key):
            raise SettingError(f"TOKEN_KEYS: each must be 32 bytes in base64; {NEW_KEY}.")
    if client_id and not keys:
        raise SettingError(f"TOKEN_KEYS: is missing while EVE_CLIENT_ID is set; {NEW_KEY}.")
    if client_id and not debug and "EVE_CALLBACK_URL" not in env:
        raise SettingError(
            "EVE_CALLBACK_URL: is missing; write it as at EVE, like https://board.example/auth/callback."
        )
    if urlsplit(callback).path != "/auth/callback" or env.text("EVE_CALLBACK_URL").endswith("/"):
        raise SettingError("EVE_CALLBACK_URL: must be the board's address with /auth/callback behind it, and no more.")
    return {
        "EVE_CLIENT_ID": client_id,
        "EVE_CLIENT_SECRET": env.secret("EVE_CLIENT_SECRET", 1),
        "EVE_CALLBACK_URL": callback,
        "TOKEN_KEYS": keys,
        "SSO_URL": _upstream_address(env, "SSO_URL", "https://login.eveonline.com"),
        # Once pages are behind TLS, their cookies never travel without it.
        "SESSION_COOKIE_SECURE": bool(client_id) and callback.startswith("https://"),
        "CSRF_COOKIE_SECURE": bool(client_id) and callback.startswith("https://"),
    }


def _upstream_address(env: Environment, name: str, default: str) -> str:
    address = env.address(name, ("https", "http"), default, default=default).rstrip("/")
    parts = split_address(name, address, ("https", "http"), default)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise SettingError(f"{name}: must begin with https:// (http:// only for this machine itself).")
    return address


def _contact(env: Environment) -> str:
    contact = env.text("CONTACT")
    if not (contact.isascii() and contact.isprintable()):
        raise SettingError(
            "CONTACT: is sent in a header, so it must be printable ASCII; an e-mail address, for example."
        )
    return contact


def _load() -> tuple[dict[str, Any], list[str]]:
    written = read_dotenv(BASE_DIR / ".env")
    env = Environment({**written, **os.environ})
    settings = _read(env)
    warnings = misspelt(written, env.names)
    if not settings["DEBUG"] and "*" in settings["ALLOWED_HOSTS"]:
        warnings.append("ALLOWED_HOSTS: '*' lets any host name through while DEBUG is off; name your own instead.")
    return settings | {"VARIABLES": env.names}, warnings


try:
    _settings, _warnings = _load()
except SettingError as error:
    print(f"killboard does not start: {error}", file=sys.stderr)
    sys.exit(2)
globals().update(_settings)

LOGGING_CONFIG = "killboard.logs.configure"
LOGGING = logging_config(_settings["LOG_LEVEL"], _settings["LOG_FORMAT"])

for _warning in _warnings:
    logging.getLogger("killboard.settings").warning(_warning)
