"""Have one killmail fetched from ESI."""

import re
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from killmails.management.queue import NOT_TOLD
from killmails.models import Priority
from killmails.queueing import REFUSED, STORED, queue_killmail, wait_until_rung, why_refused


class Command(BaseCommand):
    help = "Queues a killmail by its id and hash, as they stand in its address at ESI; workers fetch and publish it."
    requires_migrations_checks = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("id", metavar="ID", help="EVE's id of the killmail")
        parser.add_argument("hash", metavar="HASH", help="40 hex digits")

    def handle(self, *args: Any, **options: Any) -> None:
        id_, hash_ = options["id"], options["hash"]
        if not (id_.isascii() and id_.isdigit() and len(id_) < 20 and 0 < int(id_) < 2**63):
            raise CommandError(f"ID {id_[:40]}: is not a killmail's id, a whole number", returncode=2)
        if not re.fullmatch("[0-9a-f]{40}", hash_):
            raise CommandError(f"HASH {hash_[:50]}: is not 40 hex digits in lower case", returncode=2)
        state = queue_killmail(int(id_), hash_, Priority.COMMAND)
        if state == REFUSED:
            raise CommandError(f"Killmail {id_} was refused before: {why_refused(int(id_), hash_)}", returncode=1)
        self.stdout.write(f"Killmail {id_} is {'stored already' if state == STORED else 'queued'}.")
        if state != STORED and not wait_until_rung():
            self.stdout.write(NOT_TOLD)
