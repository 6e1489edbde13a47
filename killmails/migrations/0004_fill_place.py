"""The place of killmails that are there, where the static data knows it: a part at a time, each in a transaction of its own.

Between the parts killmails can be stored. Safe to run again after an interruption.
"""

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps
from django.db.models import Case, F, Max, OuterRef, Q, Subquery, Value, When

PART = 10_000  # killmails


def fill_places(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    """As it was when this migration was written; see killmails.models.places for what it is now."""
    band = Case(
        When(pk__range=(31_000_000, 31_999_999), then=Value("WORMHOLE")),
        When(pk__range=(32_000_000, 32_999_999), then=Value("ABYSSAL")),
        When(constellation__region=None, then=None),
        When(constellation__region=10000070, then=Value("POCHVEN")),
        When(security_status__gte=0.45, then=Value("HIGH")),
        When(security_status__gt=0.0, then=Value("LOW")),
        When(security_status__lte=0.0, then=Value("NULL")),
        output_field=models.CharField(),
    )
    systems = apps.get_model("killmails", "SolarSystem").objects.filter(pk=OuterRef("solar_system"))
    killmails = apps.get_model("killmails", "Killmail").objects
    last = 0
    while True:
        part = killmails.filter(pk__gt=last).order_by("pk")[:PART]
        first, last = last, part.aggregate(last=Max("pk"))["last"]
        if last is None:
            return
        killmails.filter(Q(region=None) | Q(security_band=None), pk__gt=first, pk__lte=last).update(
            constellation=Subquery(systems.values("constellation_id")),
            region=Subquery(systems.values(region_id=F("constellation__region_id"))),
            security_band=Subquery(systems.values(band=band)),
        )


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('killmails', '0003_place'),
    ]

    operations = [
        migrations.RunPython(fill_places, migrations.RunPython.noop),
    ]
