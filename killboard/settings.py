"""All settings, read once. The only module that reads the environment; `.env.example` explains each variable."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import dj_database_url

from killboard.environment import Environment, SettingError, masked, misspelt, read_dotenv, split_address
from killboard.logs import logging_config
from killboard.redis_address import EXAMPLES, RedisAddress, read_redis_address
from realtime.origin import Origins

BASE_DIR = Path(__file__).resolve().parent.parent
INSECURE_KEY = "insecure-key-for-a-board-on-your-own-machine-never-for-production"
LOOPBACK = ("127.0.0.1", "localhost", "::1")
DATABASE_EXAMPLE = "postgresql://user:password@localhost:5432/killboard"
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
    file = data_dir / ("recorded.sqlite3" if feed == "recorded" else "killboard.sqlite3")
    return {
        "DATA_DIR": data_dir,
        "DATABASE_URL": database_url,
        **redis,
        "RABBITMQ_URL": rabbitmq_url,
        "FEED_ASKED": feed_asked,
        "FEED": feed,
        "R2Z2_URL": _feed_address(env),
        "CONTACT": _contact(env),
        "DEBUG": debug,
        "SECRET_KEY": _secret_key(env, debug),
        "ALLOWED_HOSTS": env.words("ALLOWED_HOSTS") or ["localhost", "127.0.0.1", "[::1]"],
        "HOST": host,
        "PORT": env.integer("PORT", 4000, 1, 65535),
        "WORKER_ID": env.name("WORKER_ID"),
        "METRICS_TOKEN": env.secret("METRICS_TOKEN", 16),
        "LOG_FORMAT": env.choice("LOG_FORMAT", "text", ("text", "json")),
        "LOG_LEVEL": env.choice("LOG_LEVEL", "info", ("debug", "info", "warning", "error")).upper(),
        "DATABASES": {"default": _database(database_url, file)},
        **_sockets(env),
    }


def _feed_address(env: Environment) -> str:
    example = "https://r2z2.zkillboard.com"
    address = env.address("R2Z2_URL", ("https", "http"), example, default=example).rstrip("/")
    parts = split_address("R2Z2_URL", address, ("https", "http"), example)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        raise SettingError("R2Z2_URL: must begin with https:// (http:// only for this machine itself).")
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

INSTALLED_APPS = [
    "killboard",  # before daphne: its runserver asks for the services first
    "daphne",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "channels",
    "graphene_django",
    "killmails",
    "realtime",
    "health",
]
MIDDLEWARE = [
    "killboard.database.DatabaseAway",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
ROOT_URLCONF = "killboard.urls"
ASGI_APPLICATION = "killboard.asgi.application"
GRAPHENE = {"SCHEMA": "killboard.schema.schema", "SCHEMA_OUTPUT": "docs/schema.graphql"}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_EXCEPTION_REPORTER_FILTER = "killboard.debug.AddressesHidden"
STATIC_URL = "static/"
WHITENOISE_USE_FINDERS = True
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]
LOGGING_CONFIG = "killboard.logs.configure"
LOGGING = logging_config(_settings["LOG_LEVEL"], _settings["LOG_FORMAT"])

for _warning in _warnings:
    logging.getLogger("killboard.settings").warning(_warning)
