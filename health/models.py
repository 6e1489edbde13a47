"""Who of the board lives: one row for each process, written by itself."""

from datetime import timedelta

from django.db import models
from django.db.models.functions import Now

ALIVE = timedelta(seconds=15)  # three heartbeats; who has not been seen for longer does not live
MISSED = timedelta(minutes=10)  # for so long we miss one that ended without a word and did not come back


class ProcessQuerySet(models.QuerySet["Process"]):
    def alive(self) -> "ProcessQuerySet":
        """Seen lately, by the database's clock."""
        return self.filter(seen_at__gte=Now() - ALIVE)

    def silent(self) -> "ProcessQuerySet":
        """Those that hang or ended without a word: whoever ends as he should takes his row along."""
        return self.filter(seen_at__lt=Now() - ALIVE, seen_at__gte=Now() - MISSED)

    def succeeded_by(self, successor: "Process") -> "ProcessQuerySet":
        """Silent ones whose place this one has taken: it began after them. (A server's name is of its process.)"""
        before = self.filter(kind=successor.kind, seen_at__lt=successor.started_at).exclude(pk=successor.pk)
        if successor.kind == Process.Kind.SERVER:
            return before.filter(pk__startswith=successor.pk.partition(":")[0] + ":", seen_at__lt=Now() - ALIVE)
        return before.filter(name=successor.name, seen_at__lt=Now() - ALIVE)


class Process(models.Model):
    """A server, a worker or beat, as it last told of itself. Nothing depends on it but what is shown to people."""

    class Kind(models.TextChoices):
        SERVER = "server"
        WORKER = "worker"
        BEAT = "beat"

    id = models.CharField(max_length=120, primary_key=True, help_text="host:pid:random; no two alike.")
    kind = models.CharField(max_length=10, choices=Kind)
    name = models.CharField(max_length=200, help_text="For people.")
    worker_id = models.CharField(max_length=64, default="", blank=True)
    queues = models.JSONField(default=list, blank=True)
    redis = models.CharField(
        max_length=64,
        default="",
        blank=True,
        help_text="Equal where the Redis is the same one; none: needs none; empty: cannot be reached.",
    )
    facts = models.JSONField(default=dict, blank=True, help_text="What only the process itself knows.")
    started_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(db_default=Now(), help_text="By the database's clock.")

    objects = ProcessQuerySet.as_manager()

    class Meta:
        verbose_name_plural = "processes"
        constraints = [
            models.CheckConstraint(condition=models.Q(kind__in=("server", "worker", "beat")), name="process_kind"),
        ]

    def __str__(self) -> str:
        return self.name
