"""The killmail, its attackers, and the package that it came in."""

import json
import zlib
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now
from django.utils.functional import cached_property

from killmails.models.entities import reference
from killmails.models.places import SecurityBand

PLACE_UNKNOWN = Q(region=None) | Q(security_band=None)


class ValuesBy(models.TextChoices):
    """Who reckoned the values, points, flags and labels of a killmail."""

    ZKILLBOARD = "ZKILLBOARD", "zKillboard"
    BOARD = "BOARD", "this board"


class Killmail(models.Model):
    """One loss. Ids are EVE's; what ESI may leave out is None; ISK in `*_value`, metres in `position_*`."""

    id = models.BigIntegerField(primary_key=True)
    hash = models.CharField(max_length=40)
    time = models.DateTimeField()
    solar_system = reference("SolarSystem")
    war_id = models.BigIntegerField(null=True)
    moon_id = models.BigIntegerField(null=True)
    # Of the system, kept here so that a filter needs no join; None until the static data has them.
    constellation = reference("Constellation", null=True)
    region = reference("Region", null=True)
    security_band = models.CharField(max_length=10, choices=SecurityBand, null=True)

    victim_character = reference("Character", null=True)
    victim_corporation = reference("Corporation", null=True)
    victim_alliance = reference("Alliance", null=True)
    victim_faction = reference("Faction", null=True)
    victim_ship_type = reference("InventoryType")
    damage_taken = models.BigIntegerField()
    position_x = models.FloatField(null=True)
    position_y = models.FloatField(null=True)
    position_z = models.FloatField(null=True)
    attacker_count = models.PositiveIntegerField()

    # zKillboard's block; where a killmail came without one, what we reckoned, else None.
    location_id = models.BigIntegerField(null=True)
    fitted_value = models.DecimalField(max_digits=20, decimal_places=2, null=True)
    dropped_value = models.DecimalField(max_digits=20, decimal_places=2, null=True)
    destroyed_value = models.DecimalField(max_digits=20, decimal_places=2, null=True)
    total_value = models.DecimalField(max_digits=20, decimal_places=2, null=True)
    points = models.IntegerField(null=True)
    is_npc = models.BooleanField(null=True)
    is_solo = models.BooleanField(null=True)
    is_awox = models.BooleanField(null=True)
    labels = models.JSONField(default=list)
    values_by = models.CharField(max_length=10, choices=ValuesBy, null=True)

    # Which package of the feed this is from: a newer one replaces it, an older one does not.
    sequence = models.BigIntegerField(null=True)
    uploaded_at = models.BigIntegerField(null=True, help_text="Unix seconds, by zKillboard's clock.")
    stored_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints = [
            models.CheckConstraint(condition=models.Q(id__gt=0), name="killmail_id_positive"),
        ]
        indexes = [
            # killmails(first, after): newest first, by keyset.
            models.Index(fields=["-time", "-id"], name="killmail_time"),
            # Admin and killmails(filter): killmails of a system, of a ship type, newest first.
            models.Index(fields=["solar_system", "-time", "-id"], name="killmail_system_time"),
            models.Index(fields=["victim_ship_type", "-time", "-id"], name="killmail_ship_time"),
            # killmails(filter): losses of a character, a corporation, an alliance, newest first.
            models.Index(fields=["victim_character", "-time", "-id"], name="killmail_character_time"),
            models.Index(fields=["victim_corporation", "-time", "-id"], name="killmail_corporation_time"),
            models.Index(fields=["victim_alliance", "-time", "-id"], name="killmail_alliance_time"),
            # killmails(filter): those of a constellation, a region, newest first: some have few, or none.
            models.Index(fields=["constellation", "-time", "-id"], name="killmail_constellation_time"),
            models.Index(fields=["region", "-time", "-id"], name="killmail_region_time"),
            # killmails(filter): those of a war; few killmails have one.
            models.Index(fields=["war_id"], name="killmail_war", condition=Q(war_id__isnull=False)),
            # killmails(filter): the dear ones, with minValue.
            models.Index(fields=["total_value"], name="killmail_value"),
            # fill_places: which killmails still lack their place.
            models.Index(fields=["solar_system"], name="killmail_place_unknown", condition=PLACE_UNKNOWN),
        ]

    def __str__(self) -> str:
        return f"Killmail {self.pk}"

    @property
    def position(self) -> tuple[float, float, float] | None:
        """Metres from the system's centre; None before November 2015."""
        return None if self.position_x is None else (self.position_x, self.position_y, self.position_z)

    @cached_property
    def final_blow(self) -> "Attacker | None":
        """The attacker with the final blow; a killmail made by CCP's staff may have none."""
        return next((attacker for attacker in self.attackers.all() if attacker.final_blow), None)

    @cached_property
    def values_found(self) -> dict[Any, Any]:
        """What filters found in this object, by clause, so that the next one need not look for it."""
        return {}

    @property
    def items(self) -> list[dict[str, Any]]:
        """What the victim carried, in ESI's shape: `item_type_id flag quantity_* singleton [items]`."""
        return self.package.esi()["victim"].get("items") or []


