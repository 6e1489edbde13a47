"""diagnose_redis: six tests up to the first failure, each failure in words, and no client of the board notices."""

import contextlib
import io
import json
from datetime import timedelta

import pytest
import redis as redis_client
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from django.db.models.functions import Now

from health import diagnosis, same_redis
from health import redis as health_redis
from health.models import Process
from health.redis import identity
from realtime import canary, doorbell
from tests.feeding import stop_database_clock
from tests.health.doorbell_server import configured, doorbell_server
from tests.services import Redis
from tests.services.service import free_port

PASSWORD = "Ge%40heim"
ELSEWHERE = "is on another Redis or database: set its REDIS_URL to that of this process,"
NOBODY = "no server answered: is one running, and with this REDIS_URL?"
AWAY = "cannot reach its Redis: compare its REDIS_URL with that of this process"


@pytest.fixture(scope="module")
def redis():
    with Redis() as server:
        yield server


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Nobody here answers late, but a busy machine may hold up whoever is there."""
    monkeypatch.setattr(canary, "LATER", 0.2)
    for module, name in ((diagnosis, "CANARY_LIMIT"), (diagnosis, "STEP_LIMIT"), (health_redis, "STEP_LIMIT")):
        monkeypatch.setattr(module, name, 30.0)


class Clock:
    """On which nothing passes but the pauses between two looks at the processes."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(same_redis, "time", clock)
    stop_database_clock(monkeypatch)  # who has a row here goes on living, however long the test takes
    return clock


@pytest.fixture
def board(redis, transactional_db, clock):
    """A server that listens, and its row."""
    with doorbell_server(redis.url) as server:
        server.wait_for(200)
        enter("server", doorbell.own_id())
        yield server


def enter(kind, id_, redis=None, **more):
    redis = identity() if redis is None else redis
    Process.objects.create(id=id_, kind=kind, name=f"{kind} {id_.split(':')[0]}", redis=redis, **more)


def diagnose(capsys, *options):
    """The exit code, and the lines."""
    try:
        call_command("diagnose_redis", *options)
        code = 0
    except SystemExit as exit_:
        code = exit_.code
    return code, capsys.readouterr().out.splitlines()


def failed_test(capsys):
    """Number and text of the test that failed, which must be the last one; and what it names."""
    code, (line,) = diagnose(capsys, "--json")
    answer = json.loads(line)
    assert (code, answer["passed"]) == (1, False)
    assert [test["number"] for test in answer["tests"]] == list(range(1, len(answer["tests"]) + 1))
    assert all(test["passed"] for test in answer["tests"][:-1])
    last = answer["tests"][-1]
    assert last["passed"] is not True
    return last["number"], last["text"], last["details"]


def test_board_without_redis_is_told_so_in_one_line(capsys):
    with configured(""):
        code, lines = diagnose(capsys)
    assert code == 1
    (line,) = lines
    assert line.startswith("✘ 1 Environment            REDIS_URL is not set, so this board uses no Redis: ")


@pytest.mark.services
def test_all_is_well(board, capsys):
    enter("worker", "w1:77:aa", worker_id="1")
    code, lines = diagnose(capsys)
    assert code == 0
    assert [line[:24].rstrip() for line in lines if line.startswith("✔")] == [
        "✔ 1 Environment",
        "✔ 2 PING",
        "✔ 3 Publish and subscrib",
        "✔ 4 Killmail channel",
        "✔ 5 Canary",
        "✔ 6 Same Redis",
    ]
    assert f"REDIS_URL={doorbell_url(board)}" in lines[0]
    assert doorbell.own_id() in lines[5]
    assert lines[-2:] == [
        "✔ 6 Same Redis             2 living processes of the board, all on this Redis",
        "All of it works.",
    ]


def doorbell_url(board):
    return board.ask()[1]["url"]


@pytest.mark.services
def test_machines_get_one_json_object(board, capsys):
    code, (line,) = diagnose(capsys, "--json")
    answer = json.loads(line)
    assert (code, answer["passed"], len(answer["tests"])) == (0, True, 6)
    assert list(answer["tests"][1]) == ["number", "name", "passed", "text", "details", "seconds"]


