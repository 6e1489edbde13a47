#!/usr/bin/env python3
"""The command line of the board: `manage.py help` lists what it can do."""

import os
import sys


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "killboard.settings")
    try:
        try:
            _execute()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # here, where a reader that is gone can be noticed
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # `| head` has read enough. What is still to be written goes nowhere.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
        sys.exit(141)


def _execute() -> None:
    from django.core.management import execute_from_command_line
    from django.core.management.base import BaseCommand, CommandParser
    from django.db import OperationalError, ProgrammingError

    # A wrong argument is one line that names it; `--help` has the rest. Missing tables are the end, and not a remark.
    CommandParser.print_usage = lambda self, file=None: None
    BaseCommand.check_migrations = lambda self: _explain_database()
    try:
        execute_from_command_line(sys.argv)
    except (OperationalError, ProgrammingError):
        _explain_database(tables="migrate" not in sys.argv[1:2])
        raise


def _explain_database(tables: bool = True) -> None:
    """Ends with 2 or 5, and one line, when the database is away or lacks tables."""
    from killboard.services import explain_database

    explain_database(tables)


if __name__ == "__main__":
    main()
