"""Those who fly: characters, corporations, alliances, factions. Known by id first, by name when it is filled."""

from typing import Any

from django.db import models


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


class Character(Entity):
    """A pilot, of a player or of the game."""


class Corporation(Entity):
    """A corporation of players or of the game."""


class Alliance(Entity):
    """An alliance of corporations."""


class Faction(Entity):
    """An empire or pirate faction."""
