"""How far the lists of users' killmails are read."""

from collections import Counter
from typing import Any

from django.core.management.base import BaseCommand
from django.db.models.functions import Now

from killmails.models import KillmailSync, PendingKillmail, UserCharacter


class Command(BaseCommand):
    help = "Prints every list: whose, how it stands, when it was read, when it is read next, and why not."
    requires_migrations_checks = True

    def handle(self, *args: Any, **options: Any) -> None:
        rows = KillmailSync.objects.annotate(now=Now()).order_by("kind", "eve_id")
        for row in rows:
            self.stdout.write(
                f"{row.kind:<12}{row.eve_id:<12}{row.state:<12}{_read(row):<20}{_next(row):<18}{row.reason}".rstrip()
            )
        states = Counter(rows.values_list("state", flat=True))
        told = ", ".join(f"{count} {KillmailSync.State(state).name}" for state, count in sorted(states.items()))
        self.stdout.write(f"{len(rows)} lists" + (f": {told}" if told else "; nobody has logged in"))
        to_fetch = PendingKillmail.objects.filter(state=PendingKillmail.State.TO_FETCH).count()
        waiting = UserCharacter.objects.filter(state=UserCharacter.State.NEEDS_LOGIN).count()
        self.stdout.write(f"{to_fetch} killmails to fetch; {waiting} characters have to log in again")


def _read(row: Any) -> str:
    if row.last_success_at is None:
        return "never read"
    return f"read {(row.now - row.last_success_at).total_seconds():.0f} s ago"


def _next(row: Any) -> str:
    if row.due_at is None:
        return "not again"
    seconds = (row.due_at - row.now).total_seconds()
    return "is due" if seconds <= 0 else f"next in {seconds:.0f} s"
