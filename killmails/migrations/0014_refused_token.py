from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("killmails", "0013_users"),
    ]

    operations = [
        migrations.AddField(
            model_name="usercharacter",
            name="refused_token",
            field=models.CharField(
                blank=True,
                default="",
                help_text="SHA-256 of the refresh token, as it lay here, that EVE refused.",
                max_length=64,
            ),
        ),
    ]
