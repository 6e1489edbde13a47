"""`manage.py serve`, which `./run` ends in: what it says, which feed it takes, how it ends."""

import json
import signal
import socket
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from killmails.recording.server import RecordingServer, load_recording
from tests.e2e.processes import BIN, Board, Process
from tests.e2e.subscribers import GqlSubscriber
from tests.services.service import free_port

pytestmark = pytest.mark.e2e

ENDED = 40.0  # seconds; without a machine that stalls it is ten at most, which `serve` sees to itself
EMBEDDED = {"DATABASE_URL": "", "REDIS_URL": "", "RABBITMQ_URL": "", "USE_REDIS_PUBSUB": "", "DEBUG": "true"}


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[Board]:
    with Board(tmp_path, EMBEDDED) as board:
        yield board


def ask(board: Board, query: str) -> Any:
    body = json.dumps({"query": query}).encode()
    request = urllib.request.Request(f"{board.url}/graphql", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())["data"]


def ended(process: Process, signum: int) -> tuple[int, float]:
    """Exit code and seconds."""
    begun = time.monotonic()
    return process.stop(signum), time.monotonic() - begun


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_while_the_feed_is_waiting_for_an_answer(embedded: Board, signum: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        embedded.env |= {"FEED": "live", "R2Z2_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        process = embedded.serve()
        silent.accept()
        code, seconds = ended(process, signum)
    assert (code, process.end_of_log().splitlines()[-1]) == (0, "Stopped.")
    assert seconds < ENDED
    assert "has not ended" not in process.log.read_text()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_with_a_subscriber_connected(embedded: Board, signum: int) -> None:
    embedded.env["FEED"] = "recorded"
    process = embedded.serve()
    GqlSubscriber(embedded.websocket_url, 10_000)
    code, seconds = ended(process, signum)
    assert (code, process.end_of_log().splitlines()[-1]) == (0, "Stopped.")
    assert seconds < ENDED
    assert "Traceback" not in process.log.read_text()


def test_auto_plays_the_recording_when_zkillboard_cannot_be_reached_and_says_so(embedded: Board) -> None:
    embedded.env |= {"FEED": "auto", "R2Z2_URL": "http://127.0.0.1:1"}
    process = embedded.serve()
    process.wait_for("zKillboard cannot be reached: a RECORDING of invented killmails plays instead")
    process.wait_for("(http://127.0.0.1:1/ephemeral/sequence.json: no connection)")
    process.wait_for("Sequence 25: killmail")
    assert ask(embedded, "{ feed { mode } killmails { nodes { solarSystem { name } } } }")["feed"] == {
        "mode": "RECORDED"
    }
    assert (embedded.folder / "recorded.sqlite3").exists()
    assert not (embedded.folder / "killboard.sqlite3").exists()
    # A second terminal meets the same database.
    shell = embedded.manage(
        "shell", "-c", "from killmails.models import Killmail; print(Killmail.objects.count() > 24)"
    )
    assert shell.stdout.strip().endswith("True"), shell.stderr


def test_auto_is_live_when_zkillboard_answers_also_after_a_recording(embedded: Board) -> None:
    (embedded.folder / "feed").write_text("recorded")
    killmails = load_recording()
    with RecordingServer(killmails, rate=0) as feed:
        feed.publish(killmails[0])
        embedded.env |= {"FEED": "auto", "R2Z2_URL": feed.url}
        process = embedded.serve()
        process.wait_for(f"killmail {killmails[0]['killmail_id']} added")
        assert ask(embedded, "{ feed { mode } }")["feed"] == {"mode": "LIVE"}
    assert (embedded.folder / "killboard.sqlite3").exists()


def test_a_recording_goes_on_where_it_stopped(embedded: Board) -> None:
    embedded.env["FEED"] = "recorded"
    process = embedded.serve()
    process.wait_for("Sequence 25: killmail")
    ended(process, signal.SIGTERM)
    before = {node["id"] for node in every_killmail(embedded)}
    process = embedded.serve()
    process.wait_for("Sequence 50: killmail")
    after = {node["id"] for node in every_killmail(embedded)}
    assert len(before) >= 25
    assert len(after) >= 50
    assert before < after


def every_killmail(board: Board) -> list[dict[str, str]]:
    if board.processes[-1].popen.poll() is not None:
        command = "from killmails.models import Killmail; print(*Killmail.objects.values_list('pk', flat=True))"
        return [{"id": id_} for id_ in board.manage("shell", "-v", "0", "-c", command).stdout.split()]
    return ask(board, "{ killmails(first: 100) { nodes { id } } }")["killmails"]["nodes"]


@pytest.mark.parametrize("port", ["0", "99999", "http", "-1"])
def test_a_port_that_is_none_is_one_clear_line(embedded: Board, port: str) -> None:
    result = embedded.manage("serve", f"--port={port}", FEED="off")
    assert result.returncode == 2
    assert f"argument --port: '{port}' is not a whole number from 1 to 65535" in result.stderr
    assert "Traceback" not in result.stderr


def test_damaged_files_of_the_built_in_queue_do_no_harm(embedded: Board) -> None:
    control = embedded.folder / "queue" / "control"
    control.mkdir(parents=True)
    (control / "bulk.exchange").write_text("")
    (embedded.folder / "feed").write_bytes(b"\xff\xfe")
    embedded.env["FEED"] = "recorded"
    embedded.serve().wait_for("Sequence 3: killmail")


def test_a_websocket_at_another_address_is_refused(board: Board) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        connect(f"ws://127.0.0.1:{board.port}/other")
    assert refusal.value.response.status_code == 403


def test_runserver_closes_sockets_with_the_codes_of_the_protocol(embedded: Board) -> None:
    assert embedded.manage("migrate", FEED="off").returncode == 0
    embedded.env["FEED"] = "off"
    embedded.runserver()
    with connect(embedded.websocket_url, subprotocols=["graphql-transport-ws"]) as socket_:
        socket_.send("hello")
        with pytest.raises(ConnectionClosed) as closed:
            socket_.recv(timeout=60)
    assert closed.value.rcvd.code == 4400


def test_commands_name_the_database_that_does_not_answer(embedded: Board) -> None:
    address = "postgresql://user:hunter2@127.0.0.1:1/board"
    result = embedded.manage("migrate", DATABASE_URL=address, FEED="off", DEBUG="true")
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1].startswith("killboard does not start: DATABASE_URL: 127.0.0.1:1 does not")
    assert "hunter2" not in result.stderr


def test_a_port_in_use_is_one_clear_line(embedded: Board) -> None:
    embedded.env["FEED"] = "off"
    with socket.create_server(("127.0.0.1", embedded.port)):
        result = embedded.manage("serve")
    assert result.returncode == 2
    assert result.stderr == (
        f"CommandError: PORT: 127.0.0.1:{embedded.port} is in use; stop what runs there or set PORT.\n"
    )


def test_services_that_do_not_answer_are_named_without_their_password(embedded: Board) -> None:
    addresses = {
        "DATABASE_URL": "postgresql://user:hunter2@127.0.0.1:1/board",
        "REDIS_URL": "redis://user:hunter2@127.0.0.1:1/0",
        "RABBITMQ_URL": "amqp://user:hunter2@127.0.0.1:1/",
    }
    assert embedded.manage("migrate", FEED="off").returncode == 0
    cases = [(["serve"], name) for name in addresses] + [(["runserver", "--noreload"], "REDIS_URL")]
    for command, name in cases:
        result = embedded.manage(*command, **{name: addresses[name], "FEED": "off", "DEBUG": "true"})
        assert (result.returncode, result.stdout) == (2, "")
        refusal = result.stderr.splitlines()[-1]
        assert refusal.startswith(f"killboard does not start: {name}: 127.0.0.1:1 does not answer")
        assert "hunter2" not in result.stderr
        assert "Traceback" not in result.stderr


def test_no_second_process_joins_a_board_in_memory_but_commands_work_beside_it(board: Board) -> None:
    serve = board.processes[0]
    serve.wait_for("killboard.services: PubSub: In-memory (single process only)")
    assert serve.log.read_text().count("killboard.services: PubSub: ") == 1
    celery = [str(BIN / "celery"), "-A", "killboard"]
    commands = {
        "second-serve": [*board.serve_command, f"--port={free_port()}"],
        "second-uvicorn": [str(BIN / "uvicorn"), "killboard.asgi:application", f"--port={free_port()}"],
        "second-worker": [*celery, "worker", "-Q", "feed"],
        "second-beat": [*celery, "beat"],
    }
    processes = [board.start(name, *command) for name, command in commands.items()]
    for process in processes:
        assert process.popen.wait(120) == 2, process.end_of_log()
        assert process.end_of_log().splitlines()[-1] == (
            "killboard does not start: killboard.E002: PubSub is In-memory (single process only), and another one of "
            f"this board runs (server, process {serve.popen.pid}): neither would hear the other. "
            "Set REDIS_URL for both, or stop the other one."
        )
        assert "Traceback" not in process.log.read_text()
    schema = str(board.folder / "schema.graphql")
    for command in (["migrate", "--check"], ["check"], ["graphql_schema", "--out", schema]):
        result = board.manage(*command)
        assert (result.returncode, result.stderr) == (0, ""), command


def test_missing_tables_are_named_before_anything_starts(embedded: Board) -> None:
    result = embedded.manage("runserver", "--noreload", FEED="off")
    assert result.returncode == 5
    assert "run: python manage.py migrate" in result.stderr


def test_ctrl_c_while_it_starts_is_quiet(embedded: Board) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        embedded.env |= {"FEED": "auto", "R2Z2_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        process = embedded.start("serve", *embedded.serve_command)
        with silent.accept()[0] as connection:
            assert connection.recv(10).startswith(b"GET /")  # it is the board that asks, and no stray
        code, seconds = ended(process, signal.SIGINT)
    assert (code, process.log.read_text()) == (130, "")
    assert seconds < ENDED
