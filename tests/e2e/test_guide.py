"""docs/redis.md, docs/operations.md and docs/troubleshooting.md: their commands asked of a board that runs, their words
found in the code, and each line of the guide that the board was asked for by has its counterpart and its proof.
"""

import ast
import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
import pytest

from killmails.recording.server import RecordingServer, load_recording
from tests.e2e.processes import BIN, ROOT, Board, Process
from tests.e2e.sockets import wait_until
from tests.e2e.test_docs import ASKING, blocks, commands, example

pytestmark = pytest.mark.e2e

APPS = ("killboard", "killmails", "realtime", "health")
REDIS = ROOT / "docs/redis.md"
PAGES = [REDIS, ROOT / "docs/operations.md", ROOT / "docs/troubleshooting.md"]
LIMIT = 120.0  # seconds until a command has said what it should

# The guide: its commands, settings and promises, as they stand there.
GUIDE = [
    "distributed PubSub to enable communication between independent processes",
    "Subscribers listen … publish() events",
    "Server and workers to run independently",
    "Horizontal scaling (multiple worker instances)",
    "Zero downtime worker restarts",
    "Production-ready architecture",
    "macOS with Homebrew (Recommended for Development)",
    "brew install redis",
    "brew services start redis",
    "redis-cli ping",
    "brew services info redis",
    "brew services stop redis",
    "brew services restart redis",
    "sudo apt-get update",
    "sudo apt-get install redis-server",
    "sudo systemctl start redis-server",
    "sudo systemctl enable redis-server",
    "Redis connection is configured in .env",
    'REDIS_URL="redis://localhost:6379"',
    "USE_REDIS_PUBSUB=true",
    "GraphQL API (port 4000)",
    "Subscriptions",
    "Redis PubSub subscriber",
    "Fetches killmails from zKillboard",
    "Saves to database",
    "Publishes to Redis → Server receives → UI updates",
    "Processes user killmail queue",
    "Fetches from ESI API",
    "yarn dev",
    "yarn worker:redisq",
    "yarn worker:user-killmails",
    "yarn queue:user-killmails",
    "redis-cli -u $REDIS_URL ping",
    "yarn diagnose:redis",
    "1. Environment variable configuration",
    "2. Redis connection (PING)",
    "3. PubSub publish/subscribe",
    "4. NEW_KILLMAIL channel specifically",
    "curl http://localhost:4000/health/redis",
    "curl https://your-domain.com/health/redis",
    '{"enabled", "publishClient", "subscribeClient", "connected", "url", "timestamp"}',
    '"url": "redis://****@localhost:6379"',
    "yarn ts-node redis/test-redis-pubsub.ts",
    "redis-cli",
    "INFO stats",
    "PUBSUB CHANNELS",
    "SUBSCRIBE killmail:*",
    "docker ps | grep rabbitmq",
    'psql -U postgres -h localhost -c "SELECT 1"',
    "First, run the diagnostic",
    "Verify USE_REDIS_PUBSUB=true in .env",
    "Review server logs for Redis connection errors",
    "PRODUCTION_TROUBLESHOOTING.md",
    "PubSub: Redis (distributed)",
    "PubSub: In-memory (single process only)",
    "WORKER_ID=1 yarn worker:redisq",
    "WORKER_ID=2 yarn worker:redisq",
    "All workers publish to same Redis → All subscribers receive events",
    "For production, use Redis cluster or managed Redis (AWS ElastiCache, Redis Cloud)",
    'REDIS_URL="redis://your-redis-cluster.com:6379"',
    'REDIS_PASSWORD="your-secure-password"',
    "Redis PubSub has negligible latency (<1ms)",
    "No persistence required for PubSub messages",
    "Scales to thousands of messages/second",
    "Perfect for real-time updates",
]


@cache
def rows() -> dict[str, str]:
    """The table at the end of docs/redis.md: what the guide says, and the proof of what is here."""
    table = REDIS.read_text().rpartition("\n## ")[2]
    found = re.findall(r"^\| `((?:\\\||[^|])+)` \| .+ \| (.+) \|$", table, re.MULTILINE)
    return {told.replace("\\|", "|"): proof for told, proof in found}


