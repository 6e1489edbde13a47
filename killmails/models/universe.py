"""Where and what: regions, constellations, systems; categories, groups and types of things."""

from django.db import models

from killmails.models.entities import Entity, reference


class Region(Entity):
    """The largest part of the map."""


class Constellation(Entity):
    """Some systems of a region; `region` is None until it is known."""

    region = reference("Region", null=True)


class SolarSystem(Entity):
    """A solar system; `constellation` and `security_status` (true, -1.0 to 1.0) are None until they are known."""

    constellation = reference("Constellation", null=True)
    security_status = models.FloatField(null=True)


class InventoryCategory(Entity):
    """Ships, modules, structures and so on."""

    class Meta:
        verbose_name_plural = "inventory categories"


class InventoryGroup(Entity):
    """Frigates, battleships and so on; `category` is None until it is known."""

    category = reference("InventoryCategory", null=True)


class InventoryType(Entity):
    """A Rifter, a Tritanium and so on; `group` is None until it is known."""

    group = reference("InventoryGroup", null=True)
