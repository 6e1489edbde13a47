"""Behind sentinels and in a cluster: every test of diagnose_redis passes, and it is one Redis whichever node is met."""

import contextlib

import pytest
from django.core.management import call_command

from health.models import Process
from health.redis import identity
from realtime import doorbell
from tests.health.doorbell_server import configured, doorbell_server
from tests.killboard.test_redis_address import Sentinels, cluster_options, join
from tests.services import Redis

pytestmark = [pytest.mark.services, pytest.mark.django_db(transaction=True)]


def all_is_well(url, *passwords):
    """What diagnose_redis finds beside a server there."""
    with doorbell_server(url, *passwords) as server:
        server.wait_for(200)
        Process.objects.create(id=doorbell.own_id(), kind="server", name="server s", redis=identity())
        call_command("diagnose_redis")


def identity_at(url, *passwords):
    with configured(url, *passwords):
        return identity()


def test_a_cluster(capsys):
    with contextlib.ExitStack() as running:
        nodes = [running.enter_context(Redis(*cluster_options())) for _ in range(3)]
        join(nodes)
        url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in nodes)
        all_is_well(url)
        assert capsys.readouterr().out.endswith("All of it works.\n")
        # Behind one address, as a managed one is, whether or not that node has our key.
        assert {identity_at(node.url) for node in nodes} == {identity_at(url)}


@contextlib.contextmanager
def watching(master):
    sentinel = Sentinels()
    sentinel.watch(master, "hunter2")
    with sentinel:
        yield sentinel


def test_sentinels(capsys):
    with Redis("--requirepass", "hunter2") as master, watching(master) as sentinel:
        url = f"redis+sentinel://:hunter2@127.0.0.1:{sentinel.port}/mymaster"
        all_is_well(url, "watcher")
        assert capsys.readouterr().out.endswith("All of it works.\n")
        assert identity_at(url, "watcher") == identity_at(f"redis://:hunter2@127.0.0.1:{master.port}") != ""
