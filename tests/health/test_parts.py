"""What is said of each part that the database knows of, and what to do about it."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.models.functions import Now

from health import database, feed, processes, registry
from health import lists as health_lists
from health.models import Process
from health.part import Part, State
from killmails.models import (
    FeedCursor,
    FeedGap,
    Killmail,
    KillmailEvent,
    KillmailSync,
    LogHead,
    RejectedKillmail,
    StaticDataBuild,
)
from tests.feeding import stop_database_clock

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def same_connection(monkeypatch):
    """The test's own transaction lives on the connection that a part would make and close."""
    monkeypatch.setattr(database, "use_own_connection", lambda: None)
    monkeypatch.setattr(connection, "close", lambda: None)


@pytest.fixture(autouse=True)
def still(monkeypatch):
    """What is so many seconds old stays so, however long the test takes."""
    stop_database_clock(monkeypatch)


@pytest.fixture(autouse=True)
def one_redis(monkeypatch):
    monkeypatch.setattr(processes, "redises", processes.Redises())
    monkeypatch.setattr(processes.redis, "identity", lambda: "this")


def tell(kind: str, name: str, ago: float = 1, **more: object) -> None:
    values = {"pk": f"{name}:{ago}", "redis": "this", "kind": kind, "name": name, **more}
    Process.objects.create(**values, seen_at=Now() - timedelta(seconds=ago))


def stored_killmail(position: int, uploaded_at: int | None = None) -> Killmail:
    """With its event."""
    where = {"solar_system_id": 30000142, "victim_ship_type_id": 587}
    values = {"hash": "a" * 40, "time": datetime.now(UTC), "damage_taken": 1, "attacker_count": 1, **where}
    killmail = Killmail.objects.create(pk=position, uploaded_at=uploaded_at, **values)
    KillmailEvent.objects.create(position=position, kind="ADDED", killmail=killmail)
    return killmail


def said(part: Part) -> tuple[State, str]:
    return part.status, part.hint


# The database


def test_a_database_with_all_tables_is_ok():
    part = database.check()
    assert (said(part), part.needed, part.facts["missing_migrations"]) == ((State.OK, ""), True, 0)


def test_a_newer_build_of_the_static_data_is_a_hint_and_no_alarm():
    StaticDataBuild.objects.create(build=10, loaded_at=Now())
    part = database.check()
    assert (said(part), part.facts["static_data"]) == ((State.OK, ""), 10)
    StaticDataBuild.objects.create(build=11)
    part = database.check()
    hint = "Build 11 of CCP's static data is there, and is not loaded: run `python manage.py load_universe`."
    assert (said(part), part.facts["static_data"]) == ((State.OK, hint), 10)


def test_a_database_that_lacks_tables_is_down_and_says_how_to_make_them():
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE app = 'health'")
    part = database.check()
    assert (part.status, part.needed, part.facts["missing_migrations"]) == (State.DOWN, True, 1)
    assert "manage.py migrate" in part.hint


# Workers


def test_every_worker_is_named_with_its_number_its_queues_and_its_last_heartbeat(settings):
    settings.FEED = "live"
    tell(
        "worker",
        "worker 1 a@host",
        worker_id="1",
        queues=["bulk", "esi", "feed", "publish"],
        facts={"upstream": {"200": 4}},
    )
    tell("worker", "worker 2 b@host", ago=9, worker_id="2", queues=["feed"])
    tell("server", "server")
    part = processes.check_workers()
    assert said(part) == (State.OK, "")
    first, second = part.facts["workers"]
    assert (first.pop("last_heartbeat_seconds"), second.pop("last_heartbeat_seconds")) == (1.0, 9.0)
    assert first == {
        "worker_id": "1", "name": "worker 1 a@host", "queues": ["bulk", "esi", "feed", "publish"], "alive": True,
        "redis": "same",
        "counted": {"upstream": {"200": 4}},
    }  # fmt: skip
    assert (second["worker_id"], second["queues"], second["alive"]) == ("2", ["feed"], True)


