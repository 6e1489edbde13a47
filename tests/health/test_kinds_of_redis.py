"""Behind sentinels, in a cluster, with few rights: all of diagnose_redis passes, whichever node is met."""

import contextlib
import re
from pathlib import Path

import pytest
import redis as redis_client
from django.core.management import call_command

from health import redis_rights
from health.models import Process
from health.redis import identity
from killmails.errors import BudgetAway
from killmails.ingest import esi
from killmails.upstream.budget import Budget, Limit
from killmails.upstream.budget_rules import Report
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
        for node in nodes:
            with configured(node.url):
                assert redis_rights.refused(5.0) == {}


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


ROOT = Path(__file__).parents[2]
BEFORE_ESI = ["&killmail:*", "~killmail:*", "+@pubsub", "+ping", "+select", "+get", "+set"]


def ask_esi_within_its_limits(url):
    """As a worker does for each question; raises BudgetAway where it may not."""
    with configured(url):
        budget = Budget(esi._store())
        for limit in (None, Limit("killmail", 3600, 900)):
            budget.settle(budget.reserve("/killmails", limit), Report(200))
        return budget.told()["answers"]


def documented_rights():
    (rights,) = re.findall(r"`(&killmail:[^`]+)`", (ROOT / "docs/troubleshooting.md").read_text())
    return rights.split()


@contextlib.contextmanager
def board_may(admin, *rights):
    """The user of the board has these rights; its address without the database's number."""
    admin.execute_command("ACL", "SETUSER", "board", "reset", "on", ">hunter2", *rights)
    yield f"redis://board:hunter2@127.0.0.1:{admin.connection_pool.connection_kwargs['port']}/"


@contextlib.contextmanager
def running_redis():
    with Redis() as server, redis_client.Redis(port=server.port) as admin:
        yield admin


def refusal(capsys, url):
    """What test 2 says, which must be the one that fails."""
    with configured(url), pytest.raises(SystemExit):
        call_command("diagnose_redis")
    *passed, last = capsys.readouterr().out.splitlines()
    assert len(passed) == 1
    assert last.startswith("✘ 2 PING ")
    return last


@pytest.mark.parametrize("database", [0, 3])
def test_a_user_with_the_rights_that_the_documents_name(capsys, database):
    with running_redis() as admin, board_may(admin, *documented_rights()) as url:
        all_is_well(f"{url}{database}")
        assert capsys.readouterr().out.endswith("All of it works.\n")
        assert ask_esi_within_its_limits(f"{url}{database}") == {"200": 2}


def test_a_user_who_may_do_no_more_than_the_doorbell_needs_is_found(capsys):
    with running_redis() as admin, board_may(admin, *BEFORE_ESI) as url:
        with pytest.raises(BudgetAway):
            ask_esi_within_its_limits(url)
        assert refusal(capsys, url).endswith(
            "Redis answers, and refuses TIME, HSET, EXPIRE, HGETALL, SCRIPT LOAD, EVALSHA, HDEL with keys killmail:* "
            "(NoPermissionError), so that ESI cannot be asked within its limits: docs/troubleshooting.md lists the "
            "rights of the board's user."
        )


def test_each_right_that_is_missing_is_named_alone(capsys):
    rights = documented_rights()
    with running_redis() as admin:
        for right in rights[len(BEFORE_ESI) :]:
            with board_may(admin, *(other for other in rights if other != right)) as url:
                command = {"+script": "SCRIPT LOAD"}.get(right, right[1:].upper())
                assert f" refuses {command} with keys killmail:* (NoPermissionError)," in refusal(capsys, url)


def test_keys_that_the_user_may_not_use_are_found(capsys):
    rights = ["~killmail:identity" if right == "~killmail:*" else right for right in documented_rights()]
    with running_redis() as admin, board_may(admin, *rights) as url:
        assert " refuses HSET, EXPIRE, HGETALL, EVALSHA, HDEL with keys killmail:* " in refusal(capsys, url)


def test_what_is_asked_of_redis_is_what_the_budget_of_esi_uses_and_leaves_nothing():
    script = (ROOT / "killmails/upstream/budget.lua").read_text()
    used = {"EVALSHA", "SCRIPT LOAD", *re.findall(r"redis\.p?call\('([A-Z]+)'", script)}
    assert {command for command, *_ in redis_rights._questions("key")} == used
    with running_redis() as admin, board_may(admin, *documented_rights()) as url:
        with configured(url):
            assert redis_rights.refused(5.0) == redis_rights.refused(5.0) == {}
        assert admin.keys() == []
        # Where HDEL is refused, what was written goes by itself.
        with board_may(admin, *documented_rights(), "-hdel"), configured(url):
            assert redis_rights.refused(5.0) == {"HDEL": "NoPermissionError"}
        (key,) = admin.keys()
        assert key == b"killmail:diagnose:rights"
        assert 0 < admin.ttl(key) <= redis_rights.KEPT


@pytest.mark.parametrize(
    ("order", "kind"),
    [("REPLICAOF 127.0.0.1 1", "ReadOnlyError"), ("CONFIG SET maxmemory 1", "OutOfMemoryError")],
)
def test_a_redis_that_takes_nothing_is_told_from_rights_that_are_missing(capsys, order, kind):
    with running_redis() as admin, board_may(admin, *documented_rights()) as url:
        admin.execute_command(*order.split())
        assert re.search(rf" refuses HSET\b.* \({kind}\)", refusal(capsys, url))
