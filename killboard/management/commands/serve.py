"""`manage.py serve`: the whole board in one process – server, Celery worker with the feed, beat."""

import argparse
import asyncio
import errno
import fcntl
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from django.conf import settings
from django.core.management import BaseCommand, CommandError, call_command

from killboard.checks import obey_checks
from killboard.embedded import Worker
from killboard.services import ask_services
from killmails.errors import KillmailError
from killmails.ingest.lease import next_sequence
from killmails.recording.server import RecordingServer
from killmails.recording.tape import load_recording
from killmails.universe.small import load_small_universe
from killmails.upstream.zkillboard import Zkillboard

PROBE_LIMIT = 5.0  # seconds that zKillboard has to answer before the recording is played
RECORDED_RATE = 0.5  # killmails a second
END_LIMIT = 9.0  # seconds from Ctrl-C to the end, whatever still runs
# As in docs/operations.md. A peer that is gone is noticed within 45 s; whom X-Forwarded-For names is ours to judge.
UVICORN: dict[str, Any] = {
    "ws": "websockets-sansio",
    "ws_max_size": settings.SOCKET_LIMITS["frame_size"],
    "ws_per_message_deflate": False,
    "ws_ping_interval": 35,
    "ws_ping_timeout": 10,
    "proxy_headers": False,
}
RECORDED_READY = 25  # killmails that are there at once, for the first page


class Command(BaseCommand):
    help = "Starts the whole board in one process: the server, a Celery worker with the feed, and beat."
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--port", type=_port, default=settings.PORT, help="default: PORT, or 4000")
        # For this command itself, when it starts again.
        parser.add_argument("--feed-decided", default="", help=argparse.SUPPRESS)

    def handle(self, *args: Any, port: int, feed_decided: str, **options: Any) -> None:
        obey_checks("server")
        listening = _listen(port)
        why = feed_decided or self._decide_feed()
        ask_services()
        _migrate()
        _forget_messages()
        load_small_universe(invented=settings.FEED == "recorded")
        with ExitStack() as running:
            feed_url = settings.R2Z2_URL
            if settings.FEED == "recorded":
                feed_url = self._play_recording(running)
            self._tell(port, why)
            running.enter_context(Worker(feed_url))
            _serve(listening)
        self.stdout.write("Stopped.")

    def _decide_feed(self) -> str:
        """FEED=auto: live where zKillboard answers, else the recording; then settings are read again with that.

        The answer: why it is the recording, in words, or "".
        """
        if settings.FEED_ASKED != "auto":
            return ""
        why = _what_ails_zkillboard()
        decided = "recorded" if why else "live"
        Path(settings.DATA_DIR, "feed").write_text(decided)
        if decided != settings.FEED:
            os.execv(sys.executable, [sys.executable, *sys.argv, "--feed-decided", why or "zKillboard answers"])
        return why

    def _play_recording(self, running: ExitStack) -> str:
        """The address of a small R2Z2 of our own, which goes on where this database has stopped."""
        server = RecordingServer(
            load_recording(),
            rate=RECORDED_RATE,
            first_sequence=next_sequence() or 1,
            ready=RECORDED_READY,
            loop=True,
        )
        return running.enter_context(server).url

    def _tell(self, port: int, why: str) -> None:
        url = f"http://localhost:{port}"
        recording = "a RECORDING of invented killmails"
        feed = {
            "live": f"zKillboard at {settings.R2Z2_URL}",
            "recorded": f"{recording} (FEED=recorded)",
            "off": "off",
        }[settings.FEED]
        if settings.FEED == "recorded" and why:
            feed = f"zKillboard cannot be reached: {recording} plays instead\n              ({why})"
        engine = (
            "PostgreSQL (DATABASE_URL)" if settings.DATABASE_URL else f"SQLite, {settings.DATABASES['default']['NAME']}"
        )
        redis = "Redis (distributed)" if settings.USE_REDIS_PUBSUB else "In-memory (single process only)"
        broker = "RabbitMQ (RABBITMQ_URL)" if settings.RABBITMQ_URL else "files"
        self.stdout.write(
            f"""
  The board runs at {url}/

    GraphQL   {url}/graphql   (open it in a browser for GraphiQL; websocket at the same address)
    Admin     {url}/admin/    (make the first user, in a second terminal: .venv/bin/python manage.py createsuperuser)

    Feed      {feed}
    Database  {engine}
    PubSub    {redis}
    Queue     {broker}; one worker and beat in this process

  Ctrl-C ends it.
"""
        )


def _migrate() -> None:
    """One at a time: two boards that start together in one folder would make the same tables."""
    with Path(settings.DATA_DIR, "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        call_command("migrate", verbosity=0, interactive=False)


def _forget_messages() -> None:
    """A power cut may have damaged the built-in queue's files; what they ask for stands in the database, too."""
    for folder in ("messages", "control"):
        for file in Path(settings.DATA_DIR, "queue", folder).glob("*"):
            file.unlink(missing_ok=True)


def _what_ails_zkillboard() -> str:
    """Why the feed cannot be read, or "" when it can."""
    try:
        Zkillboard(settings.R2Z2_URL, settings.CONTACT, deadline=PROBE_LIMIT).fetch_pointer()
    except KillmailError as error:
        return str(error)
    return ""


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 65535")
    return int(text)


def _listen(port: int) -> socket.socket:
    """The listening socket, before anything else begins; one line when it is not to be had."""
    family = socket.AF_INET6 if ":" in settings.HOST else socket.AF_INET
    try:
        return socket.create_server((settings.HOST, port), family=family, backlog=2048)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        hint = "is in use; stop what runs there or set PORT" if taken else f"cannot be used ({error.strerror})"
        name = "PORT" if taken else "HOST, PORT"
        raise CommandError(f"{name}: {settings.HOST}:{port} {hint}.", returncode=2) from error


class _Server(uvicorn.Server):
    """Uvicorn would send itself the signal again at its end, and so cut off the worker's clean stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self.handle_exit)
        yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A query that runs for minutes must not hold up the end; whatever is cut off is whole in the database."""
        if not self.should_exit:
            clock = threading.Timer(END_LIMIT, os._exit, [1])
            clock.daemon = True
            clock.start()
        super().handle_exit(sig, frame)


def _serve(listening: socket.socket) -> None:
    """Until Ctrl-C or SIGTERM."""
    log: dict[str, Any] = {"log_config": None, "log_level": "warning"}  # else its handlers would replace ours
    config = uvicorn.Config("killboard.asgi:application", **UVICORN, **log, timeout_graceful_shutdown=3)
    asyncio.run(_Server(config).serve(sockets=[listening]))
