"""What is done about a database that takes long, or does not answer."""

import json
import subprocess
import sys

import pytest
from django.db import OperationalError
from graphql import build_schema

from killboard.queries import database_is_away
from realtime.operations import Engine, as_json

SLOW = """
import time
import django
django.setup()
from django.db import OperationalError, connection
from killboard import database
database.STATEMENT_LIMIT = 0.3
{first}
begun = time.monotonic()
try:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_sleep({sleep})")
    print("done")
except OperationalError as error:
    print(error.__cause__.sqlstate, time.monotonic() - begun < 50)
"""


def _slow(first, sleep):
    command = [sys.executable, "-c", SLOW.replace("{first}", first).replace("{sleep}", str(sleep))]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    return result.stdout.strip(), result.stderr


@pytest.mark.services
def test_statement_of_a_server_is_ended_by_postgresql_when_it_takes_too_long():
    assert _slow("connection.ensure_connection(); database.limit_statements()", 60)[0] == "57014 True"


@pytest.mark.services
def test_statement_of_other_processes_may_take_its_time():
    assert _slow("", 1)[0] == "done"


class Cancelled(Exception):
    sqlstate = "57014"


@pytest.mark.parametrize(("cause", "code", "away"), [(Cancelled(), "TOO_SLOW", False), (None, "UNAVAILABLE", True)])
def test_client_is_told_whether_the_database_is_slow_or_away(cause, code, away):
    def resolve(root, info):
        raise OperationalError("canceling statement due to statement timeout") from cause

    schema = build_schema("type Query { slow: String }")
    schema.query_type.fields["slow"].resolve = resolve
    engine = Engine(schema)
    result = engine.result(engine.prepare("{ slow }", None, None))
    assert database_is_away(result) is away
    (error,) = json.loads(as_json(result))["errors"]
    assert error["extensions"] == {"code": code}
    assert "canceling" not in error["message"]
