"""REDIS_URL in all its forms: what is read, what is refused, and that each of them finds its Redis."""

import asyncio
import contextlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from killboard import redis_address
from killboard.environment import SettingError
from killboard.redis_address import RedisAddress, read_redis_address
from killboard.services import ServiceError, _ask_redis
from realtime import doorbell
from tests.services import Redis
from tests.services.service import Service, free_port

LIMIT = 120.0  # seconds that anything may take; sentinels that were held up decide nothing for thirty


def refusal(*arguments: str) -> str:
    with pytest.raises(SettingError) as caught:
        read_redis_address(*arguments)
    message = str(caught.value)
    assert "hunter2" not in message
    assert "\n" not in message
    return message


def test_one_redis() -> None:
    address, text = read_redis_address("redis://us%40er:p%3Ass@cache:6380/3")
    assert address == RedisAddress("redis", False, (("cache", 6380),), database=3, user="us@er", password="p:ss")
    assert (text, address.prefix, str(address)) == ("redis://us%40er:p%3Ass@cache:6380/3", "killmail:3:", "cache:6380")
    assert read_redis_address("redis://[::1]")[0].places == (("::1", 6379),)
    assert address.layer_host()["address"] == "redis://cache:6380/3"


def test_sentinels() -> None:
    address, _ = read_redis_address("rediss+sentinel://:pass@a,b:26380/mymaster/2", "", "", "other")
    assert (address.kind, address.tls, address.master) == ("redis+sentinel", True, "mymaster")
    assert address.places == (("a", 26379), ("b", 26380))
    assert (address.database, address.password, address.sentinel_password) == (2, "pass", "other")
    assert str(address) == "mymaster at a:26379, b:26380"


def test_a_cluster() -> None:
    address, _ = read_redis_address("redis+cluster://user@a:7000,b")
    assert (address.kind, address.places, address.user) == ("redis+cluster", (("a", 7000), ("b", 6379)), "user")
    assert address.prefix == "killmail:"


def test_v9_a_password_beside_the_address_in_each_form() -> None:
    for start, end in (("redis://", "h:1/0"), ("redis+sentinel://", "h:1,g:2/m"), ("redis+cluster://", "h:1,g:2")):
        address, text = read_redis_address(f"{start}user@{end}", "p@s:s/#?")
        assert (address.user, address.password) == ("user", "p@s:s/#?")
        assert text == f"{start}user:p%40s%3As%2F%23%3F@{end}"
        assert read_redis_address(text)[0] == address
        assert refusal(f"{start}:hunter2@{end}", "two").startswith("REDIS_PASSWORD: REDIS_URL holds a password already")


def test_its_text_holds_no_password() -> None:
    address, _ = read_redis_address("redis+sentinel://hunter2:hunter2@h/m", "", "", "hunter2")
    assert "hunter2" not in f"{address} {address!r}"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("redis://u:hunter2@one:1,two:2", "has several hosts; write redis+cluster://"),
        ("redis://h/three", "the database must be a number"),
        ("redis://h/0/1", "the database must be a number"),
        ("redis+cluster://h/1", "a cluster has only the database 0"),
        ("redis+sentinel://h", "names no master"),
        ("redis+sentinel://h/m/x", "the database must be a number"),
        ("redis+sentinel://u:hunter2@h,,g/m", "the port or the host is not valid"),
        ("redis://h:0", "the port or the host is not valid"),
        ("redis://a..b", "the port or the host is not valid"),
        (f"redis+cluster://{'x' * 64}.org", "the port or the host is not valid"),
        ("redis+cluster://h:99999", "the port or the host is not valid"),
        ("redis://h?password=hunter2", "takes no options after '?'"),
        ("rediss://:hunter2@h?ssl_cert_reqs=none", "certificates are always checked"),
        ("redis://u:hun/ter2@h", "a character that must be escaped"),
        ("redis://u:hun ter2@h", "a character that must be escaped"),
        ("redis://u:hun[ter2@h", "the host is not valid"),
        ("rediss+other://h", "must begin with redis:// or rediss://"),
    ],
)
def test_v3_what_cannot_be_right_is_refused(address: str, why: str) -> None:
    message = refusal(address)
    assert message.startswith("REDIS_URL: ")
    assert why in message
    assert "ter2" not in message


