"""Users' own killmails: from a login to what is stored, published or withheld."""

import contextlib
from datetime import UTC, datetime, timedelta

import pytest
from django.db import connection
from django.db.models import F, Q
from django.db.models.functions import Now

from killmails import accounts, queueing
from killmails.errors import NoGrant
from killmails.fake_eve import Fault
from killmails.ingest.quarantine import replay
from killmails.ingest.store import store_killmail
from killmails.models import (
    EsiBudget,
    Killmail,
    KillmailEvent,
    KillmailSync,
    PendingKillmail,
    PendingOwner,
    Priority,
    RejectedKillmail,
    UserCharacter,
)
from killmails.models.users import CORPORATION, OWN
from killmails.recording.tape import killmail_hash
from killmails.records import parse_package
from killmails.upstream.esi import KillmailRef
from killmails.users import rounds
from killmails.users.grants import grant_for
from killmails.users.pending import add, forget_published, publish_due
from tests.builders import NOW, esi_body, raw_package
from tests.killmails.eve import (
    BOTH,
    KILLER,
    KILLER_CORPORATION,
    OTHER,
    VICTIM,
    VICTIM_CORPORATION,
    losses,
    unrelated,
)

pytestmark = pytest.mark.django_db
State = KillmailSync.State


def sync_of(eve_id):
    return KillmailSync.objects.get(eve_id=eve_id)


def due_now(*eve_ids):
    KillmailSync.objects.filter(eve_id__in=eve_ids).update(due_at=Now(), not_before=None)


def test_a_login_brings_the_characters_killmails_to_its_owner_alone(eve):
    user_id = eve.login(VICTIM)
    eve.work()
    assert (Killmail.objects.count(), KillmailEvent.objects.count()) == (0, 0)
    withheld = PendingKillmail.objects.withheld_of(user_id).order_by("killmail_id")
    assert [(row.killmail_id, row.due_at) for row in withheld] == [(1001, None), (1002, None), (1003, None)]
    sync = sync_of(VICTIM)
    assert (sync.state, sync.new_killmails, sync.newest_id, sync.priority) == (
        State.UP_TO_DATE,
        3,
        1003,
        Priority.CLOCK,
    )


def test_who_publishes_at_once_has_them_in_the_log_once_each(eve):
    accounts.set_publication(eve.login(VICTIM), True, 0)
    eve.work()
    assert sorted(KillmailEvent.objects.values_list("killmail_id", "kind")) == [
        (1001, "ADDED"), (1002, "ADDED"), (1003, "ADDED"),
    ]  # fmt: skip
    assert PendingKillmail.objects.count() == 0
    assert eve.asked("/killmails") == [200, 200, 200]
    assert Killmail.objects.get(pk=1001).package.esi() == esi_body(1001, killmail_time="2026-11-20T00:00:00Z")


def test_a_killmail_that_two_bring_is_fetched_once_and_published_by_the_first_who_may(eve):
    eve.login(VICTIM)
    accounts.set_publication(eve.login(KILLER), True, 0)
    eve.work()
    assert eve.asked("/killmails") == [200, 200, 200]
    assert Killmail.objects.count() == 3


def test_a_delay_counts_from_the_loss(eve):
    user_id = eve.login(VICTIM)
    accounts.set_publication(user_id, True, 72)
    eve.fake.world.killmails = {
        1: esi_body(1, killmail_time=_ago(hours=71)),
        2: esi_body(2, killmail_time=_ago(hours=73)),
    }
    eve.work()
    publish_due()
    assert list(Killmail.objects.values_list("pk", flat=True)) == [2]
    row = PendingKillmail.objects.get()
    assert row.due_at - row.time == timedelta(hours=72)
    accounts.set_publication(user_id, True, 24)
    assert publish_due() == 1
    assert sorted(Killmail.objects.values_list("pk", flat=True)) == [1, 2]


def _ago(**units):
    return (datetime.now(UTC) - timedelta(**units)).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_wishes_that_change_move_what_is_withheld(eve):
    user_id = eve.login(VICTIM)
    eve.work()
    accounts.set_publication(user_id, True, 1)
    assert set(PendingKillmail.objects.values_list("due_at", flat=True)) == {
        row.time + timedelta(hours=1) for row in PendingKillmail.objects.all()
    }
    accounts.set_publication(user_id, False, 0)
    assert set(PendingKillmail.objects.values_list("due_at", flat=True)) == {None}
    with pytest.raises(ValueError, match="must be one of 0, 1, 3, 8, 24, 72"):
        accounts.set_publication(user_id, True, 2)


