"""Encrypt all tokens with the first of TOKEN_KEYS."""

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from killmails.users.keys import rotate


class Command(BaseCommand):
    help = (
        "Encrypts the tokens in the database anew with the first key of TOKEN_KEYS; after that the others may go. Put "
        "a new key in front, restart all processes, run this, take the old key away. Can be stopped, and run again."
    )
    requires_migrations_checks = True

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.TOKEN_KEYS:
            raise CommandError("TOKEN_KEYS: is not set, so there is nothing to encrypt with.", returncode=2)
        rotated, lost = rotate()
        self.stdout.write(f"{rotated} characters' tokens are encrypted with the first key.")
        if lost:
            raise CommandError(
                f"{lost} characters' tokens fit none of the keys: add the key that is missing, or they log in again.",
                returncode=1,
            )
