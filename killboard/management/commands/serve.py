"""`manage.py serve`: the whole board in one process – server, Celery worker with the feed, beat."""

import argparse
import asyncio
import errno
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from django.conf import settings
from django.core.management import BaseCommand, CommandError, call_command

from killboard.embedded import Worker
from killmails.errors import KillmailError
from killmails.ingest.lease import next_sequence
from killmails.recording.server import RecordingServer
from killmails.recording.tape import load_recording
from killmails.universe.small import load_small_universe
from killmails.upstream.zkillboard import Zkillboard

PROBE_LIMIT = 5.0  # seconds that zKillboard has to answer before the recording is played
RECORDED_RATE = 0.5  # killmails a second
MAX_FRAME = 64 * 1024  # bytes, of a websocket
RECORDED_READY = 25  # killmails that are there at once, for the first page


class Command(BaseCommand):
    help = "Starts the whole board in one process: the server, a Celery worker with the feed, and beat."
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--port", type=int, default=settings.PORT, help="default: PORT, or 4000")

    def handle(self, *args: Any, port: int, **options: Any) -> None:
        self._decide_feed()
        listening = _listen(port)
        call_command("migrate", verbosity=0, interactive=False)
        with ExitStack() as running:
            feed_url = settings.R2Z2_URL
            if settings.FEED == "recorded":
                feed_url = self._play_recording(running)
            self._tell(port)
            running.enter_context(Worker(feed_url))
            _serve(listening)
        self.stdout.write("Stopped.")

    def _decide_feed(self) -> None:
        """FEED=auto: live where zKillboard answers, else the recording; then settings are read again with that."""
        if settings.FEED_ASKED != "auto":
            return
        decided = "live" if _zkillboard_answers() else "recorded"
        Path(settings.DATA_DIR, "feed").write_text(decided)
        if decided != settings.FEED:
            os.execv(sys.executable, [sys.executable, *sys.argv])

    def _play_recording(self, running: ExitStack) -> str:
        """The address of a small R2Z2 of our own, which goes on where this database has stopped."""
        load_small_universe()
        server = RecordingServer(
            load_recording(),
            rate=RECORDED_RATE,
            first_sequence=next_sequence() or 1,
            ready=RECORDED_READY,
            loop=True,
        )
        return running.enter_context(server).url

    def _tell(self, port: int) -> None:
        url = f"http://localhost:{port}"
        feed = {
            "live": f"zKillboard at {settings.R2Z2_URL}",
            "recorded": f"{settings.R2Z2_URL} cannot be reached: a RECORDING of invented killmails plays instead",
            "off": "off",
        }[settings.FEED]
        if settings.FEED_ASKED == "recorded":
            feed = "a RECORDING of invented killmails (FEED=recorded)"
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


def _zkillboard_answers() -> bool:
    try:
        Zkillboard(settings.R2Z2_URL, settings.CONTACT, deadline=PROBE_LIMIT).fetch_pointer()
    except KillmailError:
        return False
    return True


def _listen(port: int) -> socket.socket:
    """The listening socket, before anything else begins; one line when the port is taken."""
    try:
        return socket.create_server((settings.HOST, port), backlog=2048)
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        hint = "is in use; stop what runs there or set PORT" if taken else f"cannot be used ({error.strerror})"
        raise CommandError(f"PORT: {settings.HOST}:{port} {hint}.", returncode=2) from error


class _Server(uvicorn.Server):
    """Uvicorn would send itself the signal again at its end, and so cut off the worker's clean stop."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, self.handle_exit)
        yield


def _serve(listening: socket.socket) -> None:
    """Until Ctrl-C or SIGTERM."""
    config = uvicorn.Config(
        "killboard.asgi:application",
        ws="websockets-sansio",
        ws_max_size=MAX_FRAME,
        ws_per_message_deflate=False,
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=3,
    )
    asyncio.run(_Server(config).serve(sockets=[listening]))
