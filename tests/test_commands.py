"""./run and ./test, each in a copy of its own, and `manage.py`: what they do, and what they say when they cannot."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.core.management import BaseCommand, CommandError, call_command, get_commands
from django.core.management.base import CommandParser

import manage

ROOT = Path(__file__).resolve().parents[1]
TOOLS = ["bash", "cat", "cmp", "dirname", "env", "flock", "grep", "id", "mktemp", "mv", "rm", "sh", "tail"]
PROBE = "killboard_probe-1.0-py3-none-any.whl"


@pytest.fixture
def copy() -> Iterator[Path]:
    """The commands, with a stand-in for the board, in a folder that any user can reach."""
    folder = Path(tempfile.mkdtemp(prefix="killboard-commands-"))
    folder.chmod(0o755)
    shutil.copytree(ROOT / ".ci", folder / ".ci")
    for name in ("run", "test", "requirements.txt", "requirements-build.txt", "requirements-test.txt"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "manage.py").write_text("import sys\nprint('started', *sys.argv[1:])\n")
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def tools(copy: Path) -> Path:
    """A folder to be the PATH: what the scripts call, and no Python."""
    folder = copy / "tools"
    folder.mkdir()
    for name in TOOLS:
        path = shutil.which(name)
        if path is not None:
            (folder / name).symlink_to(path)
    return folder


def command(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def call(folder: Path, *arguments: str, user: int | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Call a command of the copy from another folder, with nothing of our environment but what is given."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "PIP_CONFIG_FILE": os.devnull} | env
    return subprocess.run(
        [str(folder / arguments[0]), *arguments[1:]],
        cwd="/",
        env=environment,
        user=user,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )


def refusal(answer: subprocess.CompletedProcess[str]) -> str:
    """What was said, having checked that it is one line and that the exit code tells of it."""
    assert answer.returncode == 1, answer
    assert answer.stderr.count("\n") == 1, answer.stderr
    return answer.stderr.rstrip("\n")


def offer_probe(folder: Path) -> dict[str, str]:
    """Make an index of one tiny package, and require just that; returns the settings for pip."""
    index = folder / "index"
    index.mkdir()
    with zipfile.ZipFile(index / PROBE, "w") as wheel:
        info = "killboard_probe-1.0.dist-info"
        wheel.writestr("killboard_probe.py", "")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: killboard-probe\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256((index / PROBE).read_bytes()).hexdigest()
    for name in ("requirements.txt", "requirements-build.txt"):
        (folder / name).write_text(f"killboard-probe==1.0 --hash=sha256:{digest}\n")
    (folder / "manage.py").write_text("import sys, killboard_probe\nprint('started', *sys.argv[1:])\n")
    return {"PYTHON": sys.executable, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)}


def test_run_without_python_says_what_to_install(copy: Path, tools: Path) -> None:
    assert refusal(call(copy, "run", PATH=str(tools))) == (
        "./run: Python was not found: install Python 3.11 or newer"
        " (Debian, Ubuntu: apt-get install python3 python3-venv)"
    )


def test_run_with_an_old_python_names_its_version(copy: Path, tools: Path) -> None:
    command(tools / "python3", "echo 3.9.2; exit 1")
    assert refusal(call(copy, "run", PATH=str(tools))) == (
        "./run: python3 is Python 3.9.2, but 3.11 or newer is needed:"
        " install it, or name one with PYTHON=/path/to/python3"
    )


def test_run_takes_a_newer_python_that_has_another_name(copy: Path, tools: Path) -> None:
    settings = offer_probe(copy)
    command(tools / "python3", "echo 3.9.2; exit 1")
    command(tools / "python3.12", f'exec {settings.pop("PYTHON")} "$@"')
    assert call(copy, "run", PATH=str(tools), **settings).stdout.endswith("started serve\n")


def test_run_with_a_python_that_cannot_be_started_names_the_variable(copy: Path) -> None:
    assert refusal(call(copy, "run", PYTHON="/no/such python")) == (
        "./run: PYTHON=/no/such python cannot be started: name a Python 3.11 or newer, or unset PYTHON"
    )


def test_run_without_the_venv_module_names_its_package(copy: Path, tools: Path) -> None:
    command(tools / "python3", f'[ "$2" != "import venv, ensurepip" ] && exec {sys.executable} "$@"')
    assert refusal(call(copy, "run", PATH=str(tools))) == (
        "./run: python3 has no venv module: install it (Debian, Ubuntu: apt-get install python3-venv) and start again"
    )
    assert not (copy / ".venv").exists()


def test_run_in_a_folder_that_is_not_writable_names_it(copy: Path, tools: Path) -> None:
    command(tools / "python3", 'case "$2" in *version_info*) echo 3.11.2 ;; *) exit 1 ;; esac')
    command(tools / "id", "echo someone")
    copy.chmod(0o555)
    # Root may write anywhere: be nobody.
    user = 65534 if os.geteuid() == 0 else None
    assert refusal(call(copy, "run", user=user, PATH=str(tools))) == (
        f"./run: cannot write to {copy}, where the packages go (.venv): make it writable for someone,"
        " or use a copy elsewhere"
    )


def test_run_without_a_network_says_so_each_time(copy: Path) -> None:
    for _ in range(2):
        answer = call(copy, "run", PYTHON=sys.executable, PIP_INDEX_URL="http://127.0.0.1:9/simple")
        assert refusal(answer) == (
            "./run: the package index cannot be reached: connect to the network"
            " (or set HTTPS_PROXY, PIP_INDEX_URL) and start again; details in .venv/install.log"
        )


def test_run_refuses_a_package_with_another_hash(copy: Path) -> None:
    settings = offer_probe(copy)
    for name in ("requirements.txt", "requirements-build.txt"):
        (copy / name).write_text(f"killboard-probe==1.0 --hash=sha256:{'0' * 64}\n")
    answer = call(copy, "run", **settings)
    assert refusal(answer).startswith("./run: the package index served a file whose hash is not the pinned one;")
    assert "started" not in answer.stdout


def test_run_installs_once_and_then_starts_without_any_index(copy: Path) -> None:
    first = call(copy, "run", "--port", "8001", **offer_probe(copy))
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.splitlines() == [
        "./run: installing the packages of requirements.txt into .venv (once, about half a minute)",
        "started serve --port 8001",
    ]
    second = call(copy, "run", PYTHON=sys.executable, PIP_NO_INDEX="1")
    assert (second.returncode, second.stdout, second.stderr) == (0, "started serve\n", "")


def test_run_makes_an_unfinished_environment_anew(copy: Path) -> None:
    settings = offer_probe(copy)
    # As a kill leaves it: a folder that looks right, a Python that starts, and packages that are not whole.
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", copy / ".venv"], check=True)
    answer = call(copy, "run", **settings)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines()[0] == "./run: .venv is unfinished or of another Python: making it anew"
    assert answer.stdout.splitlines()[-1] == "started serve"


def test_a_change_that_cannot_be_installed_leaves_the_old_packages_usable(copy: Path) -> None:
    settings = offer_probe(copy)
    assert call(copy, "run", **settings).returncode == 0
    pinned = (copy / "requirements.txt").read_text()
    (copy / "requirements.txt").write_text(pinned + f"other==1.0 --hash=sha256:{'0' * 64}\n")
    assert "the packages could not be installed: " in refusal(call(copy, "run", **settings))
    (copy / "requirements.txt").write_text(pinned)
    assert call(copy, "run", PYTHON=sys.executable, PIP_NO_INDEX="1").stdout == "started serve\n"


def test_test_without_its_programs_names_their_packages(copy: Path, tools: Path) -> None:
    command(tools / "python3", f'exec {sys.executable} "$@"')
    command(tools / "id", "echo 1000")
    answer = refusal(call(copy, "test", PATH=str(tools)))
    found = re.fullmatch(
        r"\./test: missing: (.+)\. Install: sudo apt-get install -y --no-install-recommends (.+)", answer
    )
    assert found is not None, answer
    assert found[1] == found[2]
    # The two others are looked for where Debian puts them, and not on the PATH.
    assert {"redis-server", "chromium"} <= set(found[1].split())
    assert not (copy / ".venv").exists()


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt", "requirements-test.txt"])
def test_each_pinned_package_has_a_hash_and_no_index_is_named(name: str) -> None:
    text = (ROOT / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.lstrip().startswith("#")]
    assert lines
    assert [line for line in lines if not re.match(r"[a-z0-9-]+==[^ ]+ .*--hash=sha256:[0-9a-f]{64}", line)] == []


# manage.py

OURS = sorted(name for name, app in get_commands().items() if app in ("killboard", "killmails", "realtime", "health"))
# These make the tables, need none, or tell that they are missing.
WITHOUT_TABLES = {"serve", "serve_recording", "serve_fake_eve", "diagnose", "diagnose_redis", "test_redis_pubsub"}
NEEDED = {"queue_killmail": ["1", "0" * 40]}  # arguments without which a command says something else first
Started = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Started]:
    """Starts a command, in an empty SQLite database of its own; several at once take less time."""
    processes: list[subprocess.Popen[str]] = []

    def start(*arguments: str, stdout: int = subprocess.PIPE, **env: str) -> subprocess.Popen[str]:
        environment = os.environ | {"DATABASE_URL": "", "DATA_DIR": str(tmp_path), "FEED": "off"} | env
        command = [sys.executable, "manage.py", *arguments]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code, and what it said to the operator."""
    _, errors = process.communicate(timeout=300)
    assert "Traceback" not in errors
    return process.returncode, errors


