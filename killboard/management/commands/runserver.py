"""`manage.py runserver`: daphne's, once the services that are set have answered."""

from typing import Any

from daphne.management.commands.runserver import Command as DaphneCommand

from killboard.services import require_services


class Command(DaphneCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        require_services()
        super().handle(*args, **options)
