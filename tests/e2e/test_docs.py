"""The documents do not lie: each command and example in them is run, each setting and link is there."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.conf import settings

from killmails.recording.server import RecordingServer, load_recording
from tests.e2e.processes import BIN, ROOT, Board, Process
from tests.e2e.subscribers import NODE_MODULES, node_is_here

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
    ".venv/bin/uvicorn killboard.asgi:application --port 4000 --ws websockets-sansio --ws-max-size 65536"
    " --ws-per-message-deflate false --lifespan off": "Uvicorn running",
    ".venv/bin/celery -A killboard worker -Q feed -n feed@%h -l info": "Following the feed",
    ".venv/bin/celery -A killboard worker -Q bulk -n bulk@%h -l info": "ready.",
    ".venv/bin/celery -A killboard beat -l info": "beat: Starting...",
    ".venv/bin/python manage.py serve_recording": "FEED=live",
    ".venv/bin/python manage.py serve_recording mine.jsonl --rate 0.2": "FEED=live",
    ".venv/bin/python manage.py serve_recording --loop": "FEED=live",
}
# Commands that other tests run.
ELSEWHERE = {
    "./run": "tests/test_commands.py, tests/e2e/test_serve.py",
    "./test": "this run",
    "./test tests/killmails/test_store.py": "tests/test_commands.py",
    "./test --long": "by hand and by CI",
    "cp .env.example .env": "tests/killboard/test_settings.py reads it",
}
# Commands that need root or change the machine; what they install is what tests/services starts.
ONLY_TOLD = ("sudo ", "redis-cli ", "curl ")


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


@pytest.fixture
def documented_board(services_board: Board) -> Iterator[Board]:
    """A board on the services whose feed is a recording."""
    with RecordingServer(load_recording(), rate=2) as feed:
        services_board.env["R2Z2_URL"] = feed.url
        yield services_board


def test_every_command_in_the_documents_is_known_here() -> None:
    known = {*ENDING, *RUNNING, *ELSEWHERE}
    assert [line for line in commands() if line not in known and not line.startswith(ONLY_TOLD)] == []
    assert [line for line in known if line not in commands() and "createsuperuser" not in line] == []


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
    line = line.replace("--port 4000", f"--port {documented_board.port}")
    process = documented_board.start("documented", *shlex.split(line))
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


def test_the_question_by_curl_is_answered(board: Board) -> None:
    (line,) = [line for line in commands() if line.startswith("curl ")]
    command = shlex.split(line.replace("http://localhost:4000", board.url))
    result = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert '"hasNextPage":' in result.stdout
    assert '"errors"' not in result.stdout


def first_line(board: Board, folder: Path, *command: str) -> str:
    process = Process("example", list(command), dict(os.environ) | {"PYTHONUNBUFFERED": "1"}, folder)
    try:
        process.wait_for("\n", seconds=40)
        return process.log.read_text().splitlines()[0]
    finally:
        process.kill()


def test_the_python_example_receives(board: Board, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(
        example("api.md", "python").replace("ws://localhost:4000", board.websocket_url[:-8])
    )
    assert "CHECKPOINT" in first_line(board, tmp_path, sys.executable, str(tmp_path / "example.py"))


def test_the_javascript_example_receives(board: Board, tmp_path: Path) -> None:
    if not node_is_here():
        print("Node or its packages are not here: the JavaScript example is left out.")
        return
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    script = tmp_path / "example.mjs"
    script.write_text(example("api.md", "javascript").replace("ws://localhost:4000", board.websocket_url[:-8]))
    assert "totalValue" in first_line(board, tmp_path, "node", str(script))


def test_the_settings_document_has_every_setting_and_no_other() -> None:
    table = re.findall(r"^\| `([A-Z0-9_]+)` \|", (ROOT / "docs/settings.md").read_text(), re.MULTILINE)
    assert sorted(table) == sorted(set(settings.VARIABLES))


def test_every_link_leads_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
            if not target.startswith("http"):
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_folders_of_the_map_are_there() -> None:
    for folder in re.findall(r"^\| `(\w+)/` \|", (ROOT / "README.md").read_text(), re.MULTILINE):
        assert (ROOT / folder).is_dir()
