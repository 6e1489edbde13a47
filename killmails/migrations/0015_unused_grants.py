import django.db.models.functions.datetime
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("killmails", "0014_refused_token"),
    ]

    operations = [
        migrations.CreateModel(
            name="UnusedGrant",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("character_id", models.BigIntegerField()),
                ("refresh_token", models.TextField(help_text="Encrypted.")),
                ("added_at", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("tried_at", models.DateTimeField(help_text="When EVE was first told, in vain.", null=True)),
            ],
        ),
    ]
