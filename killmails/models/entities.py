"""Those who fly: characters, corporations, alliances, factions. Known by id first, by name when it is filled."""

from typing import Any

from django.db import models
from django.db.models import Q

NAME_UNKNOWN = Q(name=None)


class Entity(models.Model):
    """Something with EVE's own id; `name` is None until it is known."""

    id = models.BigIntegerField(primary_key=True)
    name = models.CharField(max_length=255, null=True)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name or f"{self._meta.verbose_name} {self.pk}"


def reference(to: str, **options: Any) -> models.ForeignKey:
    """A key to an entity, without a constraint and without an index of its own.

    Killmails may be stored before what they name is known, in any order and by many workers at once;
    a constraint would make each of them lock the rows of the same few popular entities. The storing
    transaction inserts the rows that are missing, so that every reference has its row all the same.
    """
    # DO_NOTHING: entities are never deleted.
    settings: dict[str, Any] = {
        "related_name": "+",
        "db_constraint": False,
        "db_index": False,
        "on_delete": models.DO_NOTHING,
    }
    return models.ForeignKey(to, **settings, **options)


def fill_not_before() -> models.DateTimeField:
    return models.DateTimeField(null=True, help_text="ESI is not asked again before this.")


def fill_tries() -> models.PositiveSmallIntegerField:
    return models.PositiveSmallIntegerField(
        default=0, db_default=0, help_text="How often in a row ESI did not know it."
    )


class Filled(Entity):
    """An entity that ESI tells the name of; times are the database's."""

    filled_at = models.DateTimeField(null=True, help_text="When ESI last told its name; None: never.")
    fill_not_before = fill_not_before()
    fill_tries = fill_tries()
    details_at = models.DateTimeField(null=True, help_text="When ESI was last asked for its ticker or membership.")

    class Meta(Entity.Meta):
        abstract = True
        indexes = [
            # The filler: whose name is unknown, and may be asked for; whose name, whose details are the oldest.
            models.Index(fields=["fill_not_before"], name="%(class)s_unknown", condition=NAME_UNKNOWN),
            models.Index(fields=["filled_at"], name="%(class)s_filled"),
            models.Index(fields=["details_at"], name="%(class)s_details"),
        ]


class Character(Filled):
    """A pilot, of a player or of the game; `corporation` and `alliance` are today's, None until they are known."""

    corporation = reference("Corporation", null=True)
    alliance = reference("Alliance", null=True)


class Corporation(Filled):
    """A corporation of players or of the game; `alliance` is today's."""

    ticker = models.CharField(max_length=10, null=True)
    alliance = reference("Alliance", null=True)
    faction = reference("Faction", null=True)


class Alliance(Filled):
    """An alliance of corporations."""

    ticker = models.CharField(max_length=10, null=True)


class Faction(Entity):
    """An empire or pirate faction."""

    fill_not_before = fill_not_before()
    fill_tries = fill_tries()