def test_certificates_and_sentinels_have_to_have_a_use(tmp_path: Path) -> None:
    (tmp_path / "text.pem").write_text("no certificate")
    assert refusal("redis://h", "", "ca.pem") == (
        "REDIS_CA_FILE: is for a REDIS_URL that begins with rediss; this one uses no TLS."
    )
    assert refusal("rediss://h", "", "/no/ca.pem") == "REDIS_CA_FILE: /no/ca.pem is not there."
    assert "cannot be read as certificates" in refusal("rediss://h", "", str(tmp_path / "text.pem"))
    assert refusal("redis://h", "", "", "hunter2").startswith("REDIS_SENTINEL_PASSWORD: is for")


# With real ones


class Sentinels(Redis):
    """One sentinel, which is enough to decide."""

    def watch(self, master: Redis, password: str) -> None:
        (self.folder / "conf").write_text(
            f"port {self.port}\nbind 127.0.0.1\ndir {self.folder}\nrequirepass watcher\n"
            f"sentinel monitor mymaster 127.0.0.1 {master.port} 1\n"
            f"sentinel auth-pass mymaster {password}\n"
            "sentinel down-after-milliseconds mymaster 500\nsentinel failover-timeout mymaster 3000\n"
        )

    def _launch(self) -> subprocess.Popen[bytes]:
        return self._spawn(["redis-server", str(self.folder / "conf"), "--sentinel"])


def wait_until(condition: Callable[[], object], within: float = LIMIT) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Ear:
    """A server's listener, in a thread with a loop of its own."""

    def __init__(self) -> None:
        self.heard: set[int] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Ear":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(LIMIT)

    def _run(self) -> None:
        self._task = self._loop.create_task(doorbell.Listener(self.heard.add, lambda: 0).run())
        with contextlib.suppress(asyncio.CancelledError):
            self._loop.run_until_complete(self._task)
        self._loop.close()

    def hears(self, number: int, within: float = LIMIT) -> None:
        """Rung again and again, as a heartbeat is, until it is heard."""

        def rung() -> bool:
            doorbell.ring(number)
            return number in self.heard

        wait_until(rung, within)


@pytest.fixture
def use(settings: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RedisAddress]:
    """Takes what an operator would write; the doorbell goes through it from then on."""
    monkeypatch.setattr(redis_address, "DIAL_LIMIT", 20.0)  # who is away refuses at once, who is busy does not

    def use(*written: str) -> RedisAddress:
        address, settings.REDIS_URL = read_redis_address(*written)
        settings.REDIS = address
        config = {"hosts": [address.layer_host()], "prefix": address.prefix}
        settings.CHANNEL_LAYERS = {
            "default": {"BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer", "CONFIG": config}
        }
        return address

    return use