@pytest.mark.parametrize(
    ("arguments", "why"),
    [([name, *NEEDED.get(name, []), "--nonsense"], "unrecognized arguments: --nonsense") for name in OURS]
    + [(["serve", "--port=-1"], "argument --port: '-1' is not a whole number from 1 to 65535")],
)
def test_a1_an_argument_that_is_none_is_one_line_that_names_it(
    arguments: list[str], why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for owner, name in ((CommandParser, "print_usage"), (BaseCommand, "check_migrations")):
        monkeypatch.setattr(owner, name, getattr(owner, name))  # what it changes in its own process, not in ours
    monkeypatch.setattr(sys, "argv", ["manage.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        manage.main()
    assert ended.value.code == 2
    assert capsys.readouterr() == ("", f"manage.py {arguments[0]}: error: {why}\n")


@pytest.mark.parametrize(
    ("name", "why"), [("none", "cannot be read: No such file"), (".", "cannot be read: Is a"), ("picture", "line 1: ")]
)
def test_a4_a_file_that_cannot_be_played_is_one_line_that_names_it(name: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "picture").write_bytes(b"\x89PNG\r\n\x1a\n\x00")
    with pytest.raises(CommandError) as refused:
        call_command("serve_recording", str(tmp_path / name))
    assert refused.value.returncode == 2
    assert str(refused.value).startswith(str(tmp_path / name))
    assert why in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("command", [["serve_recording", "--port=0"], ["test_redis_pubsub"]])
def test_a5_ctrl_c_is_an_end_without_a_word(start: Started, command: list[str]) -> None:
    process = start(*command, PYTHONUNBUFFERED="1")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "")


@pytest.mark.django_db(transaction=True)
def test_a5_ctrl_c_in_the_middle_of_a_change_leaves_nothing_of_it(start: Started) -> None:
    from django.db import connection

    address = os.environ["DATABASE_URL"].rpartition("/")[0] + "/" + connection.settings_dict["NAME"]
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with psycopg.connect(address) as other, psycopg.connect(address, autocommit=True) as observer:
        before = other.execute("SELECT * FROM killmails_loghead FOR UPDATE").fetchall()
        process = start("new_epoch", DATABASE_URL=address)
        wait_until(lambda: observer.execute(waiting).fetchone() == (1,), process)
        process.send_signal(signal.SIGINT)
        assert ended(process) == (130, "")
        other.rollback()
        assert observer.execute("SELECT * FROM killmails_loghead").fetchall() == before


def wait_until(condition: Callable[[], Any], process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, ended(process)
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_every_command_of_ours_has_its_line_in_the_table_for_operators() -> None:
    table = re.findall(r"^\| `(\w+)", (ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert set(OURS) - {"runserver"} <= set(table)  # that one is Django's, for developers


def test_a6_every_command_says_that_tables_are_missing(start: Started) -> None:
    commands = [*(name for name in OURS if name not in WITHOUT_TABLES), "createsuperuser"]
    assert {"new_epoch", "runserver"} <= set(commands)
    for process in [start(name, *NEEDED.get(name, [])) for name in commands]:
        assert ended(process) == (
            5,
            "killboard does not start: the database lacks tables of this version; run: python manage.py migrate\n",
        )


def test_a7_a_reader_that_is_gone_ends_a_command_without_a_word(start: Started) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    processes = [start(*command, stdout=writer) for command in (["serve_recording", "--port=0"], ["diagnose_redis"])]
    os.close(writer)
    for process in processes:
        assert ended(process) == (141, "")
