"""Those who log in with EVE: their characters, what they gave us the right to ask, and programs that act for them."""

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

# What EVE can be asked for in a character's name; the second one only of a corporation's director.
OWN = "esi-killmails.read_killmails.v1"
CORPORATION = "esi-killmails.read_corporation_killmails.v1"
DELAYS = (0, 1, 3, 8, 24, 72)  # hours


class Publication(models.Model):
    """Whether the killmails that a user brings are published, and how long after the loss. No row: they are not."""

    user = models.OneToOneField(settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True)
    publish = models.BooleanField(default=False)
    delay_hours = models.PositiveSmallIntegerField(default=0)

    class Meta:
        constraints = [
            models.CheckConstraint(condition=Q(delay_hours__in=DELAYS), name="publication_delay"),
        ]

    def __str__(self) -> str:
        return f"after {self.delay_hours} h" if self.publish else "kept private"


class UserCharacter(models.Model):
    """A character that somebody logged in with. Tokens are encrypted, and "" where there is none."""

    class State(models.TextChoices):
        READY = "READY", "ready"
        NEEDS_LOGIN = "NEEDS_LOGIN", "has to log in again"
        SOLD = "SOLD", "belongs to somebody else now"
        LEAVING = "LEAVING", "is being removed"

    id = models.BigIntegerField(primary_key=True, help_text="EVE's id of the character.")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="eve_characters")
    name = models.CharField(max_length=255)
    owner_hash = models.CharField(max_length=100, help_text="EVE's; another one when the character was sold.")
    scopes = models.JSONField(default=list)
    state = models.CharField(max_length=12, choices=State, default=State.READY)
    reason = models.CharField(max_length=300, default="", blank=True, help_text="Why it is not ready, in words.")

    refresh_token = models.TextField(default="", blank=True)
    access_token = models.TextField(default="", blank=True)
    access_expires_at = models.DateTimeField(null=True, help_text="By the database's clock.")
    refreshing_until = models.DateTimeField(null=True, help_text="Until then nobody else refreshes.")
    refused_token = models.CharField(
        max_length=64,
        default="",
        blank=True,
        help_text="SHA-256 of the refresh token, as it lay here, that EVE refused.",
    )

    # Today's, as ESI tells it; for the killmails of the corporation.
    corporation_id = models.BigIntegerField(null=True)
    corporation_at = models.DateTimeField(null=True, help_text="When ESI was last asked for it.")
    reads_corporation = models.BooleanField(default=False, help_text="Its scopes hold the corporation's killmails.")
    director_of = models.BigIntegerField(null=True, help_text="The corporation whose killmails ESI gave it.")
    not_director = models.BooleanField(default=False, help_text="ESI refused it its corporation's killmails.")
    added_at = models.DateTimeField(db_default=Now())
    changed_at = models.DateTimeField(db_default=Now())

    class Meta:
        indexes = [
            # Who may ask for the killmails of a corporation.
            models.Index(fields=["corporation_id"], name="user_character_corporation"),
            # Whose corporation is to be asked for again.
            models.Index(
                fields=["corporation_at"], name="user_character_membership", condition=Q(reads_corporation=True)
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.get_state_display()})"


class UnusedGrant(models.Model):
    """A grant at EVE that the board uses no more, until EVE has been told."""

    character_id = models.BigIntegerField()
    refresh_token = models.TextField(help_text="Encrypted.")
    added_at = models.DateTimeField(db_default=Now())
    tried_at = models.DateTimeField(null=True, help_text="When EVE was first told, in vain.")

    def __str__(self) -> str:
        return f"Unused grant of character {self.character_id}"


class ApiToken(models.Model):
    """A bearer token of the board's own, for programs. Only its SHA-256 is kept."""

    digest = models.CharField(max_length=64, primary_key=True)
    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="api_tokens")
    name = models.CharField(max_length=60, default="", blank=True)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)

    def __str__(self) -> str:
        return f"API token {self.name}"