@pytest.mark.parametrize("ago", [None, 17])
def test_without_a_living_worker_on_the_feed_it_is_down(settings, ago):
    settings.FEED = "live"
    tell("worker", "bulk", queues=["bulk", "esi", "publish"])
    if ago:
        tell("worker", "feed", ago=ago, queues=["feed"])
    part = processes.check_workers()
    assert (said(part), part.needed) == ((State.DOWN, processes.START_FEED), True)


def test_without_a_feed_no_worker_need_follow_it(settings):
    settings.FEED = "off"
    tell("worker", "bulk", queues=["bulk", "esi", "publish"])
    assert said(processes.check_workers()) == (State.OK, "")


def test_without_a_worker_for_tasks_it_is_degraded(settings):
    settings.FEED = "live"
    tell("worker", "feed", queues=["feed"])
    assert said(processes.check_workers()) == (State.DEGRADED, processes.START_TASKS.format("publish"))


def test_while_esi_blocks_the_board_the_workers_are_degraded_and_say_what_to_do():
    everything = ["bulk", "esi", "feed", "publish"]
    tell("worker", "worker a", queues=everything, facts={"esi": {"banned_for": 0}})
    tell("worker", "worker b", queues=everything, facts={"esi": {}})
    assert said(processes.check_workers()) == (State.OK, "")
    tell("worker", "worker c", queues=everything, facts={"esi": {"banned_for": 541}})
    assert said(processes.check_workers()) == (State.DEGRADED, processes.ESI_BLOCKS)


def test_a_worker_that_ended_without_a_word_is_missed_until_it_is_back_or_ten_minutes_have_passed():
    tell("worker", "worker a", queues=["bulk", "esi", "feed", "publish"])
    tell("worker", "worker b", ago=300, queues=["feed"])
    part = processes.check_workers()
    assert (part.status, part.hint.partition(" ended")[0]) == (State.DEGRADED, "worker b")
    assert [(one["name"], one["alive"]) for one in part.facts["workers"]] == [("worker a", True), ("worker b", False)]
    tell("worker", "worker b", queues=["feed"])
    part = processes.check_workers()
    assert said(part) == (State.OK, "")
    assert [one["alive"] for one in part.facts["workers"]] == [True, True]
    Process.objects.filter(name="worker b").delete()
    tell("worker", "worker b", ago=601, queues=["feed"])
    assert said(processes.check_workers()) == (State.OK, "")


def test_a_worker_on_another_redis_is_named():
    tell("worker", "worker a", queues=["bulk", "esi", "feed", "publish"])
    tell("worker", "worker b", queues=["feed"], redis="another")
    part = processes.check_workers()
    assert part.status is State.DEGRADED
    assert part.hint.startswith("worker b is on another Redis than this process")
    assert [one["redis"] for one in part.facts["workers"]] == ["same", "other"]
    assert "another" not in json.dumps([one["redis"] for one in part.facts["workers"]])


def test_while_a_new_redis_settles_nobody_is_accused(monkeypatch):
    tell("worker", "worker a", queues=["bulk", "esi", "feed", "publish"])
    assert said(processes.check_workers()) == (State.OK, "")
    monkeypatch.setattr(processes.redis, "identity", lambda: "emptied")
    assert said(processes.check_workers()) == (State.OK, "")
    processes.redises._since -= processes.SETTLED
    assert processes.check_workers().status is State.DEGRADED


# Beat


def test_beat_that_does_not_run_degrades():
    tell("beat", "beat", ago=16)
    part = processes.check_beat()
    assert (said(part), part.needed, part.facts["running"]) == ((State.DEGRADED, processes.START_BEAT), False, 0)
    tell("beat", "beat", ago=2)
    assert said(processes.check_beat()) == (State.OK, "")


# The hubs


def log_at(position: int, age: float) -> LogHead:
    killmail = stored_killmail(1)
    KillmailEvent.objects.all().delete()
    KillmailEvent.objects.bulk_create(
        KillmailEvent(position=number, kind="ADDED", killmail=killmail, created_at=Now() - timedelta(seconds=age))
        for number in range(1, position + 1)
    )
    LogHead.objects.update(position=position)
    return LogHead.objects.get()