class UnfilledKillmail(models.Model):
    """A killmail that was published before all its names were known: it is published again (UPDATED) when they are."""

    killmail = models.OneToOneField(Killmail, models.CASCADE, primary_key=True, related_name="unfilled")
    since = models.DateTimeField(db_default=Now())
    missing = models.JSONField(default=dict, help_text="What lacked a name then: ids by model.")

    def __str__(self) -> str:
        return f"Unfilled killmail {self.pk}"


class KillmailPackage(models.Model):
    """The package as it was received, byte for byte, deflated: nothing that CCP or zKillboard sent is lost.

    Items are read from here, with the killmail, and never searched. As rows they would take more space than
    everything else together; a whole deflated package takes about 0.8 kB.
    """

    killmail = models.OneToOneField(Killmail, models.CASCADE, primary_key=True, related_name="package")
    deflated = models.BinaryField()

    def __str__(self) -> str:
        return f"Package of killmail {self.pk}"

    @staticmethod
    def deflate(raw: bytes) -> bytes:
        return zlib.compress(raw, 6)

    def raw(self) -> bytes:
        """The bytes as they came."""
        return zlib.decompress(self.deflated)

    def esi(self) -> dict[str, Any]:
        """The killmail in ESI's shape, with every key that was sent, known to us or not."""
        return json.loads(self.raw())["esi"]


class AttackerQuerySet(models.QuerySet["Attacker"]):
    """Reusable ways to load attackers."""

    def with_names(self) -> "AttackerQuerySet":
        return self.select_related(
            "character",
            "corporation",
            "alliance",
            "faction",
            "ship_type__group__category",
            "weapon_type__group__category",
        )


class Attacker(models.Model):
    """One of those on the mail, in ESI's order (`ordinal`, from 0)."""

    killmail = models.ForeignKey(Killmail, models.CASCADE, related_name="attackers", db_index=False)
    ordinal = models.PositiveIntegerField()
    character = reference("Character", null=True)
    corporation = reference("Corporation", null=True)
    alliance = reference("Alliance", null=True)
    faction = reference("Faction", null=True)
    ship_type = reference("InventoryType", null=True)
    weapon_type = reference("InventoryType", null=True)
    damage_done = models.BigIntegerField()
    final_blow = models.BooleanField()
    security_status = models.FloatField()

    objects = AttackerQuerySet.as_manager()

    class Meta:
        ordering = ["killmail_id", "ordinal"]
        constraints = [
            # Serves "the attackers of a killmail, in order" as well.
            models.UniqueConstraint(fields=["killmail", "ordinal"], name="attacker_once"),
        ]
        indexes = [
            # killmails(filter): on whose killmails somebody stands, read from the index alone.
            models.Index(fields=["character", "killmail"], name="attacker_character"),
            models.Index(fields=["corporation", "killmail"], name="attacker_corporation"),
            models.Index(fields=["alliance", "killmail"], name="attacker_alliance"),
        ]

    def __str__(self) -> str:
        return f"Attacker {self.ordinal} of killmail {self.killmail_id}"
