"""`manage.py diagnose_redis`: do new killmails reach all servers? Six tests, up to the first that fails."""

import argparse
import json
import sys
from typing import Any

from django.core.management import BaseCommand

from health.diagnosis import Result, diagnose

MARKS = {True: "✔", False: "✘", None: "?"}
PLAIN_MARKS = {True: "ok", False: "FAILED", None: "?"}  # for a terminal that has no others
WIDTH = 22  # of the names


class Command(BaseCommand):
    help = "Tests the way from a stored killmail to the servers: Redis, its pub/sub, and every process of the board."
    # It is there for boards on which something is wrong.
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")

    def handle(self, *args: Any, **options: Any) -> None:
        results = []
        for result in diagnose():
            results.append(result)
            if not options["json"]:
                self._tell(result)
        passed = all(result.passed for result in results)
        if options["json"]:
            self.stdout.write(json.dumps({"passed": passed, "tests": [result.as_dict() for result in results]}))
        elif passed:
            self.stdout.write("All of it works.")
        if not passed:
            sys.exit(1)

    def _tell(self, result: Result) -> None:
        try:
            MARKS[result.passed].encode(sys.stdout.encoding or "ascii")
            marks = MARKS
        except UnicodeEncodeError:
            marks = PLAIN_MARKS
        self.stdout.write(f"{marks[result.passed]} {result.number} {result.name:{WIDTH}} {result.text}")
        for line in result.details:
            self.stdout.write(f"    {line}")
        self.stdout.flush()
