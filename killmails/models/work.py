"""What ESI is still to be asked for users: lists of their killmails, and killmails that are not stored yet.

The work stands here, most urgent first; a message in a queue only says that there is some.
"""

from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Priority(models.IntegerChoices):
    """Who asks; the smallest goes first."""

    LOGIN = 0, "a login"
    COMMAND = 1, "a command"
    CLOCK = 2, "the clock"
    ANYBODY = 3, "anybody"


class KillmailSync(models.Model):
    """The list of recent killmails of a character or a corporation: how far we have read it, and when it is due."""

    class Kind(models.TextChoices):
        CHARACTER = "character", "character"
        CORPORATION = "corporation", "corporation"

    class State(models.TextChoices):
        WAITING = "WAITING", "waits for its first run"
        UP_TO_DATE = "UP_TO_DATE", "up to date"
        READING = "READING", "is being read: it has many pages"
        RETRYING = "RETRYING", "tries again"
        OFF = "OFF", "off, until somebody logs in again"

    NO_KEY = "a key is missing"  # how the reason begins where TOKEN_KEYS does not open a token

    kind = models.CharField(max_length=12, choices=Kind)
    eve_id = models.BigIntegerField()
    state = models.CharField(max_length=12, choices=State, default=State.WAITING)
    reason = models.CharField(max_length=300, default="", blank=True, help_text="Of RETRYING and OFF, in words.")

    priority = models.SmallIntegerField(choices=Priority, default=Priority.CLOCK)
    due_at = models.DateTimeField(null=True, db_default=Now(), help_text="None: not until somebody logs in.")
    not_before = models.DateTimeField(null=True, help_text="ESI gives the same answer until then.")
    full = models.BooleanField(default=False, help_text="The next run reads all pages, whatever is known.")
    claimed_until = models.DateTimeField(null=True)
    fence = models.BigIntegerField(default=0, help_text="Grows with each claim.")
    tries = models.PositiveIntegerField(default=0, help_text="Claims in a row that came to nothing.")

    # The marker: moves only when all pages were read.
    etag = models.CharField(max_length=200, default="", blank=True)
    newest_id = models.BigIntegerField(default=0, help_text="All up to here are known.")
    next_page = models.PositiveIntegerField(default=1, help_text="More than 1: ESI's limit stopped us in between.")
    newest_on_the_way = models.BigIntegerField(default=0)

    last_run_at = models.DateTimeField(null=True)
    last_success_at = models.DateTimeField(null=True)
    new_killmails = models.PositiveIntegerField(default=0, help_text="That the last run found.")
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "eve_id"], name="killmail_sync_once"),
        ]
        indexes = [
            # Which one is due, most urgent first.
            models.Index(
                fields=["priority", "tries", "due_at"], name="killmail_sync_due", condition=Q(due_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"Killmails of {self.kind} {self.eve_id}"


class PendingQuerySet(models.QuerySet["PendingKillmail"]):
    """Reusable ways to find pending killmails."""

    def withheld_of(self, user_id: int) -> Self:
        """Those that this user brought, and that are not published yet."""
        return self.filter(state=PendingKillmail.State.WITHHELD, owners__user=user_id)


class PendingKillmail(models.Model):
    """A killmail that we have heard of and that is not among the killmails: not fetched yet, or withheld.

    Nothing that reads killmails can meet a withheld one, since it is not there: it is stored when it may be published.
    Whoever asks with a wrong hash has a row apart, and so learns nothing of the right one.
    """

    class State(models.TextChoices):
        TO_FETCH = "TO_FETCH", "to be fetched"
        WITHHELD = "WITHHELD", "withheld"
        REFUSED = "REFUSED", "refused for good"

    killmail_id = models.BigIntegerField()
    hash = models.CharField(max_length=40, help_text='"" until zKillboard tells it.', blank=True)
    state = models.CharField(max_length=12, choices=State, default=State.TO_FETCH)
    priority = models.SmallIntegerField(choices=Priority, default=Priority.CLOCK)
    due_at = models.DateTimeField(null=True, db_default=Now(), help_text="To fetch or to publish; None: not for now.")
    claimed_until = models.DateTimeField(null=True)
    fence = models.BigIntegerField(default=0, help_text="Grows with each claim.")
    tries = models.PositiveIntegerField(default=0)
    public = models.BooleanField(default=False, help_text="Somebody who knew the hash asked for it: no secret.")
    time = models.DateTimeField(null=True, help_text="Of the loss; once it is fetched.")
    location_id = models.BigIntegerField(null=True, help_text="Where; once it is fetched.")
    deflated = models.BinaryField(null=True, help_text="The package, once it is fetched.")
    reason = models.CharField(max_length=300, default="", blank=True, help_text="Why it was refused, in words.")
    added_at = models.DateTimeField(db_default=Now())

    objects = PendingQuerySet.as_manager()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["killmail_id", "hash"], name="pending_killmail_once"),
        ]
        indexes = [
            # Which are due, to be fetched or to be published, most urgent first.
            models.Index(
                fields=["state", "priority", "tries", "due_at"], name="pending_due", condition=Q(due_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"Pending killmail {self.killmail_id}"


class PendingOwner(models.Model):
    """Whose list a pending killmail stood in: who may see it, and who may have it published."""

    pending = models.ForeignKey(PendingKillmail, models.CASCADE, related_name="owners")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["pending", "user"], name="pending_owner_once"),
        ]

    def __str__(self) -> str:
        return f"Owner of {self.pending}"


def shown(**columns: Any) -> dict[str, Any]:
    """The columns of an update that people are to notice."""
    return {**columns, "changed_at": Now()}
