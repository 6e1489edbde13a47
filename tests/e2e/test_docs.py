"""The documents do not lie: each command and example in them is run, each setting and link is there."""

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from django.conf import settings
from graphql import OperationType
from websockets.sync.client import connect

from killboard.engine import engine
from killboard.management.commands.serve import UVICORN
from killmails.recording.server import RecordingServer, load_recording
from tests.e2e.crowd import Publisher, head_of
from tests.e2e.processes import BIN, ROOT, UVICORN_OPTIONS, Board, Process
from tests.e2e.sockets import wait_until
from tests.e2e.subscribers import NODE_MODULES, node_is_here
from tests.services.service import free_port

pytestmark = pytest.mark.e2e

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

# Commands that end by themselves, and what they must print.
ENDING = {
    ".venv/bin/python manage.py migrate": "Running migrations",
    ".venv/bin/python manage.py createsuperuser": "",
    ".venv/bin/python manage.py graphql_schema --out docs/schema.graphql": "Successfully dumped",
}
# Commands that run until they are stopped, and what their log must say.
RUNNING = {
    " ".join([".venv/bin/uvicorn killboard.asgi:application --port 4000", *UVICORN_OPTIONS]): "Uvicorn running",
    " ".join([".venv/bin/uvicorn killboard.asgi:application --port 4001", *UVICORN_OPTIONS]): "Uvicorn running",
    ".venv/bin/celery -A killboard worker -Q feed -n feed@%h -l info": "Following the feed",
    ".venv/bin/celery -A killboard worker -Q publish,esi,bulk -n bulk@%h -l info": "ready.",
    ".venv/bin/celery -A killboard beat -l info": "beat: Starting...",
    ".venv/bin/python manage.py serve_recording": "FEED=live",
    ".venv/bin/python manage.py serve_recording mine.jsonl --rate 0.2": "FEED=live",
    ".venv/bin/python manage.py serve_recording --loop": "FEED=live",
}
# Commands for who looks at a board that runs, and what they print then; tests/e2e/test_guide.py asks them.
ASKING = {
    "redis-cli ping": r"^PONG$",
    "redis-cli -u $REDIS_URL ping": r"^PONG$",
    "redis-cli -u $REDIS_URL info stats": r"^total_commands_processed:\d+",
    "redis-cli -u $REDIS_URL pubsub channels 'killmail:*'": r"^killmail:__group__doorbell$",
    "redis-cli -u $REDIS_URL pubsub numsub killmail:__group__doorbell": r"^[1-9]\d*$",
    "redis-cli -u $REDIS_URL psubscribe 'killmail:*'": r"^pmessage\nkillmail:\*\nkillmail:__group__doorbell$",
    "redis-benchmark -u $REDIS_URL -q -n 200000 -c 4 publish killmail:benchmark x": r"\d{4,}\.\d+ requests per second",
    ".venv/bin/python manage.py diagnose": r"^✔ rabbitmq  ok",
    ".venv/bin/python manage.py check --deploy --tag killboard": r"no issues",
    "curl http://localhost:4000/health": r'^\{"status":"ok"',
    "curl http://localhost:4000/health/redis": r'"connected":true',
    'psql $DATABASE_URL -c "SELECT 1"': r"\(1 row\)",
    'psql $DATABASE_URL -c "SELECT relname, pg_size_pretty(pg_total_relation_size(relid)) FROM pg_stat_user_tables '
    'ORDER BY pg_total_relation_size(relid) DESC LIMIT 8"': r"killmails_killmail",
    "df -h": r"%",
    "ulimit -Hn": r"^\w+$",
}
# Commands that other tests run.
ELSEWHERE = {
    "./run": "tests/test_commands.py, tests/e2e/test_serve.py",
    "./test": "this run",
    "./test tests/killmails/test_store.py": "tests/test_commands.py",
    "./test --long": "by hand and by CI",
    ".venv/bin/python manage.py load_universe": "tests/killmails/test_static_data.py",
    ".venv/bin/python manage.py load_prices": "tests/killmails/test_prices.py",
    ".venv/bin/python manage.py new_epoch": "tests/e2e/test_epochs.py",
    ".venv/bin/python manage.py sync_status": "tests/e2e/test_users.py",
    ".venv/bin/python manage.py queue_user_killmails": "tests/e2e/test_users.py",
    ".venv/bin/python manage.py queue_user_killmails --force --full": "tests/killmails/test_user_commands.py",
    ".venv/bin/python manage.py queue_corporation_killmails": "tests/killmails/test_user_commands.py",
    ".venv/bin/python manage.py rotate_token_keys": "tests/killmails/test_tokens.py",
    ".venv/bin/python manage.py serve_fake_eve": "tests/killmails/test_fake_world.py",
    "python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'": "test_user_commands.py",
    ".venv/bin/python manage.py diagnose_redis": "tests/e2e/test_guide.py",
    ".venv/bin/python manage.py diagnose_redis --json": "tests/health/test_diagnose_redis.py",
    ".venv/bin/python manage.py test_redis_pubsub": "tests/e2e/test_guide.py",
    ".venv/bin/python manage.py test_redis_pubsub --publish": "tests/e2e/test_guide.py",
    "WORKER_ID=1 .venv/bin/celery -A killboard worker -Q feed -n feed1@%h -l info": "tests/e2e/test_guide.py",
    "WORKER_ID=2 .venv/bin/celery -A killboard worker -Q feed -n feed2@%h -l info": "tests/e2e/test_guide.py",
    "pg_dump --format=custom --file=killboard.dump $DATABASE_URL": "tests/e2e/test_guide.py",
    "pg_restore --clean --if-exists --no-owner --dbname=$DATABASE_URL killboard.dump": "tests/e2e/test_guide.py",
    ".venv/bin/python manage.py diagnose --json": "tests/e2e/test_health.py",
    ".venv/bin/pip install -r benchmarks/requirements.txt": "by hand: the benchmark needs more packages than the tests",
    ".venv/bin/python -m benchmarks.fanout": "tests/test_benchmarks.py",
    ".venv/bin/python -m benchmarks.doorbell": "tests/test_benchmarks.py",
    "cp .env.example .env": "tests/killboard/test_settings.py reads it",
}
# Commands that need root or change the machine; what they install is what tests/services starts.
ONLY_TOLD = ("sudo ", "brew ", "docker ", "export ", "timedatectl", "curl ")


