"""What things cost, day by day: for the values of killmails without zKillboard's block, and beside the others."""

from django.db import models

from killmails.models.entities import reference


class Price(models.Model):
    """The average that a type was traded for in The Forge on one day (UTC), in ISK."""

    class Source(models.TextChoices):
        """Where it is from."""

        HISTORY = "HISTORY", "the market's history, of all types"
        ESI = "ESI", "the market's history, of the types that were asked for"
        AVERAGE = "AVERAGE", "the average price of ESI's list"

    item_type = reference("InventoryType")
    day = models.DateField()
    average = models.DecimalField(max_digits=20, decimal_places=2)
    source = models.CharField(max_length=10, choices=Source)

    class Meta:
        constraints = [
            # Serves "the prices of a type, backwards from a day" as well.
            models.UniqueConstraint(fields=["item_type", "day"], name="price_once"),
            models.CheckConstraint(condition=models.Q(average__gt=0), name="price_positive"),
        ]

    def __str__(self) -> str:
        return f"Type {self.item_type_id} on {self.day}: {self.average} ISK"
