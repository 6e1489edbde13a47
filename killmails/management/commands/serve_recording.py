"""Play a recording as an R2Z2 feed on loopback, for a board in another process."""

import argparse
import math
import sys
import threading
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from killmails.errors import BadRecording
from killmails.recording.server import RecordingServer, load_recording

DEFAULT_PORT = 8474
MAX_RATE = 10_000.0


def rate_argument(text: str) -> float:
    """Killmails a second, above 0."""
    try:
        rate = float(text)
    except ValueError:
        rate = math.nan
    if not 0 < rate <= MAX_RATE:
        raise argparse.ArgumentTypeError(f"must be killmails a second, above 0 and at most {MAX_RATE:g}, not {text!r}")
    return rate


def port_argument(text: str) -> int:
    """A TCP port; 0 takes a free one."""
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"must be a port from 0 to 65535, not {text!r}")
    return int(text)


class Command(BaseCommand):
    help = "Plays a recording of killmails as zKillboard's feed (R2Z2) on 127.0.0.1, until Ctrl-C."
    requires_system_checks: list[str] = []  # needs neither database nor services

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "file", nargs="?", type=Path, help="a recording, one killmail a line (default: the shipped)"
        )
        parser.add_argument("--rate", type=rate_argument, default=1.0, help="killmails a second (default 1)")
        parser.add_argument("--port", type=port_argument, default=DEFAULT_PORT, help=f"default {DEFAULT_PORT}; 0 = any")
        parser.add_argument("--loop", action="store_true", help="start again at the end, as new killmails of now")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            killmails = load_recording(options["file"])
        except BadRecording as error:
            raise CommandError(str(error), returncode=2) from error
        server = RecordingServer(killmails, rate=options["rate"], loop=options["loop"], port=options["port"])
        try:
            server.start()
        except OSError as error:
            raise CommandError(
                f"port {options['port']}: {error.strerror}; choose another --port", returncode=2
            ) from error
        try:
            manner = "again and again" if options["loop"] else "once"
            self.stdout.write(f"{len(killmails)} killmails, {options['rate']:g} a second, {manner}, at {server.url}")
            self.stdout.write(
                f"A board of its own: R2Z2_URL={server.url} FEED=live DATA_DIR=/tmp/recorded  (Ctrl-C stops)"
            )
            self.stdout.flush()
            threading.Event().wait()
        except KeyboardInterrupt:
            sys.exit(130)
        finally:
            server.stop()