@pytest.mark.services
def test_canary_wakes_no_hub(board, capsys):
    assert diagnose(capsys)[0] == 0
    assert set(board.woken) == {0}  # heartbeats


def test_terminal_without_our_marks_gets_words(monkeypatch):
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", terminal)
    with configured(""), pytest.raises(SystemExit):
        call_command("diagnose_redis")
    assert terminal.buffer.getvalue().startswith(b"FAILED 1 Environment")


# Redis itself


@pytest.mark.services
def test_redis_that_is_away(capsys):
    port = free_port()
    with configured(f"redis://:{PASSWORD}@127.0.0.1:{port}"):
        number, text, _ = failed_test(capsys)
    assert number == 2
    assert text == (
        f"Redis at 127.0.0.1:{port} does not answer (ConnectionError): is it running, and is REDIS_URL right?"
    )


@pytest.mark.services
def test_redis_that_hangs(redis, capsys, monkeypatch):
    monkeypatch.setattr(diagnosis, "STEP_LIMIT", 2.0)
    redis.pause()
    try:
        with configured(redis.url):
            assert failed_test(capsys)[:2] == (
                2,
                "Redis did not answer within 2 s: does it hang, or does something between swallow it?",
            )
    finally:
        redis.resume()


@contextlib.contextmanager
def user(redis, *rules):
    """The address of Redis for a user with these rights."""
    with redis_client.Redis(port=redis.port) as client:
        client.execute_command("ACL", "SETUSER", "bob", "reset", "on", ">Ge@heim", *rules)
        yield f"redis://bob:{PASSWORD}@127.0.0.1:{redis.port}/0"
        client.execute_command("ACL", "DELUSER", "bob")


@pytest.mark.services
def test_wrong_password_is_told_and_not_shown(redis, capsys):
    with user(redis, "+@all") as url, configured(url.replace("Ge", "Wrong")):
        code, lines = diagnose(capsys)
    assert code == 1
    assert lines[-1] == (
        "✘ 2 PING                   Redis refused the user or the password: see REDIS_URL and REDIS_PASSWORD."
    )
    assert "REDIS_URL=redis://****@127.0.0.1" in lines[0]
    assert "heim" not in "".join(lines)


@pytest.mark.services
@pytest.mark.parametrize(
    ("rules", "number"),
    [
        (["~*", "+@all"], 3),  # no channel at all
        (["~*", "+@all", "&killmail:diagnose:*"], 4),  # the test channel only
    ],
)
def test_user_without_the_channels_is_found(redis, capsys, rules, number):
    with user(redis, *rules) as url, configured(url):
        assert failed_test(capsys)[0] == number


# The other processes


@pytest.mark.services
def test_no_server(redis, transactional_db, capsys, monkeypatch):
    monkeypatch.setattr(diagnosis, "CANARY_LIMIT", 2.0)
    with configured(redis.url):
        assert failed_test(capsys) == (5, NOBODY, [])


@pytest.mark.services
def test_who_asks_at_another_redis_than_the_server_is_told_where_that_is_not(
    redis, transactional_db, capsys, monkeypatch
):
    monkeypatch.setattr(diagnosis, "CANARY_LIMIT", 2.0)
    with configured(redis.url):
        enter("server", "s1:76:aa", redis="0123456789abcdef")
        enter("worker", "w1:77:aa")
        number, text, details = failed_test(capsys)
    assert (number, text) == (5, NOBODY)
    assert details == [f"server s1 (pid 76 on s1) {ELSEWHERE} {redis.url}, and restart it."]


@pytest.mark.services
def test_worker_on_another_redis_is_named_with_what_to_do(board, capsys):
    enter("worker", "w1:77:aa", worker_id="1")
    enter("worker", "w2:78:bb", redis="0123456789abcdef", worker_id="2")
    number, text, details = failed_test(capsys)
    assert (number, text) == (6, "1 of 3 processes of the board are not where this one is, or silent:")
    assert details == [
        f"worker w2, WORKER_ID 2 (pid 78 on w2) {ELSEWHERE} {doorbell_url(board)}, and restart it.",
    ]