def refused_by(name: str) -> str:
    """What a process would say that cannot start."""
    with pytest.raises(ServiceError) as caught:
        _ask_redis()
    message = str(caught.value)
    assert message.startswith(f"REDIS_URL: {name} ")
    assert "hunter2" not in message
    return message


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca.pem`, which has signed `server.pem` for localhost; `other.pem` has signed nothing."""
    folder = tmp_path_factory.mktemp("certificates")
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    for name in ("ca", "other"):
        ca = ["-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        subprocess.run([*new, *ca], cwd=folder, check=True, capture_output=True)
    server = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-CA", "ca.pem", "-CAkey", "ca.key"]
    keys = ["-keyout", "server.key", "-out", "server.pem", "-addext", "basicConstraints=critical,CA:false"]
    subprocess.run([*new, *server, *keys], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.fixture
def running() -> Iterator[Callable[[Service], Any]]:
    with contextlib.ExitStack() as stack:
        yield stack.enter_context


@pytest.mark.services
def test_a_user_a_password_and_a_database(use: Any, running: Any) -> None:
    server = running(Redis("--requirepass", "hunter2"))
    place = f"127.0.0.1:{server.port}"
    with redis.Redis(port=server.port, password="hunter2") as admin:
        admin.execute_command("ACL", "SETUSER", "bell", "on", ">p@s:s/#", "allkeys", "allchannels", "+@all")
        use(f"redis://bell@{place}/3", "p@s:s/#")
        with Ear() as ear:
            ear.hears(1)
            assert b"killmail:3:__group__doorbell" in admin.pubsub_channels("killmail:*")
        with use(f"redis://:hunter2@{place}/3").client(5) as client:
            client.set("here", "1")
        assert admin.info("keyspace").keys() == {"db3"}
    for wrong in (f"redis://:hunter2-not@{place}", f"redis://{place}", f"redis://hunter2:hunter2@{place}"):
        use(wrong)
        assert refused_by(place).endswith(" refused the user or the password.")


@pytest.mark.services
def test_tls_with_a_certificate_that_is_checked(use: Any, running: Any, certificates: Path) -> None:
    port = free_port()
    files = {"cert-file": "server.pem", "key-file": "server.key", "ca-cert-file": "ca.pem"}
    options = [word for name, file in files.items() for word in (f"--tls-{name}", str(certificates / file))]
    running(Redis("--tls-port", str(port), "--tls-auth-clients", "no", *options))
    ca_file = str(certificates / "ca.pem")
    for form in (f"rediss://localhost:{port}/0", f"rediss+cluster://localhost:1,localhost:{port}"):
        use(form, "", ca_file)
        _ask_redis()
        with Ear() as ear:
            ear.hears(1)
    for host, file in (("127.0.0.1", ca_file), ("localhost", str(certificates / "other.pem")), ("localhost", "")):
        use(f"rediss://{host}:{port}", "", file)
        assert "a certificate that cannot be trusted" in refused_by(f"{host}:{port}")


@pytest.mark.services
def test_sentinels_name_the_master_also_after_a_failover(use: Any, running: Any) -> None:
    login = ("--requirepass", "hunter2", "--masterauth", "hunter2")
    master = running(Redis(*login))
    replica = running(Redis(*login, "--replicaof", f"127.0.0.1 {master.port}", "--repl-diskless-sync-delay", "0"))
    sentinel = Sentinels()
    sentinel.watch(master, "hunter2")
    running(sentinel)
    place = f"127.0.0.1:1,127.0.0.1:{sentinel.port}"  # nobody is at the first
    with redis.Redis(port=sentinel.port, password="watcher", decode_responses=True) as asked:
        wait_until(lambda: [one["master-link-status"] for one in asked.sentinel_slaves("mymaster")] == ["ok"])
        address = use(f"redis+sentinel://:hunter2@{place}/mymaster/3", "", "", "watcher")
        _ask_redis()
        with Ear() as ear:
            ear.hears(1)
            master.kill()
            wait_until(lambda: asked.sentinel_get_master_addr_by_name("mymaster")[1] == replica.port)
            ear.hears(2)
            with address.client(30) as client:
                assert client.set("here", "1") is True
            with redis.Redis(port=replica.port, password="hunter2") as promoted:
                assert promoted.pubsub_numsub("killmail:3:__group__doorbell")[0][1] == 1
    names = f"other at 127.0.0.1:1, 127.0.0.1:{sentinel.port}"
    use(f"redis+sentinel://:hunter2@{place}/other", "", "", "watcher")
    assert refused_by(names).endswith(" is not known to the sentinels, or they do not answer.")
    use(f"redis+sentinel://:hunter2@{place}/other", "", "", "hunter2-not")
    assert refused_by(names).endswith(" refused the user or the password.")


@pytest.mark.services
def test_a_cluster_rings_through_whichever_node_is_there(use: Any, running: Any) -> None:
    nodes = [running(Redis(*cluster_options())) for _ in range(3)]
    join(nodes)
    address = use("redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes))
    _ask_redis()
    with address.client(30) as client:  # which finds the node that holds a key
        for number in range(20):
            assert client.set(f"killmail:{number}", number) is True
            assert client.get(f"killmail:{number}") == str(number).encode()
    client = address.client(30)
    with Ear() as ear:
        ear.hears(1)
        for number, node in enumerate(nodes[:2], 2):  # at least once it is the one that we listen to
            node.kill()
            ear.hears(number)
            _ask_redis()
    # A cluster that has lost too much says so as any Redis does.
    for make in (lambda: client, lambda: address.client(1)):
        with pytest.raises(redis.RedisError):
            make().set("killmail:1", 1)
    client.close()
    # Known to be wrong: one node's own address.
    use(f"redis://127.0.0.1:{nodes[2].port}")
    with Ear() as ear:
        ear.hears(4)
        nodes[0].start()
        nodes[2].kill()
        with pytest.raises(AssertionError):
            ear.hears(5, within=4)  # it took less than that above
    nodes[0].kill()
    with pytest.raises(redis.RedisError):
        address.client(1)


def cluster_options() -> tuple[str, ...]:
    return ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", str(free_port()))


def join(nodes: list[Redis]) -> None:
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(redis.Redis(port=node.port, decode_responses=True)) for node in nodes]
        bounds = [0, 5461, 10923, 16384]
        for client, first, end in zip(clients, bounds, bounds[1:], strict=False):
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, end - 1)
        for client, node in zip(clients, nodes, strict=True):
            bus = client.config_get("cluster-port")["cluster-port"]
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        for client in clients:
            wait_until(lambda client=client: client.cluster("INFO")["cluster_state"] == "ok")
