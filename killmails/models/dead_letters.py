"""Messages that no worker could do, kept to be looked at."""

from django.db import models
from django.db.models.functions import Now


class DeadLetter(models.Model):
    """What RabbitMQ gave up on: a task that kills its process each time, or something that is no task of ours."""

    class State(models.TextChoices):
        OPEN = "OPEN", "open"
        QUEUED = "QUEUED", "queued again"
        DISCARDED = "DISCARDED", "discarded"

    key = models.CharField(max_length=64, unique=True, help_text="Of the message: it may be delivered twice.")
    task = models.CharField(max_length=200, default="", blank=True, help_text="Empty where it is no task of ours.")
    arguments = models.JSONField(default=list, blank=True, help_text="Ids.")
    reason = models.CharField(max_length=30, help_text="In RabbitMQ's words: delivery_limit, rejected, expired.")
    queue = models.CharField(max_length=200, default="", blank=True)
    deliveries = models.PositiveIntegerField(default=1, help_text="How often a worker had it.")
    raw = models.BinaryField(help_text="The body, the first 64 KiB of it.")
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    note = models.CharField(max_length=200, default="", blank=True, help_text="Why it was discarded, by whoever did.")
    died_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"Dead letter {self.pk} ({self.task or 'no task of ours'}, {self.reason})"