def test_what_the_feed_brings_is_public_whatever_its_owner_wishes(eve):
    eve.login(VICTIM)
    eve.work()
    store_killmail(parse_package(raw_package(1, losses(1)[0]), 1, NOW))
    assert list(Killmail.objects.values_list("pk", flat=True)) == [1001]
    assert forget_published() == 1
    assert PendingKillmail.objects.count() == 2


def test_what_the_feed_brought_first_is_not_fetched(eve):
    store_killmail(parse_package(raw_package(1, losses(1)[0]), 1, NOW))
    eve.login(VICTIM)
    eve.work()
    assert eve.asked("/killmails/1001") == []
    assert sync_of(VICTIM).new_killmails == 2


# The list


def test_a_list_that_has_not_changed_costs_one_question(eve):
    eve.login(VICTIM)
    eve.work()
    due_now(VICTIM)
    eve.work()
    assert eve.asked(f"/characters/{VICTIM}/killmails") == [200, 304]
    assert sync_of(VICTIM).new_killmails == 0
    eve.fake.world.add_killmails(losses(1, first=2001))
    due_now(VICTIM)
    eve.work()
    assert (sync_of(VICTIM).new_killmails, sync_of(VICTIM).newest_id) == (1, 2001)


def test_a_list_is_not_due_again_for_five_minutes(eve):
    eve.login(VICTIM)
    eve.work()
    sync = KillmailSync.objects.annotate(now=Now()).get()
    assert 290 < (sync.due_at - sync.now).total_seconds() <= 301
    assert queueing.queue_lists(Q(), Priority.COMMAND) == []
    assert [row.eve_id for row in queueing.queue_lists(Q(), Priority.COMMAND, force=True)] == [VICTIM]
    eve.work()  # forced, but not before ESI's answer has expired
    assert eve.asked(f"/characters/{VICTIM}/killmails") == [200]
    assert eve.fake.early == []


@pytest.mark.parametrize("fraction", [".000", ".5", ".123", ""])
def test_a_list_that_was_due_at_any_fraction_of_a_second_is_read_once(eve, fraction):
    """As SQLite writes them: a whole second ends with `.000` there, and with nothing in Python."""
    eve.login(VICTIM)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE killmails_killmailsync SET due_at = %s", [f"2026-11-20 12:00:00{fraction}"])
    eve.work()
    assert eve.asked(f"/characters/{VICTIM}/killmails") == [200]


def test_all_pages_are_read_and_known_ones_are_not_read_again(eve):
    eve.fake.world.page_size = 10
    eve.fake.world.add_killmails(losses(35))
    eve.login(VICTIM)
    eve.work()
    assert (PendingKillmail.objects.count(), len(eve.asked(f"/characters/{VICTIM}/killmails"))) == (35, 4)
    eve.fake.world.add_killmails(losses(1, first=2001))
    due_now(VICTIM)
    eve.work()
    assert len(eve.asked(f"/characters/{VICTIM}/killmails")) == 6  # the second page is known
    due_now(VICTIM)
    KillmailSync.objects.update(full=True)
    eve.work()
    assert len(eve.asked(f"/characters/{VICTIM}/killmails")) == 10
    assert PendingKillmail.objects.count() == 36


def test_e9_a_page_that_fails_leaves_the_marker_where_it_was(eve):
    eve.fake.world.page_size = 2
    eve.fake.fail(rf"/characters/{VICTIM}/killmails/recent\?page=2", Fault(500), times=0)
    eve.login(VICTIM)
    sync = sync_of(VICTIM)
    before = (sync.etag, sync.newest_id, sync.next_page)
    eve.work()
    sync = sync_of(VICTIM)
    assert ((sync.etag, sync.newest_id, sync.next_page), sync.state) == (before, State.RETRYING)
    assert "500" in sync.reason
    assert PendingKillmail.objects.count() == 0
    eve.fake.heal()
    a_quarter_of_an_hour_passes(eve)  # five failures in a row are not asked for again at once
    due_now(VICTIM)
    eve.work()
    assert (sync_of(VICTIM).state, PendingKillmail.objects.count()) == (State.UP_TO_DATE, 3)


