"""Where and what: regions, constellations, systems, celestials; categories, groups and types of things.

Read from CCP's static data, and replaced by each newer build of it.
"""

from django.db import models
from django.db.models.functions import Now

from killmails.models.entities import Entity, fill_not_before, fill_tries, reference


class Region(Entity):
    """The largest part of the map."""


class Constellation(Entity):
    """Some systems of a region; `region` is None until it is known."""

    region = reference("Region", null=True)


class SolarSystem(Entity):
    """A solar system; `constellation` and `security_status` (true, -1.0 to 1.0) are None until they are known."""

    constellation = reference("Constellation", null=True)
    security_status = models.FloatField(null=True)
    fill_not_before = fill_not_before()
    fill_tries = fill_tries()


class Celestial(Entity):
    """A star, planet, moon, belt, stargate or station, in metres from its system's centre: what is near a killmail."""

    solar_system = reference("SolarSystem")
    item_type = reference("InventoryType", null=True)
    x = models.FloatField()
    y = models.FloatField()
    z = models.FloatField()

    class Meta:
        indexes = [
            # The nearest one to a place in this system.
            models.Index(fields=["solar_system"], name="celestial_system"),
        ]


class InventoryCategory(Entity):
    """Ships, modules, structures and so on."""

    class Meta:
        verbose_name_plural = "inventory categories"


class InventoryGroup(Entity):
    """Frigates, battleships and so on; `category` is None until it is known."""

    category = reference("InventoryCategory", null=True)


class MarketGroup(Entity):
    """A branch of the market's tree; `parent` is None at its roots."""

    parent = reference("MarketGroup", null=True)


class InventoryType(Entity):
    """A Rifter, a Tritanium and so on; `group` is None until it is known.

    The rest is for points and labels, from the types' attributes: None where they have no such attribute.
    """

    group = reference("InventoryGroup", null=True)
    market_group = reference("MarketGroup", null=True)
    rig_size = models.PositiveSmallIntegerField(null=True)
    meta_level = models.PositiveSmallIntegerField(null=True)
    has_heat_damage = models.BooleanField(null=True)
    fill_not_before = fill_not_before()
    fill_tries = fill_tries()


class Blueprint(models.Model):
    """How a thing is built: one run makes `quantity` of `product` from `materials`, [[type id, how many]]."""

    product = models.OneToOneField(
        InventoryType, models.DO_NOTHING, primary_key=True, related_name="+", db_constraint=False
    )
    quantity = models.PositiveIntegerField()
    materials = models.JSONField()

    def __str__(self) -> str:
        return f"Blueprint of {self.product_id}"


class StaticDataBuild(models.Model):
    """A build of CCP's static data that we have heard of; `loaded_at` is None for one that is not loaded (yet)."""

    build = models.BigIntegerField(primary_key=True)
    released_at = models.DateTimeField(null=True)
    noticed_at = models.DateTimeField(db_default=Now())
    loaded_at = models.DateTimeField(null=True)
    etag = models.CharField(max_length=200, default="", blank=True)

    def __str__(self) -> str:
        return f"Build {self.build}"
