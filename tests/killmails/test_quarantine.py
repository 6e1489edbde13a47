"""Packages that could not be accepted: kept with their bytes, replayed when somebody says so."""

import pytest

from killmails.errors import Outrun, Reason, Unacceptable
from killmails.ingest import quarantine as quarantine_module
from killmails.ingest.quarantine import KEPT, quarantine, replay
from killmails.ingest.store import Stored
from killmails.models import Killmail, KillmailEvent, RejectedKillmail
from killmails.recording.tape import php_json
from killmails.tasks import replay_rejected, sweep_replays
from tests.builders import counts, dump, package, raw_package

pytestmark = pytest.mark.django_db
State = RejectedKillmail.State


def rejected(raw: bytes, state: str = State.QUEUED, sequence: int = 5) -> RejectedKillmail:
    return RejectedKillmail.objects.create(sequence=sequence, reason="BAD_FIELD", detail="old", raw=raw, state=state)


def found(row: RejectedKillmail) -> tuple:
    row.refresh_from_db()
    return row.state, row.reason


# Keeping


def test_package_is_kept_with_reason_and_bytes():
    claims = []
    error = Unacceptable(Reason.BAD_FIELD, "hash: is missing", b"\x00\xffraw")
    row = quarantine(5, error, lambda: claims.append(1))
    row.refresh_from_db()
    assert (row.sequence, row.reason, row.detail, bytes(row.raw)) == (
        5,
        "BAD_FIELD",
        "hash: is missing",
        b"\x00\xffraw",
    )
    assert row.state == State.OPEN
    assert claims == [1]


def test_only_the_first_mebibyte_is_kept():
    row = quarantine(5, Unacceptable(Reason.TOO_LARGE, "x", b"ab" * KEPT), lambda: None)
    row.refresh_from_db()
    assert bytes(row.raw) == b"ab" * (KEPT // 2)


def test_detail_that_no_database_takes_is_made_storable():
    row = quarantine(5, Unacceptable(Reason.BAD_JSON, "a\x00b\ud800c" + "x" * 1000, b""), lambda: None)
    row.refresh_from_db()
    assert row.detail.startswith("a\ufffdb?cxxx")
    assert len(row.detail) == 500


def test_worker_that_was_outrun_keeps_nothing():
    def claim() -> None:
        raise Outrun("another worker was faster")

    with pytest.raises(Outrun):
        quarantine(5, Unacceptable(Reason.BAD_JSON, "x", b""), claim)
    assert counts() == {}


# Replaying


def test_replay_stores_what_can_be_accepted_now():
    row = rejected(raw_package(5))
    assert replay(row.pk) is Stored.ADDED
    assert found(row)[0] == State.STORED
    assert Killmail.objects.get().package.raw() == raw_package(5)
    assert KillmailEvent.objects.count() == 1


def test_replay_of_a_killmail_that_came_meanwhile_changes_nothing():
    replay(rejected(raw_package(5)).pk)
    before = dump()
    row = rejected(raw_package(5))
    assert replay(row.pk) is Stored.KNOWN
    assert found(row)[0] == State.STORED
    assert dump() == before


def test_replay_of_what_is_still_wrong_opens_it_again_with_the_new_reason():
    row = rejected(php_json(package(5, hash="a" * 40)))
    with pytest.raises(Unacceptable, match="HASH_MISMATCH"):
        replay(row.pk)
    assert found(row) == (State.OPEN, "HASH_MISMATCH")
    assert counts() == {"RejectedKillmail": 1}


def test_replay_of_a_placeholder_discards_it():
    row = rejected(php_json(package(5, killmail_id=None, hash=None)))
    assert replay(row.pk) is None
    assert found(row)[0] == State.DISCARDED


@pytest.mark.parametrize("state", [State.OPEN, State.STORED, State.DISCARDED])
def test_only_what_was_queued_is_replayed(state):
    row = rejected(raw_package(5), state)
    assert replay(row.pk) is None
    assert found(row) == (state, "BAD_FIELD")
    assert counts() == {"RejectedKillmail": 1}


def test_replay_twice_stores_once():
    row = rejected(raw_package(5))
    assert replay(row.pk) is Stored.ADDED
    assert replay(row.pk) is None
    assert KillmailEvent.objects.count() == 1


# As tasks


def test_task_replays_and_may_run_twice():
    row = rejected(raw_package(5))
    replay_rejected(row.pk)
    replay_rejected(row.pk)
    assert (found(row)[0], KillmailEvent.objects.count()) == (State.STORED, 1)


def test_task_leaves_what_is_still_wrong_open():
    row = rejected(b"<html>")
    replay_rejected(row.pk)
    assert found(row) == (State.OPEN, "NOT_JSON")


def test_sweeper_queues_again_what_was_queued_a_minute_ago(monkeypatch):
    queued = []
    monkeypatch.setattr(replay_rejected, "delay", queued.append)
    old = "2020-01-01T00:00:00Z"
    first, second, fresh = rejected(b"<html>"), rejected(raw_package(5)), rejected(raw_package(6), sequence=6)
    RejectedKillmail.objects.filter(pk__in=[first.pk, second.pk]).update(changed_at=old)
    sweep_replays()
    assert sorted(queued) == [first.pk, second.pk]
    assert found(fresh)[0] == State.QUEUED


def test_replay_that_another_worker_has_done_already_changes_nothing():
    row = rejected(raw_package(5))
    stale = RejectedKillmail.objects.get(pk=row.pk)
    replay(row.pk)
    with pytest.raises(Outrun):
        quarantine_module._change(stale, State.STORED)
    replay_rejected(row.pk)
    assert (found(row)[0], KillmailEvent.objects.count()) == (State.STORED, 1)
