"""`mySyncStatus` as a subscription: what is watched for whom, and when it has changed."""

import json

import pytest
from django.db import connection
from django.db.models import Q
from django.test.utils import CaptureQueriesContext

from killboard.engine import engine
from killmails import accounts
from killmails.models import Priority
from killmails.queueing import queue_lists
from killmails.schema.sync import probe
from realtime.callers import NOBODY, Caller
from realtime.operations import BadOperation
from realtime.watch import Watch
from tests.killmails.eve import KILLER, VICTIM

pytestmark = pytest.mark.django_db
STATUS = "subscription { mySyncStatus { id state newKillmails } }"


def viewer(user_id):
    return accounts.authenticate(accounts.new_api_token(user_id, "test"))


def test_nobody_watches_nothing():
    with pytest.raises(BadOperation) as caught:
        engine.stream(engine.prepare(STATUS, None, None, NOBODY))
    assert caught.value.errors[0]["extensions"] == {"code": "UNAUTHENTICATED"}


def test_user_watches_their_own_and_is_told_what_the_query_tells(eve):
    mine = viewer(eve.login(VICTIM))
    eve.login(KILLER)
    operation = engine.prepare(STATUS, None, None, Caller(mine))
    assert engine.stream(operation) == Watch(mine)
    states = []
    for _ in range(2):
        states += json.loads(engine.execute(operation))["data"]["mySyncStatus"]
        eve.work()
    assert states == [
        {"id": str(VICTIM), "state": "WAITING", "newKillmails": 0},
        {"id": str(VICTIM), "state": "UP_TO_DATE", "newKillmails": 3},
    ]


def test_version_changes_with_a_users_own_lists_and_ends_with_the_token(eve):
    mine, theirs = viewer(eve.login(VICTIM)), viewer(eve.login(KILLER))
    again = viewer(mine.user_id)
    viewers = {mine, theirs, again}
    first = probe(viewers)
    assert first == probe(viewers)
    assert first[mine] == first[again] != first[theirs]
    eve.work()
    second = probe(viewers)
    assert [second[one] != first[one] for one in (mine, theirs)] == [True, True]
    queue_lists(Q(eve_id=VICTIM), Priority.COMMAND, force=True)
    third = probe(viewers)
    assert [third[one] != second[one] for one in (mine, theirs)] == [True, False]
    accounts.log_out(mine, everywhere=False)
    assert set(probe(viewers)) == {theirs, again}


def test_a_look_is_as_many_queries_for_one_as_for_many(eve):
    viewers = [viewer(eve.login(VICTIM)) for _ in range(3)] + [viewer(eve.login(KILLER))]
    counts = []
    for some in (viewers[:1], viewers):
        with CaptureQueriesContext(connection) as queries:
            probe(some)
        counts.append(len(queries))
    assert counts == [3, 3]
