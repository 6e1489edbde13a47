"""`python -m tests.services.run`: pytest with the three real services, and again the embedded way.

Without a path there are four lanes side by side, each with services of its own: most tests wait more than they work.
"""

import argparse
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

from tests.services import PostgreSQL, RabbitMQ, Redis
from tests.services.again import Failures, once_more, stops_early
from tests.services.guard import Guard, kill_tree
from tests.services.service import Service, ServiceError

ROOT = Path(__file__).resolve().parents[2]
BOARDS, DOMAIN = "tests/e2e", "tests/killmails"
EMBEDDED_LANE, OTHERS_LANE = 1, 3  # the first half of the boards is the shorter one
LANES = {1: "whole boards (1 of 2), and the embedded way", 2: "whole boards (2 of 2)", 3: "all but the domain"}
# Boards in the lane of the domain, which has room for them.
WITH_DOMAIN = [f"{BOARDS}/test_{name}.py" for name in ("deploy", "log_lines", "names")]
# What knows the database or the channel layer; of `realtime`, most tests have a log in memory.
EMBEDDED = [
    *("tests/killmails", "tests/health"),
    *("tests/realtime/test_doorbell.py", "tests/realtime/test_board_socket.py"),
]
# These know neither: once is enough.
SERVE_BOTH_WAYS = [
    *("tests/killmails/test_http.py", "tests/killmails/test_recording_server.py", "tests/killmails/test_zkillboard.py"),
    *("tests/killmails/test_recording.py", "tests/killmails/test_records.py", "tests/killmails/test_strict_json.py"),
    *("tests/killmails/test_admin_escaping.py", "tests/killmails/test_esi.py", "tests/killmails/test_fake_esi.py"),
    *("tests/killmails/test_values.py", "tests/killmails/test_fitting.py"),
    # Pages and rights: whatever database is below them.
    *("tests/killmails/test_admin_quarantine.py", "tests/killmails/test_admin_rights.py"),
    *("tests/killmails/test_admin.py", "tests/killmails/test_admin_feed.py"),
    *("tests/killmails/test_sso.py", "tests/killmails/test_fake_sso.py", "tests/killmails/test_esi_recent.py"),
    *("tests/killmails/test_fake_world.py", "tests/killmails/test_static_data.py"),
    # What comes over HTTP, and how it is read.
    *("tests/killmails/test_feed_fields.py", "tests/killmails/test_feed_packages.py"),
    *("tests/killmails/test_feed_pointer.py", "tests/killmails/test_explain.py"),
]
NOTHING_COLLECTED = 5
BROKEN = 6  # no exit code of pytest's: not all was run
STOP_SECONDS = 20
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(Exception):
    """A signal asked us to end; the number says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"ended by {signal.Signals(signum).name}")
        self.signum = signum


def main(arguments: list[str]) -> int:
    """Run what the arguments ask for; returns the worst exit code, or 128 + the signal that ended it."""
    options, pytest_arguments = _parse(arguments)
    for signum in SIGNALS:
        signal.signal(signum, _interrupt)
    try:
        if options.lane == OTHERS_LANE:
            return _run_with_services(options, [*pytest_arguments, f"--ignore={BOARDS}", f"--ignore={DOMAIN}"])
        if options.lane:
            code = _run_with_services(options, [*pytest_arguments, *_boards(options.lane)])
            return code if options.lane != EMBEDDED_LANE else _worst([code, _run_embedded(options, pytest_arguments)])
        if _names_a_path(pytest_arguments):
            return _run_with_services(options, pytest_arguments)
        if options.long:  # one after the other: its tests compare times
            return _worst([_run_with_services(options, pytest_arguments), _run_embedded(options, pytest_arguments)])
        return _run_lanes(options, arguments, pytest_arguments)
    except Interrupted as interrupted:
        return 128 + interrupted.signum
    except ServiceError as error:
        print(f"./test: {error}", file=sys.stderr)
        return BROKEN


def _run_lanes(options: argparse.Namespace, arguments: list[str], pytest_arguments: list[str]) -> int:
    with _guarded_folder() as (folder, _), contextlib.ExitStack() as stack:
        options.failures = str(folder)
        lanes = [stack.enter_context(_lane(number, [f"--failures={folder}", *arguments])) for number in LANES]
        code = _run_with_services(options, [*pytest_arguments, DOMAIN, *WITH_DOMAIN])
        code = _worst([code, *(finish() for finish in lanes)])
        failures = Failures(folder)
        options.failures = None
        ways = {"services": _run_with_services, "embedded": _run_embedded}

        def run(way: str, tests: list[str]) -> int:
            return ways[way](options, [*pytest_arguments, *tests])

        return code if stops_early(pytest_arguments) else once_more(code, {way: failures.of(way) for way in ways}, run)


def _parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(prog="./test", allow_abbrev=False, epilog="All else is given to pytest.")
    parser.add_argument("--long", action="store_true", help="run the tests that take minutes, too (LONG=1)")
    parser.add_argument("--lane", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--failures", metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("-m", dest="mark", metavar="MARKEXPR", help="as in pytest")
    return parser.parse_known_args(arguments)


def _worst(codes: list[int]) -> int:
    """`-k` may well choose tests that only one of the runs has."""
    return max((code for code in codes if code != NOTHING_COLLECTED), default=NOTHING_COLLECTED)


def _boards(lane: int) -> list[str]:
    """Every second file of the boards' tests: about half of their time."""
    files = [str(file.relative_to(ROOT)) for file in sorted((ROOT / BOARDS).glob("test_*.py"))]
    return [file for file in files if file not in WITH_DOMAIN][lane - 1 :: 2]