def test_each_line_of_the_guide_has_its_counterpart() -> None:
    assert list(rows()) == GUIDE


def test_each_proof_is_a_test() -> None:
    for line, proof in rows().items():
        named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", proof)
        assert named or proof == "told only", line
        for file, name in named:
            assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE), line


# Where a line is put together of several texts of the code.
SEAMS = re.compile("…|; (?=write)|: (?=[kRP]|the database|In-memory)|, and (?=DEBUG|another)|[.] (?=Set)")


def test_what_the_board_prints_in_the_documents_is_what_it_prints() -> None:
    """`…` stands for what differs; all that is between has to be a piece of one text of the code."""
    texts = list(printed())
    quoted = [
        line for page in PAGES for language, text in blocks(page) if language == "text" for line in text.splitlines()
    ]
    quoted += re.findall(r"`([^`\n]*[a-z(] …[^`\n]*|… [a-z][^`\n]*|[^`\n]{20,}[a-z]\.)`", PAGES[-1].read_text())
    heard = [text for language, text in blocks(REDIS) if language == "console"][-1]  # by test_redis_pubsub
    quoted += re.sub(r"\S*\d\S*", "…", heard).splitlines()
    assert len(quoted) > 40
    for line in quoted:
        for piece in SEAMS.split(line):
            words = piece.strip(" .,:")
            assert any(words in text for text in texts), f"{words!r} of {line!r}"


def printed() -> Iterator[str]:
    """Every text in the code; of those that are put together, each piece."""
    for app in APPS:
        for path in (ROOT / app).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield from re.split(r"%[\d.,]*[sdf]|\{[^}]*\}", node.value)


@pytest.fixture(scope="module")
def running(shared_board: Board) -> Iterator[Board]:
    """The whole board of docs/redis.md, each process started by the command that stands there."""
    with RecordingServer(load_recording(), rate=2, loop=True) as feed:
        shared_board.env |= {"R2Z2_URL": feed.url}
        ours = [line for line in commands() if not line.startswith("sudo ")]
        lines = [line for line in ours if re.search(r"--port 4000|feed\d@|bulk@|killboard beat", line)]
        assert len(lines) == 5
        for number, line in enumerate(lines):
            start(shared_board, f"process-{number}", line)
        wait_until(lambda: health(shared_board).get("status") == "ok", seconds=LIMIT)
        yield shared_board


def start(board: Board, name: str, line: str) -> Process:
    """As in a shell that stands in the project's folder."""
    line = line.replace(".venv/bin", str(BIN)).replace("--port 4000", f"--port {board.port}")
    line = line.replace("http://localhost:4000", board.url).replace("-n 200000", "-n 2000")
    line = line.replace("redis-cli ping", "redis-cli -u $REDIS_URL ping")  # at its own port there is none, or another
    return board.start(name, "bash", "-c", line)


def health(board: Board) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"{board.url}/health", timeout=60) as answer:
            return json.load(answer)
    except (urllib.error.URLError, OSError):
        return {}


def said(board: Board, name: str, line: str, pattern: str) -> str:
    """What a command has printed when it has printed that, or has ended with 0 by itself."""
    process = start(board, name, line)
    output = process.log.read_text

    def has_said() -> bool:
        return re.search(pattern, output(errors="replace"), re.MULTILINE) is not None

    wait_until(lambda: has_said() or process.popen.poll() is not None, seconds=LIMIT)
    if process.popen.poll() is None and "psubscribe" not in line:
        process.popen.wait(LIMIT)
    process.kill()
    assert has_said(), output(errors="replace")
    assert process.popen.returncode == (-signal.SIGKILL if "psubscribe" in line else 0), output(errors="replace")
    return output(errors="replace")


@pytest.mark.services
@pytest.mark.parametrize("line", ASKING)
def test_a_running_board_answers(running: Board, line: str) -> None:
    # A machine that stalls makes heartbeats late, for which the board is not to blame.
    wait_until(lambda: health(running).get("status") == "ok", seconds=LIMIT)
    assert said(running, f"asking-{list(ASKING).index(line)}", line, ASKING[line])