@pytest.mark.parametrize(("position", "age", "late"), [(3, 60, False), (2, 60, True), (2, 0, False), (None, 60, False)])
def test_a_hub_that_has_not_read_an_old_event_is_named(position, age, late):
    head = log_at(3, age)
    tell("server", "server a", facts={"epoch": head.epoch, "position": position, "sockets": 7, "groups": 2})
    part = processes.check_hubs()
    assert (part.status is State.DEGRADED) is late
    assert ("server a" in part.hint) is late
    (server,) = part.facts["servers"]
    assert (server["position"], server["sockets"], server["groups"]) == (position, 7, 2)
    assert (part.facts["head"], part.facts["epoch"]) == (3, head.epoch)


def test_the_hub_of_this_server_is_told_as_it_is_now(monkeypatch):
    head = log_at(3, 60)
    own = {"epoch": head.epoch, "position": 3, "sockets": 1, "groups": 1, "subscriptions": 4}
    monkeypatch.setattr(registry, "told", lambda kind: own)
    monkeypatch.setattr(registry, "id_of", lambda kind: "me:1")
    tell("server", "me", facts={"position": 0})
    part = processes.check_hubs()
    assert (said(part), part.facts["servers"]) == ((State.OK, ""), [])
    assert own.items() <= part.facts.items()
    own["position"] = 1
    part = processes.check_hubs()
    assert (part.status, part.hint.split(" does")[0]) == (State.DEGRADED, "This server")


@pytest.mark.parametrize(("ago", "missed"), [(14, False), (16, True), (599, True), (601, False)])
def test_a_server_that_hangs_or_was_killed_is_missed_for_ten_minutes(ago, missed):
    head = log_at(3, 0)
    tell("server", "server here", facts={"epoch": head.epoch, "position": 3})
    tell("server", "server there", ago, facts={"epoch": head.epoch, "position": 3, "sockets": 7})
    part = processes.check_hubs()
    told = "server there hangs, or ended without a word: read its log, and start it again."
    assert said(part) == ((State.DEGRADED, told) if missed else (State.OK, ""))
    alive = [(server["name"], server["alive"]) for server in part.facts["servers"]]
    assert alive == [("server here", True)] + ([("server there", not missed)] if ago < 600 else [])
    assert part.facts["servers_alive"] == (2 if ago == 14 else 1)


def test_without_a_server_somebody_should_start_one():
    assert said(processes.check_hubs()) == (State.DEGRADED, processes.START_SERVER)


# The feed


@pytest.fixture
def live(settings):
    settings.FEED = "live"


def feed_stands(**columns: object) -> None:
    now = datetime.now(UTC)
    values = {"next_sequence": 100, "last_answer": "200", "lease_holder": "worker 1 at host:1:a"}
    values |= {"lease_expires_at": now + timedelta(seconds=20), "lease_since": now, **columns}
    FeedCursor.objects.update_or_create(name="r2z2", defaults=values)


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_a_feed_that_has_taken_everything_has_no_lag(live):
    stored_killmail(1, uploaded_at=1_700_000_000)
    feed_stands(last_answer="404", not_before=ago(-5))
    part = feed.check()
    assert said(part) == (State.OK, "")
    expected = {
        "source": "live", "cursor": 100, "held_by": "worker 1 at host:1:a", "upstream": "answers", "lag_sequences": 0,
        "lag_seconds": 0.0, "open_holes": 0, "to_be_read_again": 0, "quarantine": 0,
    }  # fmt: skip
    assert expected.items() <= part.facts.items()
    assert part.facts["last_killmail"]["id"] == 1


def test_a_feed_that_nobody_asks_any_more_is_as_far_behind_as_its_last_killmail(live):
    stored_killmail(1, uploaded_at=int(ago(1000).timestamp()))
    feed_stands(last_answer="404", not_before=ago(990), lease_expires_at=ago(970))
    part = feed.check()
    assert said(part) == (State.DEGRADED, feed.NO_HOLDER)
    assert part.facts["held_by"] is None
    assert part.facts["lag_sequences"] is None
    assert 1000 <= part.facts["lag_seconds"] < 1030


