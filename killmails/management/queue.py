"""The commands that have lists read: of characters, of corporations."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db.models import Q
from django.db.models.functions import Now

from killmails.models import KillmailSync, Priority
from killmails.queueing import queue_lists, wait_until_rung


class QueueLists(BaseCommand):
    """For one `kind` of lists; `whose` is what the help calls those that are read."""

    kind: KillmailSync.Kind
    whose: str
    requires_migrations_checks = True

    def add_arguments(self, parser: CommandParser) -> None:
        parser.description = (
            f"Queues the lists of recent killmails of all {self.whose}, or of one. Without --force, not those that "
            "were read in the last five minutes, nor those that are off."
        )
        parser.add_argument(f"--{self.kind}", dest="one", type=int, metavar="ID", help="only this one's, by EVE's id")
        parser.add_argument("--force", action="store_true", help="also what was just read, or is off")
        parser.add_argument("--full", action="store_true", help="from the first page to the last, whatever is known")

    def handle(self, *args: Any, **options: Any) -> None:
        one = options["one"]
        wanted = Q(kind=self.kind) if one is None else Q(kind=self.kind, eve_id=one)
        if one is not None and not KillmailSync.objects.filter(wanted).exists():
            raise CommandError(f"--{self.kind} {one}: is none of the {self.whose}", returncode=4)
        lists = queue_lists(wanted, Priority.COMMAND, force=options["force"], full=options["full"])
        held = KillmailSync.objects.filter(pk__in=[row.pk for row in lists], not_before__gt=Now())
        until = dict(held.values_list("pk", "not_before"))
        for row in lists:
            wait = f", not before {until[row.pk]:%H:%M:%S} UTC, for ESI's answer holds" if row.pk in until else ""
            self.stdout.write(f"{row.kind} {row.eve_id}{wait}")
        self.stdout.write("1 list is queued." if len(lists) == 1 else f"{len(lists)} lists are queued.")
        if lists and not wait_until_rung():
            self.stdout.write(NOT_TOLD)


NOT_TOLD = "The workers could not be told (the broker does not answer): they look by themselves within 15 s."