def test_a_list_longer_than_esis_limit_is_read_in_several_runs(eve):
    """Twelve pages are what the limit for a user allows in a quarter of an hour."""
    eve.fake.world.page_size = 1
    eve.fake.world.add_killmails(losses(20))
    eve.login(VICTIM)
    eve.work()
    sync = sync_of(VICTIM)
    assert (sync.state, sync.next_page, sync.newest_id) == (State.READING, 13, 0)
    assert PendingKillmail.objects.count() == 12
    assert eve.fake.violations == []
    a_quarter_of_an_hour_passes(eve)
    due_now(VICTIM)
    eve.work()
    sync = sync_of(VICTIM)
    assert (sync.state, sync.next_page, sync.newest_id) == (State.UP_TO_DATE, 1, 1020)
    assert PendingKillmail.objects.count() == 20
    assert eve.fake.violations == []


def a_quarter_of_an_hour_passes(eve):
    eve.fake.limits.refill()
    EsiBudget.objects.all().delete()


# Rights


def test_a_corporations_list_is_read_by_its_director(eve):
    eve.fake.world.roles[KILLER] = ("Director",)
    user_id = eve.login(KILLER, BOTH)
    eve.work()
    assert sync_of(KILLER_CORPORATION).state == State.UP_TO_DATE
    assert PendingOwner.objects.filter(user=user_id).count() == 3


def test_a_corporations_next_director_goes_on_where_the_first_has_lost_his_role(eve):
    eve.fake.world.roles[OTHER] = ("Director",)
    eve.login(KILLER, BOTH)
    eve.login(OTHER, BOTH)
    eve.work()
    assert (sync_of(KILLER_CORPORATION).state, eve.row(KILLER).not_director, eve.row(OTHER).not_director) == (
        State.UP_TO_DATE, True, False,
    )  # fmt: skip
    due_now(KILLER_CORPORATION)
    asked = len(eve.asked(f"/corporations/{KILLER_CORPORATION}"))
    eve.work()
    assert len(eve.asked(f"/corporations/{KILLER_CORPORATION}")) == asked + 1  # the first is never asked for again


def test_a_corporation_without_a_director_is_off_and_never_asked_for_until_one_logs_in(eve):
    eve.login(KILLER, BOTH)
    eve.work()
    sync = sync_of(KILLER_CORPORATION)
    assert (sync.state, sync.due_at, sync.reason) == (State.OFF, None, "Character does not have required role(s)")
    eve.fake.world.roles[KILLER] = ("Director",)
    eve.login(KILLER, BOTH)
    eve.work()
    assert sync_of(KILLER_CORPORATION).state == State.UP_TO_DATE


def test_a_worker_that_dies_while_it_asks_for_memberships_costs_a_minute(eve, monkeypatch):
    eve.fake.world.roles[KILLER] = ("Director",)
    eve.login(KILLER, BOTH)

    def killed(ids):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(eve.esi, "fetch_affiliations", killed)
        with pytest.raises(KeyboardInterrupt):
            eve.work()
    UserCharacter.objects.update(corporation_at=F("corporation_at") - timedelta(seconds=61))
    eve.work()
    assert sync_of(KILLER_CORPORATION).state == State.UP_TO_DATE


def test_e15_a_scope_that_was_not_granted_is_told(eve):
    eve.login(VICTIM)
    eve.work()
    eve.fake.sso.grants_of(VICTIM)[0].scopes = ()
    eve.fake.sso.expire_access(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now())
    due_now(VICTIM)
    eve.work()
    assert (sync_of(VICTIM).state, sync_of(VICTIM).reason) == (State.OFF, f"the scope {OWN} was not granted")


def test_e11_a_token_that_esi_does_not_take_is_refreshed_once(eve):
    eve.login(VICTIM)
    eve.fake.sso.expire_access(VICTIM)
    eve.work()
    assert eve.asked(f"/characters/{VICTIM}/killmails") == [401, 200]
    assert eve.fake.sso.refreshes == {VICTIM: 1}
    assert sync_of(VICTIM).state == State.UP_TO_DATE


