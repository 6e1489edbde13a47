"""After a restore: say that positions have begun anew, so that no old one is misread."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import OperationalError, ProgrammingError

from killmails.events import begin_anew


class Command(BaseCommand):
    help = (
        "Gives the log a new epoch. Run it after the database was restored from a backup: positions that subscribers "
        "had after the backup are refused from then on (STREAM_EPOCH_CHANGED), instead of meaning other killmails."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            before, now = begin_anew()
        except (OperationalError, ProgrammingError) as error:
            raise CommandError(f"the log could not be changed: {error}".splitlines()[0], returncode=5) from error
        self.stdout.write(
            f"The log was at {before.token}, and goes on at {now.token}. Live streams end within a second."
        )