def test_a_feed_that_catches_up_tells_how_far_it_is_behind(live):
    stored_killmail(1, uploaded_at=int(ago(1000).timestamp()))
    feed_stands(pointer=160, pointer_at=ago(30))
    part = feed.check()
    assert said(part) == (State.DEGRADED, feed.LATE)
    assert part.facts["lag_sequences"] == 61
    assert 1000 <= part.facts["lag_seconds"] < 1030
    feed_stands(pointer=160, pointer_at=ago(200))
    assert feed.check().facts["lag_sequences"] is None


def test_without_a_time_of_upload_the_lag_is_that_of_storing(live):
    stored_killmail(1, uploaded_at=None)
    feed_stands()
    part = feed.check()
    assert said(part) == (State.OK, "")
    assert part.facts["lag_seconds"] < 30


def test_an_upstream_in_trouble_is_told_without_its_words(live):
    feed_stands(last_answer="https://r2z2.example/1.json: hunter2")
    part = feed.check()
    assert said(part) == (State.DEGRADED, feed.TROUBLE)
    assert part.facts["upstream"] == "in trouble"
    assert "hunter2" not in json.dumps(part.as_dict())


def test_holes_and_quarantine_are_counted_and_the_quarantine_is_to_be_looked_at(live):
    feed_stands(last_answer="404", not_before=ago(-5))
    for reason, outcome in [("MISSING", ""), ("EXPIRED", ""), ("MISSING", "STORED"), ("CHANGED", "")]:
        FeedGap.objects.create(first_sequence=1, last_sequence=2, reason=reason, outcome=outcome)
    assert said(feed.check()) == (State.OK, "")
    for state in ("OPEN", "QUEUED", "STORED", "DISCARDED"):
        RejectedKillmail.objects.create(reason="BAD_JSON", detail="", raw=b"", state=state)
    part = feed.check()
    assert said(part) == (State.DEGRADED, feed.LOOK)
    assert [part.facts[name] for name in ("open_holes", "to_be_read_again", "quarantine")] == [2, 1, 2]


def test_a_feed_that_has_never_begun_says_what_to_start(live):
    part = feed.check()
    assert said(part) == (State.DEGRADED, feed.NO_HOLDER)
    assert (part.facts["cursor"], part.facts["last_killmail"], part.facts["lag_seconds"]) == (None, None, None)
    feed_stands(next_sequence=None, last_answer="")
    assert said(feed.check()) == (State.DEGRADED, feed.NOT_BEGUN)


def test_a_feed_that_is_off_is_ok(settings):
    settings.FEED = "off"
    assert said(feed.check()) == (State.OK, "")
    assert not Killmail.objects.exists()


# Lists of users' killmails


def lists(*states: str, due: float | None = None) -> None:
    """`due`: seconds ago."""
    at = None if due is None else Now() - timedelta(seconds=due)
    KillmailSync.objects.bulk_create(
        KillmailSync(kind="character", eve_id=number, state=state, due_at=at) for number, state in enumerate(states)
    )


def test_lists_are_nobodys_business_while_nobody_can_log_in(settings):
    settings.EVE_CLIENT_ID = ""
    lists("RETRYING", due=1000)
    assert said(health_lists.check()) == (State.OK, "")


@pytest.mark.parametrize(
    ("states", "due", "hint"),
    [
        ([], None, ""),
        (["UP_TO_DATE", "OFF", "RETRYING"], 299, ""),
        (["UP_TO_DATE"], 301, health_lists.NOBODY),
        (["RETRYING", "OFF"], None, health_lists.NOT_ANSWERING),
    ],
)
def test_lists_that_nobody_reads_and_lists_that_cannot_be_read_are_told(settings, states, due, hint):
    settings.EVE_CLIENT_ID = "abc"
    lists(*states, due=due)
    assert said(health_lists.check()) == (State.DEGRADED if hint else State.OK, hint)
    assert health_lists.check().facts["off"] == states.count("OFF")


def test_a_key_that_is_missing_is_told(settings):
    settings.EVE_CLIENT_ID = "abc"
    lists("UP_TO_DATE", "RETRYING")
    KillmailSync.objects.filter(state="RETRYING").update(reason=f"{KillmailSync.NO_KEY}: x")
    assert said(health_lists.check()) == (State.DEGRADED, health_lists.NO_KEY)
