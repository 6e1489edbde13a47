"""What REDIS_URL may say, and the clients that it comes to: one Redis, one behind sentinels, or a cluster.

    redis://user:password@host:6379/0
    redis+sentinel://user:password@host1:26379,host2:26379/mymaster/0
    redis+cluster://user:password@host1:6379,host2:6379

and each of them with `rediss` for TLS.
"""

import random
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

import redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import RedisClusterException
from redis.retry import Retry
from redis.sentinel import Sentinel

from killboard.environment import ESCAPED, PLACE, SettingError, is_host

EXAMPLES = {
    "redis": "redis://user:password@localhost:6379/0",
    "redis+sentinel": "redis+sentinel://user:password@host1:26379,host2:26379/mymaster/0",
    "redis+cluster": "redis+cluster://user:password@host1:6379,host2:6379",
}
PREFIX = "killmail:"  # of all that is ours in Redis
DIAL_LIMIT = 1.0  # seconds for one host, where another one may be tried

Place = tuple[str, int]


class AnyNode(Connection):
    """Connects to any node of a cluster that answers: what one of them is told to publish reaches all of them.

    Another one each time: a node that hangs takes connections, too, and must not be met for ever.
    """

    def __init__(self, *, nodes: tuple[Place, ...], **options: Any) -> None:
        super().__init__(**options)
        self._nodes = nodes

    async def _connect(self) -> None:
        failed: OSError | None = None
        for node in random.sample(self._nodes, len(self._nodes)):
            self.host, self.port = node
            try:
                return await super()._connect()
            except OSError as error:  # a time-out is one, too
                failed = error
        raise failed or OSError("no node")


class AnyNodeOverTLS(AnyNode, SSLConnection):
    """The same, with the node's certificate checked."""


class Cluster(redis.RedisCluster):
    """Blocks. What is wrong with the cluster is a redis.RedisError, as with any Redis, which redis-py's is not."""

    def __init__(self, **options: Any) -> None:
        try:
            super().__init__(**options)
        except RedisClusterException as error:
            raise redis.ConnectionError(str(error)) from error

    def execute_command(self, *command: Any, **options: Any) -> Any:
        try:
            return super().execute_command(*command, **options)
        except RedisClusterException as error:
            raise redis.ConnectionError(str(error)) from error


@dataclass(frozen=True)
class RedisAddress:
    """Where Redis is. Its text holds no password."""

    kind: str  # redis, redis+sentinel or redis+cluster
    tls: bool
    places: tuple[Place, ...]  # of the Redis, of its sentinels, or of nodes of the cluster
    master: str = ""  # as the sentinels call it
    database: int = 0
    ca_file: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    sentinel_password: str = field(default="", repr=False)

    @property
    def prefix(self) -> str:
        """Begins the names of keys and channels. Redis' pub/sub knows no databases, so their number stands in it."""
        return f"{PREFIX}{self.database}:" if self.database else PREFIX

    def __str__(self) -> str:
        hosts = ", ".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.places)
        return f"{self.master} at {hosts}" if self.master else hosts

    def layer_host(self) -> dict[str, Any]:
        """The entry of `hosts` for channels-redis' pub/sub layer. One in each case: it would shard over several."""
        options = self._login() | {"socket_timeout": None}  # else redis-py ends a quiet socket after 5 s
        if self.kind == "redis+cluster":
            tls = self._tls()
            tls.pop("ssl", None)
            cluster = {"connection_class": AnyNodeOverTLS if self.tls else AnyNode, "nodes": self.places}
            return options | tls | cluster | {"socket_connect_timeout": DIAL_LIMIT}
        if self.kind == "redis+sentinel":
            sentinel = {"master_name": self.master, "sentinels": list(self.places)}
            limits = {"sentinel_kwargs": self._to_sentinels(DIAL_LIMIT), "socket_connect_timeout": DIAL_LIMIT}
            return options | self._tls() | sentinel | limits | {"db": self.database}
        ((host, port),) = self.places
        name = f"[{host}]" if ":" in host else host
        tls = self._tls()
        tls.pop("ssl", None)
        return options | tls | {"address": f"redis{'s' * self.tls}://{name}:{port}/{self.database}"}

    def client(self, limit: float) -> "redis.Redis | redis.RedisCluster":
        """A client that blocks, for at most `limit` seconds at each step, and tries once. Make it after a fork."""
        options = self._login() | self._tls() | _limits(limit)
        if self.kind == "redis+cluster":
            nodes = [ClusterNode(host, port) for host, port in self.places]
            return Cluster(startup_nodes=nodes, **options)
        if self.kind == "redis+sentinel":
            sentinels = Sentinel(list(self.places), sentinel_kwargs=self._to_sentinels(limit))
            return sentinels.master_for(self.master, db=self.database, **options)
        ((host, port),) = self.places
        return redis.Redis(host=host, port=port, db=self.database, **options)

    def ping(self, limit: float) -> None:
        """Returns when Redis, or any one node of the cluster, answers; raises redis.RedisError or OSError."""
        if self.kind != "redis+cluster":
            with self.client(limit) as client:
                client.ping()
            return
        for number, (host, port) in enumerate(self.places, 1):
            try:
                with redis.Redis(host=host, port=port, **self._login(), **self._tls(), **_limits(limit)) as client:
                    client.ping()
                return
            except (redis.RedisError, OSError):
                if number == len(self.places):
                    raise

    def _login(self) -> dict[str, Any]:
        return {"username": self.user or None, "password": self.password or None}

    def _tls(self) -> dict[str, Any]:
        return {"ssl": True, "ssl_ca_certs": self.ca_file or None} if self.tls else {}

    def _to_sentinels(self, limit: float) -> dict[str, Any]:
        return self._tls() | _limits(limit) | {"password": self.sentinel_password or None}


