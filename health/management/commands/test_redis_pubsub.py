"""`manage.py test_redis_pubsub`: prints what arrives on the doorbell until Ctrl-C; `--publish` rings it once."""

import argparse
import asyncio
import errno
import os
from datetime import UTC, datetime
from typing import Any

import redis
from django.conf import settings
from django.core.management import BaseCommand, CommandError

from realtime.canary import ring_for_a_test
from realtime.doorbell import Listener, Message, own_id

PUBLISH_LIMIT = 3.0  # seconds


class Command(BaseCommand):
    help = "Prints what arrives on the doorbell until Ctrl-C. With --publish: rings it once, and wakes nobody."
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--publish", action="store_true", help="ring once, for one that listens in another terminal"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if settings.REDIS is None:
            raise CommandError("This board uses no Redis (REDIS_URL, USE_REDIS_PUBSUB): nothing could arrive here.")
        try:
            asyncio.run(self._publish() if options["publish"] else self._listen())
        except BrokenPipeError:  # `| head` has read enough; manage.py ends then
            raise
        except (redis.RedisError, OSError) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:
                raise CommandError(f"What is printed cannot be written: {os.strerror(errno.ENOSPC)}.") from error
            kind = type(error).__name__
            raise CommandError(f"Redis at {settings.REDIS} does not answer ({kind}): see diagnose_redis.") from error

    async def _publish(self) -> None:
        async with asyncio.timeout(PUBLISH_LIMIT):
            await ring_for_a_test()
        self.stdout.write("Rung.")

    async def _listen(self) -> None:
        """A listener as the servers have one, which finds back when its connection is lost."""
        heard: asyncio.Queue[Message] = asyncio.Queue()
        listening = asyncio.create_task(Listener(lambda _: None, lambda: 0, heard.put_nowait).run())
        self.stdout.write(f"Listening at {settings.REDIS_MASKED}, until Ctrl-C.")
        self.stdout.flush()
        try:
            while True:
                self._tell(await heard.get())
        finally:
            listening.cancel()

    def _tell(self, message: Message) -> None:
        if line := _said(message):
            self.stdout.write(f"{datetime.now(UTC):%H:%M:%S.%f}"[:12] + f"  {line}")
            self.stdout.flush()


def _said(message: Message) -> str:
    """ "" for our own heartbeat."""
    who = message.get("from", "?")
    match message:
        case {"type": "doorbell.ring", "test": True}:
            return f"test        from {who}"
        case {"type": "doorbell.ring", "beat": _} if who == own_id():
            return ""
        case {"type": "doorbell.ring", "head": head, "beat": _}:
            return f"heartbeat   from {who}: the log is at {head}"
        case {"type": "doorbell.ring", "head": head}:
            return f"ring        from {who}: the log has moved to {head}"
        case {"type": "doorbell.canary"}:
            return "canary      of diagnose_redis"
    return f"unknown     {str(message)[:200]}"
