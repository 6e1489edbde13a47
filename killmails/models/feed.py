"""Where we are in zKillboard's feed, what it still owes us, and what we could not read."""

from django.db import models
from django.db.models.functions import Now


class FeedCursor(models.Model):
    """The next sequence to take, and who takes it. One row for each feed.

    The worker with the lease polls; `fence` grows with each new holder. Moving `next_sequence` by
    compare-and-set is what keeps two workers from storing the same package, whatever the lease says.
    """

    name = models.CharField(max_length=20, primary_key=True)
    next_sequence = models.BigIntegerField(null=True, help_text="None until the feed has told where it is.")
    not_before = models.DateTimeField(null=True, help_text="The upstream is not asked again before this.")
    missing_since = models.DateTimeField(null=True, help_text="Since when the next sequence is a 404.")
    tries = models.PositiveIntegerField(default=0, help_text="How often the next sequence could not be read.")
    last_answer = models.CharField(max_length=200, default="", blank=True)
    lease_holder = models.CharField(max_length=100, default="", blank=True)
    lease_since = models.DateTimeField(null=True, help_text="Since when this holder has it.")
    lease_expires_at = models.DateTimeField(null=True)
    fence = models.BigIntegerField(default=0)
    placeholders = models.BigIntegerField(default=0, help_text="Packages without a killmail, skipped.")
    ignored_updates = models.BigIntegerField(default=0, help_text="sequence_updated that made no sense.")
    moved_at = models.DateTimeField(null=True)
    pointer = models.BigIntegerField(null=True, help_text="The feed's own word of where it is, up to 51 behind.")
    pointer_at = models.DateTimeField(null=True, help_text="When it was read; only while we are behind.")

    def __str__(self) -> str:
        return f"Feed {self.name} at {self.next_sequence}"


class FeedGap(models.Model):
    """Sequences that the feed still owes us: a hole, or a file that changed after we had read it."""

    class Reason(models.TextChoices):
        MISSING = "MISSING", "never came"
        CHANGED = "CHANGED", "changed after it was read"
        EXPIRED = "EXPIRED", "gone before we came"

    class Outcome(models.TextChoices):
        OPEN = "", "open"
        STORED = "STORED", "stored"
        REJECTED = "REJECTED", "came, could not be read"
        GIVEN_UP = "GIVEN_UP", "given up"

    first_sequence = models.BigIntegerField()
    last_sequence = models.BigIntegerField()
    reason = models.CharField(max_length=10, choices=Reason)
    outcome = models.CharField(max_length=10, choices=Outcome, default=Outcome.OPEN, blank=True)
    tries = models.PositiveIntegerField(default=0)
    unreadable = models.PositiveIntegerField(default=0, help_text="How often what came could not be read.")
    found_at = models.DateTimeField(db_default=Now())
    next_try_at = models.DateTimeField(null=True)
    closed_at = models.DateTimeField(null=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(last_sequence__gte=models.F("first_sequence")), name="feed_gap_in_order"
            ),
        ]
        indexes = [
            # The feed: which open gap is due next.
            models.Index(fields=["next_try_at"], name="feed_gap_due", condition=models.Q(outcome="")),
        ]

    def __str__(self) -> str:
        return f"Feed gap {self.first_sequence}–{self.last_sequence}"


class RejectedKillmail(models.Model):
    """A package that could not be accepted, kept with its bytes and the reason, to be looked at and replayed."""

    class State(models.TextChoices):
        OPEN = "OPEN", "open"
        QUEUED = "QUEUED", "to be replayed"
        STORED = "STORED", "replayed and stored"
        DISCARDED = "DISCARDED", "discarded"

    sequence = models.BigIntegerField(null=True)
    killmail_id = models.BigIntegerField(null=True, help_text="Where it could be read.")
    pending = models.BigIntegerField(null=True, help_text="Of one that ESI was asked for: its row there.")
    reason = models.CharField(max_length=30)
    detail = models.CharField(max_length=500)
    raw = models.BinaryField(help_text="The bytes as they came, the first MiB of them.")
    state = models.CharField(max_length=10, choices=State, default=State.OPEN)
    note = models.CharField(max_length=200, default="", blank=True, help_text="Why it was discarded, by whoever did.")
    rejected_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [
            # The sweeper: what was queued for replay and not yet done.
            models.Index(fields=["changed_at"], name="rejected_queued", condition=models.Q(state="QUEUED")),
        ]

    def __str__(self) -> str:
        return f"Rejected package {self.pk} ({self.reason})"
