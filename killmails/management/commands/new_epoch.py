"""After a restore: say that positions have begun anew, so that no old one is misread."""

from typing import Any

from django.core.management.base import BaseCommand

from killmails.events import begin_anew


class Command(BaseCommand):
    help = (
        "Gives the log a new epoch. Run it after the database was restored from a backup: positions that subscribers "
        "had after the backup are refused from then on (STREAM_EPOCH_CHANGED), instead of meaning other killmails."
    )
    requires_migrations_checks = True

    def handle(self, *args: Any, **options: Any) -> None:
        before, now = begin_anew()
        self.stdout.write(
            f"The log was at {before.token}, and goes on at {now.token}. Live streams end within a second."
        )