def test_e11_a_token_that_esi_never_takes_is_given_up(eve):
    eve.login(VICTIM)
    eve.fake.fail(f"/characters/{VICTIM}/killmails", Fault(401, b'{"error":"Unauthorized - Invalid token"}'), times=0)
    eve.work()
    assert (eve.row(VICTIM).state, eve.row(VICTIM).refresh_token) == (UserCharacter.State.NEEDS_LOGIN, "")
    assert (sync_of(VICTIM).state, sync_of(VICTIM).reason) == (State.OFF, "ESI does not take its token; log in again")
    asked = len(eve.fake.asked)
    KillmailSync.objects.filter(due_at=None).update(due_at=Now())
    eve.work()
    assert len(eve.fake.asked) == asked


def test_e12_a_grant_that_was_ended_is_told_and_not_asked_for_again(eve):
    eve.login(VICTIM)
    eve.fake.sso.end_grants(VICTIM)
    eve.work()
    row = eve.row(VICTIM)
    assert (row.state, row.refresh_token, row.access_token) == (UserCharacter.State.NEEDS_LOGIN, "", "")
    assert row.reason == "EVE has ended the grant; log in again"
    asked = len(eve.fake.asked)
    with pytest.raises(NoGrant):
        grant_for(eve.sso, VICTIM)
    assert len(eve.fake.asked) == asked


def test_a_character_that_was_sold_leaves_its_old_owner(eve):
    first = eve.login(VICTIM)
    eve.work()
    eve.fake.world.sell(VICTIM)
    second = eve.login(VICTIM)
    eve.work()
    assert first != second
    assert eve.row(VICTIM).user_id == second
    assert PendingKillmail.objects.withheld_of(first).count() == 3  # they were theirs


def test_a_character_whose_refreshed_token_names_another_owner_was_sold(eve):
    eve.login(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now(), owner_hash="somebody-else")
    eve.work()
    assert (eve.row(VICTIM).state, eve.row(VICTIM).refresh_token) == (UserCharacter.State.SOLD, "")


def test_a_user_holds_several_characters_and_comes_back_by_any(eve):
    user_id = eve.login(VICTIM)
    assert eve.login(KILLER, user_id=user_id) == user_id
    assert eve.login(KILLER) == user_id
    assert UserCharacter.objects.filter(user=user_id).count() == 2


def test_a_character_that_is_removed_is_revoked_at_eve_and_forgotten(eve):
    user_id = eve.login(VICTIM)
    assert not accounts.remove_character(user_id + 1, VICTIM)
    assert accounts.remove_character(user_id, VICTIM)
    eve.work()
    assert (UserCharacter.objects.count(), KillmailSync.objects.count()) == (0, 0)
    assert eve.fake.sso.grants_of(VICTIM) == []
    assert eve.asked("/v2/oauth/revoke") == [200]


# Killmails


def test_e1_a_pair_that_esi_refuses_is_quarantined_and_never_asked_for_again(eve):
    user_id = eve.login(VICTIM)
    add([KillmailRef(55, "0" * 40)], [user_id], Priority.CLOCK)
    eve.work()
    assert eve.asked("/killmails/55") == [422]
    rejected = RejectedKillmail.objects.get()
    assert (rejected.killmail_id, rejected.reason, rejected.detail) == (55, "ESI_UNKNOWN", "its owner withholds it")
    add([KillmailRef(55, "0" * 40)], [user_id], Priority.LOGIN)
    eve.work()
    assert eve.asked("/killmails/55") == [422]


def test_e5_a_body_that_is_an_error_is_quarantined_without_what_its_owner_withholds(eve):
    eve.fake.fail("/killmails/1001/", Fault(200, b'{"error": "secret of 1001"}'))
    eve.login(VICTIM)
    eve.work()
    rejected = RejectedKillmail.objects.get()
    assert (rejected.killmail_id, rejected.reason, bytes(rejected.raw)) == (1001, "BAD_FIELD", b"")
    assert "secret" not in rejected.detail