@contextlib.contextmanager
def _lane(number: int, arguments: list[str]) -> Iterator[Callable[[], int]]:
    """Another one of us, with the tests of this lane.

    What it prints comes when `finish` is called.
    """
    with _guarded_folder() as (folder, guard):
        log = folder / "log"
        with log.open("wb") as output:
            command = [sys.executable, "-m", "tests.services.run", f"--lane={number}", *arguments]
            process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT)
        guard.watch(process.pid)

        def finish() -> int:
            code = process.wait()
            print(f"\n./test: meanwhile, {LANES[number]}\n", flush=True)
            sys.stdout.write(log.read_text(errors="replace"))
            sys.stdout.flush()
            return _exit_code(code)

        try:
            yield finish
        finally:
            if process.poll() is None:
                process.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)
            guard.forget(process.pid)


def _names_a_path(arguments: list[str]) -> bool:
    names = [argument.split("::")[0] for argument in arguments if not argument.startswith("-")]
    return any((ROOT / name).exists() for name in names)


def _run_with_services(options: argparse.Namespace, arguments: list[str]) -> int:
    with contextlib.ExitStack() as stack:
        # RabbitMQ first: it takes seconds, in which the others come up.
        rabbitmq, redis, postgresql = RabbitMQ(), Redis(), PostgreSQL()
        services: list[Service] = [rabbitmq, redis, postgresql]
        for service in services:
            stack.callback(service.close)
        for service in services:
            service.launch()
        for service in services:
            service.wait_until_ready()
        addresses = {
            "DATABASE_URL": postgresql.url,
            "REDIS_URL": redis.url,
            "RABBITMQ_URL": rabbitmq.url,
            "USE_REDIS_PUBSUB": "true",
        }
        mark = ["-m", options.mark] if options.mark else []
        return _run_pytest(options, "services", addresses, [*mark, *arguments])


def _run_embedded(options: argparse.Namespace, arguments: list[str]) -> int:
    print("\n./test: once more without the services: SQLite, and all in one process", flush=True)
    # Empty, not absent: a .env file of the developer must not bring them back.
    nothing = {"DATABASE_URL": "", "REDIS_URL": "", "RABBITMQ_URL": "", "USE_REDIS_PUBSUB": "false", "DEBUG": "true"}
    paths = [] if _names_a_path(arguments) else [*(f"--ignore={path}" for path in SERVE_BOTH_WAYS), *EMBEDDED]
    mark = f"({options.mark}) and not services" if options.mark else "not services"
    return _run_pytest(options, "embedded", nothing, [*arguments, "-m", mark, *paths])


def _run_pytest(options: argparse.Namespace, way: str, addresses: dict[str, str], arguments: list[str]) -> int:
    """Run pytest in a session of its own, so that one Ctrl-C reaches it once: from us."""
    cache = ["-o", f"cache_dir={Failures(Path(options.failures)).cache(way)}"] if options.failures else []
    with _guarded_folder() as (folder, guard):
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *cache, *arguments],
            cwd=ROOT,
            env=os.environ | _environment(options, folder) | addresses,
            start_new_session=True,
        )
        guard.watch(process.pid)
        try:
            return _exit_code(process.wait())
        except Interrupted:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            raise
        finally:
            # pytest itself when it did not end, and what it left behind.
            if process.poll() is None:
                kill_tree(process.pid)
                process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            guard.forget(process.pid)


def _environment(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    return {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "DEBUG": "false",
        "FEED": "off",
        "CONTACT": "tests@example.com",
        "DATA_DIR": str(folder),
        # Hundreds of processes are started: they compile our modules once.
        "PYTHONDONTWRITEBYTECODE": "",
    } | ({"LONG": "1"} if options.long else {})


@contextlib.contextmanager
def _guarded_folder() -> Iterator[tuple[Path, Guard]]:
    folder = Path(tempfile.mkdtemp(prefix="killboard-tests-"))
    guard = Guard(folder)
    try:
        yield folder, guard
    finally:
        guard.close()


def _exit_code(code: int) -> int:
    return 128 - code if code < 0 else code


def _interrupt(signum: int, frame: FrameType | None) -> None:
    # Once: what follows is the cleaning up, which takes a known time and must not be cut short.
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(signum)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Exception:  # noqa: BLE001  (Python's own code for it is that of tests that failed, which may run once more)
        traceback.print_exc()
        sys.exit(BROKEN)