def blocks(document: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def commands() -> list[str]:
    """Each line of each `sh` block, without its comment."""
    lines = [
        line.partition("  #")[0].strip()
        for document in DOCUMENTS
        for language, text in blocks(document)
        if language == "sh"
        for line in text.splitlines()
    ]
    return [line for line in dict.fromkeys(lines) if line and not line.startswith("#")]


def example(document: str, language: str) -> str:
    return next(text for name, text in blocks(ROOT / "docs" / document) if name == language)


@pytest.fixture(scope="module")
def documented_board(shared_board: Board) -> Iterator[Board]:
    """A board on the services whose feed is a recording; nothing is started yet."""
    with RecordingServer(load_recording(), rate=2, loop=True) as feed:
        shared_board.env["R2Z2_URL"] = feed.url
        yield shared_board


def test_every_command_in_the_documents_is_known_here() -> None:
    known = {*ENDING, *RUNNING, *ASKING, *ELSEWHERE}
    assert [line for line in commands() if line not in known and not line.startswith(ONLY_TOLD)] == []
    assert [line for line in known if line not in commands() and "createsuperuser" not in line] == []


def test_a_command_that_is_run_elsewhere_is_named_there() -> None:
    for command, place in ELSEWHERE.items():
        name = re.search(r"(?:manage\.py |-m )(\S+)|^(pg_\w+)", command)
        for file in re.findall(r"tests/\S+\.py", place):
            text = (ROOT / file).read_text()
            assert name is None or (name[1] or name[2]) in text, f"{command}: {file}"


def test_a_block_without_a_language_holds_no_command() -> None:
    for document in DOCUMENTS:
        for language, text in blocks(document):
            command = re.search(r"^(\S*python|\./|\S*celery|\S*uvicorn|curl)\b", text, re.MULTILINE)
            assert language or not command, f"{document.name}: {command}"


@pytest.mark.services
@pytest.mark.parametrize("command", RUNNING)
def test_a_command_that_runs_does_what_it_should(documented_board: Board, command: str, tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").write_bytes((ROOT / "killmails/recording/killmails.jsonl").read_bytes())
    line = command.replace(".venv/bin", str(BIN)).replace("mine.jsonl", str(tmp_path / "mine.jsonl"))
    line = re.sub(r"--port 400\d", f"--port {free_port()}", line)
    process = documented_board.start(f"documented-{free_port()}", *shlex.split(line))
    process.wait_for(RUNNING[command])
    assert process.stop(signal.SIGTERM) in (0, 143, -signal.SIGTERM)


@pytest.mark.services
@pytest.mark.parametrize("command", ENDING)
def test_a_command_that_ends_does_what_it_should(documented_board: Board, command: str) -> None:
    env = {"DJANGO_SUPERUSER_PASSWORD": "s3cret-enough", "DJANGO_SUPERUSER_USERNAME": "first"}
    env |= {"DJANGO_SUPERUSER_EMAIL": "first@example.com"}
    more = ["--noinput"] if "createsuperuser" in command else []
    arguments = [part.replace("docs/", f"{documented_board.folder}/") for part in shlex.split(command)[2:]]
    result = documented_board.manage(*arguments, *more, **env)
    assert result.returncode == 0, result.stderr
    assert ENDING[command] in result.stdout


@pytest.mark.parametrize("line", [line for line in commands() if line.startswith("curl ") and line not in ASKING])
def test_a_question_by_curl_is_answered(board: Board, line: str) -> None:
    command = shlex.split(line.replace("http://localhost:4000", board.url))
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith('{"data":{')
    assert '"errors"' not in result.stdout


GRAPHQL = [text for document in DOCUMENTS for language, text in blocks(document) if language == "graphql"]


@pytest.mark.parametrize("text", GRAPHQL)
def test_every_example_in_graphql_is_answered(board: Board, text: str) -> None:
    """A query over HTTP; a subscription is told where the log stands."""
    operation = engine.prepare(text, None, None)
    if operation.kind is OperationType.SUBSCRIPTION:
        with connect(board.websocket_url, subprotocols=["graphql-transport-ws"]) as ws:
            for message in ({"type": "connection_init"}, {"type": "subscribe", "id": "1", "payload": {"query": text}}):
                ws.send(json.dumps(message))
                answer = json.loads(ws.recv(60))
            assert answer["payload"]["data"]["killmailEvents"]["kind"] == "CHECKPOINT"
    else:
        wait_until(lambda: found(board, text), seconds=120)  # the recording has just begun


def found(board: Board, query: str) -> list[object]:
    answer = requests.post(f"{board.url}/graphql", json={"query": query}, timeout=60).json()
    assert "errors" not in answer
    return answer["data"]["killmails"]["nodes"]


def test_the_example_of_a_match_that_is_explained_is_what_the_board_says(board: Board) -> None:
    wait_until(lambda: found(board, "{ killmails { nodes { id } } }"), seconds=120)
    command = shlex.split(example("filters.md", "bash").replace("http://localhost:4000", board.url))
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    assert json.loads(answer) == json.loads(example("filters.md", "json"))


@pytest.fixture
def growing_board(services_board: Board) -> Board:
    """A board on the services that gets 50 killmails a second, and sends no more than 100 events again."""
    services_board.env |= {"FEED": "off", "MAX_REPLAY": "100"}
    services_board.uvicorn()
    Publisher(services_board, 50).begun()
    return services_board


def positions(process: Process) -> list[int]:
    return [int(number) for number in re.findall(r"\bposition\W+[0-9a-z]+:(\d+)", process.log.read_text())]


def go_on_through_a_restart(board: Board, bot: Process) -> list[int]:
    """The server is killed and started again; what the bot has printed when it has had 50 events more."""
    for _ in range(2):
        count = len(positions(bot))
        wait_until(lambda: len(positions(bot)) > count + 50, seconds=120)  # noqa: B023
        if board.processes[0].popen.poll() is None:
            board.processes[0].kill()
            board.uvicorn()
    return positions(bot)


def fall_behind(board: Board) -> None:
    """Until a bot that does not run now is further behind than a subscription sends again."""
    _, begun = head_of(board)
    wait_until(lambda: head_of(board)[1] > begun + 150, seconds=120)


def expect_each_once(bot: Process, numbers: list[int]) -> None:
    """Checkpoints repeat the position that was reached; nothing else does, and nothing is left out."""
    assert numbers == sorted(numbers)
    missing = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    assert missing == [], [line for line in bot.log.read_text().splitlines() if "ADDED" not in line]


@pytest.mark.services
def test_the_python_bot_misses_nothing_when_the_server_or_itself_is_killed(
    growing_board: Board, tmp_path: Path
) -> None:
    text = example("subscriptions.md", "python").replace("ws://localhost:4000", growing_board.websocket_url[:-8])
    script = tmp_path / "bot.py"
    script.write_text(text.replace('Path("position.txt")', f"Path({str(tmp_path / 'position.txt')!r})"))
    bot = Process("bot", [sys.executable, str(script)], growing_board.env, tmp_path)
    try:
        go_on_through_a_restart(growing_board, bot)
        bot.kill()
        fall_behind(growing_board)
        bot = Process("bot", [sys.executable, str(script)], growing_board.env, tmp_path)
        expect_each_once(bot, go_on_through_a_restart(growing_board, bot))
    finally:
        bot.kill()


@pytest.mark.services
def test_the_javascript_bot_comes_back_by_itself_and_misses_nothing(growing_board: Board, tmp_path: Path) -> None:
    if not node_is_here():
        print("Node or its packages are not here: the JavaScript example is left out.")
        return
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    script, address = tmp_path / "bot.mjs", growing_board.websocket_url[:-8]
    text = example("subscriptions.md", "javascript").replace("ws://localhost:4000", address)
    script.write_text(text.replace("'position.txt'", repr(str(tmp_path / "position.txt"))))
    bot = Process("bot", ["node", str(script)], growing_board.env, tmp_path)
    try:
        go_on_through_a_restart(growing_board, bot)
        bot.kill()
        fall_behind(growing_board)
        bot = Process("bot", ["node", str(script)], growing_board.env, tmp_path)
        go_on_through_a_restart(growing_board, bot)
        assert growing_board.processes[-1].stop() == 0
        growing_board.uvicorn("--ws-ping-interval", "1", "--ws-ping-timeout", "1")
        go_on_through_a_restart(growing_board, bot)
        bot.popen.send_signal(signal.SIGSTOP)
        fall_behind(growing_board)  # it does not answer pings meanwhile
        bot.popen.send_signal(signal.SIGCONT)
        expect_each_once(bot, go_on_through_a_restart(growing_board, bot))
    finally:
        bot.kill()


def test_the_settings_document_has_every_setting_and_no_other() -> None:
    table = re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(set(settings.VARIABLES))


def test_run_serves_with_the_options_that_are_documented_for_uvicorn() -> None:
    words = {
        name.removeprefix("no_"): "False" if name.startswith("no_") else value.capitalize()
        for name, value in re.findall(r"--([a-z-]+)(?: ([^-]\S*))?", " ".join(UVICORN_OPTIONS))
        for name in [name.replace("-", "_")]
    }
    assert words == {name: str(value).capitalize() for name, value in UVICORN.items()}


def test_every_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target, _, anchor in re.findall(r"\]\(([^)#]*)(#([^)]+))?\)", document.read_text()):
            if not target.startswith("http"):
                there = document.parent / target if target else document
                assert there.exists(), f"{document.name}: {target}"
                assert not anchor or anchor in headings(there), f"{document.name}: {target}#{anchor}"


def headings(document: Path) -> list[str]:
    """As they are called in a link."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


def test_the_folders_of_the_map_are_there() -> None:
    for folder in re.findall(r"^\| `(\w+)/` \|", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert (ROOT / folder).is_dir()