def _limits(seconds: float) -> dict[str, Any]:
    once = Retry(NoBackoff(), 0)  # the default waits and tries again, for longer than who asks
    return {"socket_timeout": seconds, "socket_connect_timeout": seconds, "retry": once}


def read_redis_address(
    address: str, password: str = "", ca_file: str = "", sentinel_password: str = ""
) -> tuple[RedisAddress, str]:
    """The address in parts, and written out with REDIS_PASSWORD; SettingError for what cannot be one."""
    parts = _split(address)
    kind = parts.scheme.replace("rediss", "redis")
    user, _, own = (unquote(part) for part in parts.netloc.rpartition("@")[0].partition(":"))
    if password and own:
        raise SettingError("REDIS_PASSWORD: REDIS_URL holds a password already; keep only one of the two.")
    if sentinel_password and kind != "redis+sentinel":
        raise SettingError("REDIS_SENTINEL_PASSWORD: is for a REDIS_URL of redis+sentinel:// only.")
    netloc = parts.netloc
    if password:
        netloc = f"{quote(user, safe='')}:{quote(password, safe='')}@{netloc.rpartition('@')[2]}"
    master, database = _path(parts, kind)
    tls = parts.scheme.startswith("rediss")
    _check_ca_file(ca_file, tls)
    places = _places(parts, kind)
    read = RedisAddress(kind, tls, places, master, database, ca_file, user, own or password, sentinel_password)
    return read, parts._replace(netloc=netloc).geturl()


def _hint(kind: str) -> str:
    return f"write it like {EXAMPLES[kind]} {ESCAPED}."


def _split(address: str) -> SplitResult:
    kind = address.partition("://")[0].lower().replace("rediss", "redis")
    if "://" not in address or kind not in EXAMPLES:
        raise SettingError(
            "REDIS_URL: must begin with redis:// or rediss:// (or redis+sentinel://, redis+cluster://); "
            + _hint("redis")
        )
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise SettingError(f"REDIS_URL: the host is not valid; {_hint(kind)}") from error
    # urlsplit drops line ends and tabs without a word.
    astray = parts.fragment or "@" in parts.path + parts.query or any(sign.isspace() for sign in address)
    if not parts.netloc or parts.netloc.count("@") > 1 or astray:
        raise SettingError(f"REDIS_URL: has no host, or a character that must be escaped; {_hint(kind)}")
    if parts.query:
        raise SettingError(
            "REDIS_URL: takes no options after '?'; certificates are always checked (REDIS_CA_FILE names who signed"
            f" them), and a password has its place: {_hint(kind)}"
        )
    return parts


def _places(parts: SplitResult, kind: str) -> tuple[Place, ...]:
    written = parts.netloc.rpartition("@")[2].split(",")
    if kind == "redis" and len(written) > 1:
        raise SettingError(f"REDIS_URL: has several hosts; write {EXAMPLES['redis+cluster']}, or redis+sentinel://.")
    places = []
    for place in written:
        found = PLACE.fullmatch(place)
        port = int((found[2] or "")[1:] or (26379 if kind == "redis+sentinel" else 6379)) if found else 0
        if not found or not 0 < port < 65536 or not is_host(found[1].strip("[]")):
            raise SettingError(f"REDIS_URL: the port or the host is not valid; {_hint(kind)}")
        places.append((found[1].strip("[]"), port))
    return tuple(places)


def _path(parts: SplitResult, kind: str) -> tuple[str, int]:
    """The master's name and the number of the database."""
    words = parts.path.strip("/").split("/")
    master = words.pop(0) if kind == "redis+sentinel" else ""
    if kind == "redis+sentinel" and not master:
        raise SettingError(f"REDIS_URL: names no master, which the sentinels would know; {_hint(kind)}")
    number = "/".join(words) or "0"
    if not (number.isascii() and number.isdigit() and len(number) < 5):
        raise SettingError(f"REDIS_URL: the database must be a number; {_hint(kind)}")
    if kind == "redis+cluster" and int(number):
        raise SettingError("REDIS_URL: a cluster has only the database 0; leave the number out.")
    return master, int(number)


def _check_ca_file(ca_file: str, tls: bool) -> None:
    if not ca_file:
        return
    if not tls:
        raise SettingError("REDIS_CA_FILE: is for a REDIS_URL that begins with rediss; this one uses no TLS.")
    if not Path(ca_file).is_file():
        raise SettingError(f"REDIS_CA_FILE: {ca_file} is not there.")
    try:
        ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one, too
        raise SettingError(f"REDIS_CA_FILE: {ca_file} cannot be read as certificates in PEM form.") from error
