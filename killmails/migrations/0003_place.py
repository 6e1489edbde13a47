"""Columns for the place beside the killmail. Without a default, so that no row is written."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('killmails', '0002_log_head'),
    ]

    operations = [
        migrations.AddField(
            model_name='killmail',
            name='constellation',
            field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='killmails.constellation'),
        ),
        migrations.AddField(
            model_name='killmail',
            name='region',
            field=models.ForeignKey(db_constraint=False, db_index=False, null=True, on_delete=django.db.models.deletion.DO_NOTHING, related_name='+', to='killmails.region'),
        ),
        migrations.AddField(
            model_name='killmail',
            name='security_band',
            field=models.CharField(choices=[('HIGH', 'high security'), ('LOW', 'low security'), ('NULL', 'null security'), ('WORMHOLE', 'wormhole space'), ('ABYSSAL', 'abyssal deadspace'), ('POCHVEN', 'Pochven')], max_length=10, null=True),
        ),
    ]