@pytest.mark.parametrize(("hours", "is_told"), [(0, True), (72, False)])
def test_e5_of_what_its_owner_publishes_at_once_all_is_told(eve, hours, is_told):
    eve.fake.fail("/killmails/1001/", Fault(200, b'{"error": "of 1001"}'))
    accounts.set_publication(eve.login(VICTIM), True, hours)
    eve.work()
    rejected = RejectedKillmail.objects.get()
    assert (rejected.killmail_id, rejected.reason) == (1001, "BAD_FIELD")
    assert (rejected.detail != "its owner withholds it") is is_told


def test_e5_a_public_body_that_is_an_error_is_kept_in_the_quarantine(eve):
    eve.fake.fail("/killmails/1001/", Fault(200, b'{"error": "text of 1001"}'))
    ref = next(ref for ref in _refs(eve) if ref.killmail_id == 1001)
    queueing.queue_killmail(ref.killmail_id, ref.killmail_hash, Priority.COMMAND)
    eve.work()
    rejected = RejectedKillmail.objects.get()
    assert (rejected.reason, bytes(rejected.raw)) == ("BAD_FIELD", b'{"error": "text of 1001"}')


def test_a_replay_from_the_quarantine_asks_esi_again(eve):
    eve.fake.fail("/killmails/1001/", Fault(200, b"{}"))
    accounts.set_publication(eve.login(VICTIM), True, 0)
    eve.work()
    RejectedKillmail.objects.update(state=RejectedKillmail.State.QUEUED)
    replay(RejectedKillmail.objects.get().pk)
    eve.work()
    assert Killmail.objects.filter(pk=1001).exists()
    assert RejectedKillmail.objects.get().state == RejectedKillmail.State.DISCARDED


def test_a_killmail_that_kills_its_worker_each_time_does_not_go_round_for_ever(eve):
    eve.login(VICTIM)
    eve.work()
    PendingKillmail.objects.filter(killmail_id=1001).update(state="TO_FETCH", tries=6, due_at=Now())
    eve.work()
    rejected = RejectedKillmail.objects.get()
    assert (rejected.killmail_id, rejected.reason) == (1001, "TOO_MANY_TRIES")
    assert eve.asked("/killmails/1001") == [200]


def test_who_was_claimed_with_it_does_not_share_its_fate(eve, monkeypatch):
    """A process that is killed with five killmails in hand: each is tried alone then, and only one of them is bad."""
    accounts.set_publication(eve.login(VICTIM), True, 0)

    def fetch(row, *others):
        if row.killmail_id == 1001:
            raise KeyboardInterrupt  # as good as killed
        return original(row, *others)

    original = rounds.fetch
    monkeypatch.setattr(rounds, "fetch", fetch)
    for _ in range(12):
        with contextlib.suppress(KeyboardInterrupt):
            eve.work()
        PendingKillmail.objects.update(claimed_until=None, due_at=Now())
    assert sorted(Killmail.objects.values_list("pk", flat=True)) == [1002, 1003]
    assert PendingKillmail.objects.get().tries > 6


def test_esi_that_is_down_costs_no_tries(eve):
    eve.fake.fail("/killmails", Fault(503), times=0)
    eve.login(VICTIM)
    for _ in range(3):
        PendingKillmail.objects.update(due_at=Now())
        eve.work()
    assert set(PendingKillmail.objects.values_list("state", "tries")) == {("TO_FETCH", 0)}
    eve.fake.heal()


def test_urgent_work_goes_first(eve):
    """A login's before a command's, a command's before the clock's."""
    user_id = eve.login(VICTIM)
    KillmailSync.objects.all().delete()
    for killmail_id, priority in ((1001, Priority.CLOCK), (1002, Priority.COMMAND), (1003, Priority.LOGIN)):
        ref = next(ref for ref in _refs(eve) if ref.killmail_id == killmail_id)
        add([ref], [user_id], priority)
    eve.work()
    assert [one.path.split("/")[2] for one in eve.fake.asked if one.path.startswith("/killmails")] == [
        "1003", "1002", "1001",
    ]  # fmt: skip


