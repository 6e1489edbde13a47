"""The head of the log exists from the start, with an epoch of its own for each database."""

from django.db import migrations
from django.db.backends.base.schema import BaseDatabaseSchemaEditor
from django.db.migrations.state import StateApps


def make_head(apps: StateApps, schema_editor: BaseDatabaseSchemaEditor) -> None:
    apps.get_model("killmails", "LogHead").objects.get_or_create(pk=1)


class Migration(migrations.Migration):
    dependencies = [("killmails", "0001_initial")]
    operations = [migrations.RunPython(make_head, migrations.RunPython.noop)]
