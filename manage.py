#!/usr/bin/env python3
"""The command line of the board: `manage.py help` lists what it can do."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "killboard.settings")
    try:
        from django.core.management import execute_from_command_line
        from django.db import OperationalError

        try:
            execute_from_command_line(sys.argv)
        except OperationalError:
            from killboard.services import ask_services

            ask_services()  # names the variable and the reason, if it is the database that is away
            raise
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