def test_urgent_lists_go_first(eve):
    priorities = {VICTIM: Priority.CLOCK, KILLER: Priority.COMMAND, OTHER: Priority.LOGIN}
    for pilot, priority in priorities.items():
        eve.login(pilot)
        KillmailSync.objects.filter(eve_id=pilot).update(priority=priority)
    eve.work()
    asked = [int(one.path.split("/")[2]) for one in eve.fake.asked if one.path.endswith("recent?page=1")]
    assert asked == [OTHER, KILLER, VICTIM]


def _refs(eve):
    return [KillmailRef(id_, killmail_hash(body)) for id_, body in eve.fake.world.killmails.items()]


# What anybody adds


def test_who_knows_the_hash_may_have_it_stored(eve):
    ref = _refs(eve)[0]
    assert queueing.queue_killmail(ref.killmail_id, ref.killmail_hash, Priority.ANYBODY) == "QUEUED"
    eve.work()
    assert Killmail.objects.filter(pk=ref.killmail_id).exists()
    assert queueing.queue_killmail(ref.killmail_id, ref.killmail_hash, Priority.ANYBODY) == "STORED"


def test_a_wrong_hash_tells_nothing_of_what_is_withheld(eve):
    """Whether somebody withholds the killmail or nobody knows it: the same answers."""
    eve.login(VICTIM)
    eve.work()
    withheld, unknown = 1001, 999_999
    for _ in range(2):
        told = [queueing.queue_killmail(id_, "0" * 40, Priority.ANYBODY) for id_ in (withheld, unknown)]
        assert told[0] == told[1]
        eve.work()
    assert told == ["REFUSED", "REFUSED"]
    assert PendingKillmail.objects.filter(killmail_id=withheld, state="WITHHELD").exists()
    assert Killmail.objects.count() == 0


def test_by_its_page_at_zkillboard_a_killmail_is_found(eve):
    ref = _refs(eve)[0]
    body = f'[{{"killmail_id": {ref.killmail_id}, "zkb": {{"hash": "{ref.killmail_hash}"}}}}]'.encode()
    eve.fake.fail(f"/api/killID/{ref.killmail_id}/", Fault(200, body, free=True))
    eve.fake.fail("/api/killID/77/", Fault(200, b"[]", free=True))
    for killmail_id in (ref.killmail_id, 77):
        assert queueing.queue_killmail(killmail_id, "", Priority.ANYBODY) == "QUEUED"
    eve.work()
    assert list(Killmail.objects.values_list("pk", flat=True)) == [ref.killmail_id]
    assert queueing.queue_killmail(77, "", Priority.ANYBODY) == "REFUSED"
    assert queueing.why_refused(77, "").startswith("ESI_UNKNOWN")


def test_killmails_of_others_are_not_brought(eve):
    eve.fake.world.add_killmails([unrelated(3001)])
    eve.login(VICTIM)
    eve.work()
    assert not PendingKillmail.objects.filter(killmail_id=3001).exists()
    assert VICTIM_CORPORATION not in KillmailSync.objects.values_list("eve_id", flat=True)


def test_a_missing_key_costs_nobody_a_login(eve, settings):
    """An old `.env`, or a key that went too early: the token is kept for when it is back."""
    eve.login(VICTIM)
    kept, right = eve.row(VICTIM).refresh_token, settings.TOKEN_KEYS
    settings.TOKEN_KEYS = ["C" * 43 + "="]
    eve.work()
    row = eve.row(VICTIM)
    assert (row.state, row.refresh_token) == (UserCharacter.State.READY, kept)
    assert (sync_of(VICTIM).state, sync_of(VICTIM).reason[:16]) == (State.RETRYING, KillmailSync.NO_KEY)
    settings.TOKEN_KEYS = right
    due_now(VICTIM)
    eve.work()
    assert sync_of(VICTIM).state == State.UP_TO_DATE


def test_a_directors_missing_key_does_not_keep_another_director_from_reading(eve):
    eve.fake.world.roles |= {KILLER: ("Director",), OTHER: ("Director",)}
    for director in (OTHER, KILLER):
        eve.login(director, (CORPORATION,))
    eve.work()
    UserCharacter.objects.filter(pk=KILLER).update(refresh_token="of another key", access_token="")
    due_now(KILLER_CORPORATION)
    eve.work()
    assert sync_of(KILLER_CORPORATION).state == State.UP_TO_DATE
    assert eve.row(KILLER).refresh_token == "of another key"
