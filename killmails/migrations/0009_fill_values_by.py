from django.db import migrations


class Migration(migrations.Migration):
    """Until now all values were zKillboard's."""

    dependencies = [("killmails", "0008_names_places_prices")]

    operations = [
        migrations.RunSQL(
            "UPDATE killmails_killmail SET values_by = 'ZKILLBOARD' WHERE total_value IS NOT NULL",
            migrations.RunSQL.noop,
        )
    ]