@pytest.mark.services
def test_worker_without_redis_and_one_that_cannot_reach_it_are_named(board, capsys):
    enter("worker", "w1:77:aa", redis="none")
    enter("beat", "b1:78:bb", redis="")
    number, _, details = failed_test(capsys)
    assert number == 6
    assert details == [
        f"beat b1 (pid 78 on b1) {AWAY}, and restart it.",
        "worker w1 (pid 77 on w1) uses no Redis: set REDIS_URL and USE_REDIS_PUBSUB=true for it, and restart it.",
    ]


@pytest.mark.services
def test_deaf_server_is_named(board, capsys):
    enter("server", "s2:79:cc")
    _, _, details = failed_test(capsys)
    assert details == [
        "server s2 (pid 79 on s2) is on this Redis, and did not answer the canary: look into its log, and restart it."
    ]


@pytest.mark.services
@pytest.mark.parametrize("kind", ["server", "worker", "beat"])
def test_process_that_hangs_is_named_by_its_silence(board, capsys, kind):
    """It hears no canary and tells nothing, so that it does not count as living any more, either."""
    enter(kind, "s3:80:dd", seen_at=Now() - timedelta(seconds=20))
    _, text, details = failed_test(capsys)
    assert text == "1 of 2 processes of the board are not where this one is, or silent:"
    (detail,) = details
    assert detail == (
        f"{kind} s3 (pid 80 on s3) has not told for a while that it lives: it hangs, or ended without a word; "
        "look into its log, and restart it."
    )


@pytest.mark.services
def test_worker_that_came_back_under_its_name_and_beat_under_any_are_not_missed(board, capsys):
    for kind, before, after in (("worker", "w1:80:aa", "w1:81:bb"), ("beat", "b1:82:cc", "b2:83:dd")):
        enter(kind, before, seen_at=Now() - timedelta(seconds=20))
        enter(kind, after)
    assert diagnose(capsys)[0] == 0
    Process.objects.filter(id__in=["w1:81:bb", "b2:83:dd"]).delete()
    enter("beat", "w1:84:ee")  # of another kind
    enter("worker", "w2:85:ff")
    assert [detail.split(" (")[0] for detail in failed_test(capsys)[2]] == ["worker w1"]


@pytest.mark.services
def test_server_with_another_database_is_named(board, capsys):
    Process.objects.all().delete()
    _, _, (detail,) = failed_test(capsys)
    host, pid, _ = doorbell.own_id().rsplit(":", 2)
    assert detail == (
        f"server (pid {pid} on {host}) answered the canary, and is not in this database: "
        "set its DATABASE_URL to that of this process, and restart it."
    )


@pytest.mark.services
def test_process_that_is_gone_is_not_asked_for(board, capsys):
    enter("worker", "w1:77:aa", redis="0123456789abcdef", seen_at="2026-01-01T00:00:00Z")
    assert diagnose(capsys)[0] == 0


@pytest.mark.services
def test_mismatch_that_the_next_heartbeat_mends_does_not_count(board, clock, capsys):
    enter("worker", "w1:77:aa", redis="0123456789abcdef")
    enter("worker", "w2:77:aa", redis="0123456789abcdef")
    own = identity()

    def beat(seconds):
        clock.now += seconds
        beaten = F("seen_at") + timedelta(seconds=seconds)
        Process.objects.filter(id="w1:77:aa").update(redis=own, seen_at=beaten)
        Process.objects.filter(id="w2:77:aa").update(seen_at=beaten)

    clock.sleep = beat
    _, _, details = failed_test(capsys)
    assert [detail.split()[1] for detail in details] == ["w2"]


@pytest.mark.services
def test_database_without_tables_leaves_the_canary_s_answer(board, capsys):
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE health_process RENAME TO away")
    try:
        code, lines = diagnose(capsys)
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO health_process")
    assert code == 1
    assert lines[4].startswith("✔ 5 Canary                 1 server answered")
    assert lines[-1] == (
        "? 6 Same Redis             could not be asked: the database lacks the board's tables "
        "(manage.py migrate makes them). What the servers answered stands."
    )