def without_what_differs(text: str) -> list[str]:
    """Words with a number in them: addresses, processes, times."""
    return [re.sub(r"\S*\d\S*", "#", line[2:]).rstrip() for line in text.strip().splitlines()]


@pytest.mark.services
def test_the_documented_diagnosis_is_a_real_one(running: Board) -> None:
    real = said(running, "diagnosis", ".venv/bin/python manage.py diagnose_redis", "^All of it works")
    assert without_what_differs(example("redis.md", "console")) == without_what_differs(real)


@pytest.mark.services
def test_the_documented_answer_is_a_real_one(running: Board) -> None:
    documented = json.loads(example("redis.md", "json"))
    with urllib.request.urlopen(f"{running.url}/health/redis", timeout=60) as answer:
        real = json.load(answer)
    differ = ("url", "timestamp")
    assert list(documented) == list(real)
    assert {name: documented[name] for name in documented if name not in differ} == {
        name: real[name] for name in real if name not in differ
    }


@pytest.mark.services
def test_subscribe_takes_no_pattern(running: Board) -> None:
    """The guide's `SUBSCRIBE killmail:*` is silent while `PSUBSCRIBE killmail:*` hears the servers' heartbeat."""
    deaf = start(running, "deaf", "redis-cli -u $REDIS_URL subscribe 'killmail:*'")
    deaf.wait_for("subscribe")
    hearing = start(running, "hearing", "redis-cli -u $REDIS_URL psubscribe 'killmail:*'")
    wait_until(lambda: hearing.log.read_text(errors="replace").count("pmessage") >= 2)
    assert deaf.log.read_text().split() == ["subscribe", "killmail:*", "1"]
    deaf.kill()
    hearing.kill()


@pytest.mark.services
def test_a_ring_from_another_terminal_is_heard(running: Board) -> None:
    listening = start(running, "terminal-a", "exec .venv/bin/python manage.py test_redis_pubsub")
    listening.wait_for("heartbeat   from")
    said(running, "terminal-b", ".venv/bin/python manage.py test_redis_pubsub --publish", r"^Rung\.$")
    listening.wait_for("test        from")
    assert listening.stop(signal.SIGINT) == 130


@pytest.mark.services
def test_the_second_worker_of_the_feed_stands_by(running: Board) -> None:
    parts = health(running)["parts"]
    workers = [worker for worker in parts["workers"]["workers"] if worker["queues"] == ["feed"]]
    assert [worker["worker_id"] for worker in workers] == ["1", "2"]
    assert re.match("worker [12] at ", parts["feed"]["held_by"])
    asked = [worker["worker_id"] for worker in workers if worker["counted"].get("upstream")]
    assert asked == [parts["feed"]["held_by"].split()[1]]


@pytest.mark.services
def test_a_backup_is_restored_as_documented(running: Board, tmp_path: Path) -> None:
    """Into a database of its own, since this one is in use."""
    page = (ROOT / "docs/operations.md").read_text()
    dump, restore = (re.search(rf"^{name} .*$", page, re.MULTILINE)[0] for name in ("pg_dump", "pg_restore"))
    server, _, name = running.env["DATABASE_URL"].rpartition("/")
    said(running, "dump", dump.replace("killboard.dump", f"{tmp_path}/killboard.dump"), "")
    with psycopg.connect(running.env["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}_restored")
        restored = {"DATABASE_URL": f"{server}/{name}_restored"}
        line = restore.replace("killboard.dump", f"{tmp_path}/killboard.dump")
        run = subprocess.run(["bash", "-c", line], env=os.environ | restored, capture_output=True, text=True)
        assert (run.returncode, run.stderr) == (0, "")
        assert "No migrations to apply" in running.manage("migrate", **restored).stdout
        assert "goes on at" in running.manage("new_epoch", **restored).stdout
        with psycopg.connect(restored["DATABASE_URL"]) as copy:
            assert copy.execute("SELECT count(*) FROM killmails_killmail").fetchone()[0] > 0
        connection.execute(f"DROP DATABASE {name}_restored WITH (FORCE)")
