"""The log: every stored killmail as an event with a position, dense from 1."""

import secrets

from django.db import models
from django.db.models.functions import Now

from killmails.models.killmails import Killmail


def new_epoch() -> str:
    """A name for a series of positions that no other log has."""
    return secrets.token_hex(4)


class LogHead(models.Model):
    """The last position given out. One row (id 1), whose lock puts commits in the order of their positions."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    epoch = models.CharField(max_length=16, default=new_epoch)
    position = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=models.Q(id=1), name="log_head_single")]

    def __str__(self) -> str:
        return f"{self.epoch}:{self.position}"


class KillmailEvent(models.Model):
    """One row of the log. Written by `killmails.events.append` and by nobody else."""

    class Kind(models.TextChoices):
        ADDED = "ADDED", "added"
        UPDATED = "UPDATED", "updated"

    position = models.BigIntegerField(primary_key=True)
    kind = models.CharField(max_length=10, choices=Kind)
    killmail = models.ForeignKey(Killmail, models.PROTECT, related_name="+", db_index=False)
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.position} {self.kind} {self.killmail_id}"
