"""The indexes that killmails(filter) reads. On PostgreSQL killmails can be stored while they are built.

Safe to run again after an interruption.
"""

from typing import Any

from django.db import migrations, models
from django.db.backends.base.schema import BaseDatabaseSchemaEditor


class AddIndexBeside(migrations.AddIndex):
    """Concurrently on PostgreSQL. What an interruption left of the index is dropped before."""

    atomic = False

    def database_forwards(
        self, app_label: str, schema_editor: BaseDatabaseSchemaEditor, from_state: Any, to_state: Any
    ) -> None:
        concurrently = schema_editor.connection.vendor == "postgresql"
        how = "CONCURRENTLY" if concurrently else ""
        schema_editor.execute(f"DROP INDEX {how} IF EXISTS {schema_editor.quote_name(self.index.name)}")
        model = to_state.apps.get_model(app_label, self.model_name)
        schema_editor.add_index(model, self.index, **({"concurrently": True} if concurrently else {}))


class Migration(migrations.Migration):

    atomic = False

    dependencies = [
        ('killmails', '0004_fill_place'),
    ]

    operations = [
        AddIndexBeside(
            model_name='attacker',
            index=models.Index(fields=['character', 'killmail'], name='attacker_character'),
        ),
        AddIndexBeside(
            model_name='attacker',
            index=models.Index(fields=['corporation', 'killmail'], name='attacker_corporation'),
        ),
        AddIndexBeside(
            model_name='attacker',
            index=models.Index(fields=['alliance', 'killmail'], name='attacker_alliance'),
        ),
        AddIndexBeside(
            model_name='killmail',
            index=models.Index(fields=['victim_character', '-time', '-id'], name='killmail_character_time'),
        ),
        AddIndexBeside(
            model_name='killmail',
            index=models.Index(fields=['victim_corporation', '-time', '-id'], name='killmail_corporation_time'),
        ),
        AddIndexBeside(
            model_name='killmail',
            index=models.Index(fields=['victim_alliance', '-time', '-id'], name='killmail_alliance_time'),
        ),
        AddIndexBeside(
            model_name='killmail',
            index=models.Index(fields=['constellation', '-time', '-id'], name='killmail_constellation_time'),
        ),
        AddIndexBeside(
            model_name='killmail',
            index=models.Index(fields=['region', '-time', '-id'], name='killmail_region_time'),
        ),
        AddIndexBeside(
            model_name='killmail',
            index=models.Index(condition=models.Q(('war_id__isnull', False)), fields=['war_id'], name='killmail_war'),
        ),
        AddIndexBeside(
            model_name='killmail',
            index=models.Index(fields=['total_value'], name='killmail_value'),
        ),
        AddIndexBeside(
            model_name='killmail',
            index=models.Index(condition=models.Q(('region', None), ('security_band', None), _connector='OR'), fields=['solar_system'], name='killmail_place_unknown'),
        ),
    ]
