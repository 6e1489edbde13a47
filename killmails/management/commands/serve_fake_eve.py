"""A fake EVE on loopback, for a board in another process: its SSO and ESI, and pilots to log in as."""

import argparse
import secrets
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from killmails.fake_eve import Application, FakeEsi, World
from killmails.fake_eve.invented import DAYS, invented_world, killmails_until
from killmails.management.commands.serve_recording import port_argument

DEFAULT_PORT = 8900
CALLBACK = "http://localhost:4000/auth/callback"
MINUTE = 60.0  # seconds


def whole_number(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit() and least <= int(text[:9]) <= most):
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, not {text!r}")
        return int(text)

    return read


def callback_argument(text: str) -> str:
    if not (text.startswith(("http://", "https://")) and text.endswith("/auth/callback")):
        raise argparse.ArgumentTypeError(f"must be an address that ends with /auth/callback, not {text!r}")
    return text


class Command(BaseCommand):
    help = "Plays EVE's SSO and ESI on 127.0.0.1, with invented pilots and killmails, until Ctrl-C."
    requires_system_checks: list[str] = []  # needs neither database nor services

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=port_argument, default=DEFAULT_PORT, help=f"default {DEFAULT_PORT}; 0 = any")
        parser.add_argument("--pilots", type=whole_number(2, 150), default=20, help="who can log in (default 20)")
        parser.add_argument("--corporations", type=whole_number(1, 6), default=3, help="theirs (default 3)")
        parser.add_argument("--callback", type=callback_argument, default=CALLBACK, help=f"default {CALLBACK}")

    def handle(self, *args: Any, **options: Any) -> None:
        world = invented_world(options["pilots"], options["corporations"])
        world.killmails = killmails_until(world, datetime.now(UTC))
        application = Application(callbacks=(options["callback"],))
        try:
            fake = FakeEsi(world, port=options["port"], application=application)
        except OSError as error:
            raise CommandError(
                f"port {options['port']}: {error.strerror}; choose another --port", returncode=2
            ) from error
        fake.start()
        try:
            self._say(fake, world)
            while True:
                time.sleep(MINUTE)
                world.killmails = killmails_until(world, datetime.now(UTC))
        except KeyboardInterrupt:
            sys.exit(130)
        finally:
            fake.stop()

    def _say(self, fake: FakeEsi, world: World) -> None:
        directors = [world.characters[pilot] for pilot in world.roles if pilot in world.characters]
        their = ", ".join(f"{one['name']} ({world.corporations[one['corporation_id']]['name']})" for one in directors)
        (callback,) = fake.sso.application.callbacks
        for line in (
            f"{len(world.characters)} pilots and {len(world.killmails)} killmails of {DAYS} days, at {fake.url}",
            f"Directors: {their}",
            "For the board's .env:",
            "",
            f"SSO_URL={fake.url}",
            f"ESI_URL={fake.url}",
            f"EVE_CLIENT_ID={fake.sso.application.client_id}",
            "EVE_CLIENT_SECRET=",
            f"EVE_CALLBACK_URL={callback}",
            f"TOKEN_KEYS={urlsafe_b64encode(secrets.token_bytes(32)).decode()}",
            "FEED=off",
            "DATA_DIR=/tmp/fake-eve",
            "",
            f"Then start it, and log in at {callback.removesuffix('callback')}login  (Ctrl-C stops)",
        ):
            self.stdout.write(line)
        self.stdout.flush()
