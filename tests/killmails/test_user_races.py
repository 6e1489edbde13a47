"""What comes in between: logins, wishes, deaths of workers, each at the worst moment."""

import json
from datetime import timedelta

import pytest
from django.contrib.auth import get_user_model
from django.db.models import F, Q
from django.db.models.functions import Now
from django.test import Client

from killmails import accounts, queueing
from killmails.errors import BudgetSpent, NoGrant, TokenRefused, UpstreamUnreachable
from killmails.fake_eve import Fault
from killmails.models import (
    EsiBudget,
    Killmail,
    KillmailSync,
    PendingKillmail,
    PendingOwner,
    Priority,
    RejectedKillmail,
    UnusedGrant,
    UserCharacter,
)
from killmails.models.users import CORPORATION, OWN
from killmails.schema.sync import statuses
from killmails.upstream.esi import KillmailRef, RecentPage
from killmails.users import lists, pending, rounds
from killmails.users.grants import grant_for
from killmails.users.work import CLAIM, claim
from tests.killboard.test_login import begin, come_back, log_in
from tests.killmails.eve import BOTH, KILLER, KILLER_CORPORATION, OTHER, VICTIM, losses
from tests.killmails.test_users import a_quarter_of_an_hour_passes, due_now, sync_of

pytestmark = pytest.mark.django_db
State = KillmailSync.State
withheld_of = PendingKillmail.objects.withheld_of


def publish():
    while pending.publish_due():
        pass


def everything_due():
    EsiBudget.objects.all().delete()
    KillmailSync.objects.exclude(due_at=None).update(due_at=Now(), not_before=None)


# Rights


def test_who_is_no_director_is_not_told_how_many_killmails_there_are(eve):
    eve.fake.world.roles[KILLER] = ("Director",)
    eve.login(KILLER, BOTH)
    eve.work()
    spy = eve.login(OTHER, BOTH)
    assert [row.kind for row in statuses(spy)] == ["character"]  # before ESI was asked
    due_now(KILLER_CORPORATION)
    eve.work()
    assert (eve.row(OTHER).not_director, [row.kind for row in statuses(spy)]) == (True, ["character"])
    assert not PendingOwner.objects.filter(user=spy).exists()
    assert [row.new_killmails for row in statuses(eve.row(KILLER).user_id)] == [3, 0]


def test_what_somebody_else_has_brought_is_new_to_who_brings_it_too(eve):
    """Else it would tell that somebody has."""
    eve.login(VICTIM)
    eve.work()
    eve.login(KILLER)
    eve.work()
    assert [sync.new_killmails for sync in KillmailSync.objects.filter(eve_id__in=(VICTIM, KILLER))] == [3, 3]


def test_each_director_sees_the_corporations_killmails_and_may_publish_them(eve):
    eve.fake.world.roles |= {KILLER: ("Director",), OTHER: ("Director",)}
    first = eve.login(KILLER, (CORPORATION,))
    eve.work()
    second = eve.login(OTHER, (CORPORATION,))  # when the list is known to the first one
    due_now(KILLER_CORPORATION)
    eve.work()
    assert (withheld_of(first).count(), withheld_of(second).count()) == (3, 3)
    due_now(KILLER_CORPORATION)
    asked = len(eve.asked(f"/corporations/{KILLER_CORPORATION}"))
    eve.work()
    assert eve.asked(f"/corporations/{KILLER_CORPORATION}")[asked:] == [304, 304]  # one token of each
    accounts.set_publication(second, True, 0)
    publish()
    assert Killmail.objects.count() == 3


@pytest.mark.parametrize("lost", [KILLER, OTHER])
@pytest.mark.parametrize("most_asked", [10, 0])
def test_a_director_who_has_lost_the_role_does_not_see_what_another_one_reads(eve, monkeypatch, lost, most_asked):
    """Found out in the same run; of more directors than are asked in one, after as many runs as there are directors."""
    monkeypatch.setattr(lists, "MOST_ASKED", most_asked)
    eve.fake.world.roles |= {KILLER: ("Director",), OTHER: ("Director",)}
    users = {pilot: eve.login(pilot, (CORPORATION,)) for pilot in (KILLER, OTHER)}
    eve.work()
    eve.fake.world.roles[lost] = ()
    for _ in range(0 if most_asked else 2):
        due_now(KILLER_CORPORATION)
        eve.work()
    eve.fake.world.add_killmails(losses(2, first=2001))
    due_now(KILLER_CORPORATION)
    eve.work()
    assert (eve.row(lost).not_director, sync_of(KILLER_CORPORATION).state) == (True, State.UP_TO_DATE)
    assert {pilot: withheld_of(user).count() for pilot, user in users.items()} == {KILLER: 5, OTHER: 5} | {lost: 3}


def test_a_director_whom_esi_does_not_answer_just_then_stays_one_and_holds_nobody_up(eve, monkeypatch):
    eve.fake.world.roles |= {KILLER: ("Director",), OTHER: ("Director",)}
    users = [eve.login(pilot, (CORPORATION,)) for pilot in (KILLER, OTHER)]
    eve.work()
    eve.fake.world.add_killmails(losses(2, first=2001))
    real = eve.esi.fetch_recent_killmails
    readers = []

    def fetch(kind, eve_id, holder_id, *arguments, **more):
        readers.append(holder_id)
        if holder_id != readers[0]:
            raise BudgetSpent(600, "the limit of this user")
        return real(kind, eve_id, holder_id, *arguments, **more)

    monkeypatch.setattr(eve.esi, "fetch_recent_killmails", fetch)
    due_now(KILLER_CORPORATION)
    eve.work()
    assert (sorted(readers), sync_of(KILLER_CORPORATION).state) == ([KILLER, OTHER], State.UP_TO_DATE)
    assert [withheld_of(user).count() for user in users] == [5, 5]


def test_a_banned_user_brings_nothing_more(client, eve):
    user_id = eve.login(VICTIM)
    get_user_model().objects.filter(pk=user_id).update(is_active=False)
    eve.work()
    assert (sync_of(VICTIM).state, PendingKillmail.objects.count()) == (State.OFF, 0)
    before = eve.row(VICTIM).refresh_token
    assert come_back(client, eve, begin(client)).status_code == 403
    assert (eve.row(VICTIM).refresh_token, sync_of(VICTIM).state) == (before, State.OFF)


def test_eves_word_does_not_open_the_admin(client, eve):
    root = get_user_model().objects.create_superuser("root", password="x" * 20)
    client.force_login(root, backend="django.contrib.auth.backends.ModelBackend")
    assert come_back(client, eve, begin(client)).status_code == 302
    assert eve.row(VICTIM).user_id != root.pk
    other = Client()
    come_back(other, eve, begin(other))
    assert other.get("/admin/").status_code == 302  # to its own login
    UserCharacter.objects.update(user=root)
    assert come_back(other, eve, begin(Client())).status_code == 400
    browser = Client()
    assert come_back(browser, eve, begin(browser)).status_code == 403


def test_a_second_login_does_not_undo_what_was_said_of_publication(client, eve):
    log_in(client, eve, publication="24")
    log_in(Client(), eve, publication="never")  # as the form comes, in another browser
    assert accounts.publication_of(eve.row(VICTIM).user_id).delay_hours == 24


def test_a_character_that_moves_to_another_user_of_the_same_person_takes_its_killmails_along(eve):
    first = eve.login(VICTIM)
    eve.work()
    token = accounts.new_api_token(first, "bot")
    second = eve.login(OTHER)
    assert eve.login(VICTIM, user_id=second) == second
    assert (withheld_of(first).count(), withheld_of(second).count()) == (0, 3)
    assert accounts.authenticate(token) is None  # nobody could end it any more
    accounts.set_publication(second, True, 0)
    publish()
    assert Killmail.objects.count() == 3


def test_a_character_that_moves_away_from_others_is_read_anew(eve):
    first = eve.login(VICTIM)
    eve.login(KILLER, user_id=first)
    eve.work()
    second = eve.login(OTHER)
    eve.login(VICTIM, user_id=second)
    everything_due()
    eve.work()
    assert (withheld_of(first).count(), withheld_of(second).count()) == (3, 3)


# Wishes


def test_a_wish_that_changes_while_a_killmail_is_published_holds(eve, monkeypatch):
    user_id = eve.login(VICTIM)
    eve.work()
    accounts.set_publication(user_id, True, 0)
    real = pending.record_of

    def slow(row):
        accounts.set_publication(user_id, False, 0)
        return real(row)

    monkeypatch.setattr(pending, "record_of", slow)
    pending.publish_due()
    assert (Killmail.objects.count(), withheld_of(user_id).count()) == (0, 3)
    assert set(PendingKillmail.objects.values_list("due_at", "claimed_until")) == {(None, None)}


def test_a_wish_that_changes_while_a_killmail_is_fetched_holds(eve, monkeypatch):
    user_id = eve.login(VICTIM)
    accounts.set_publication(user_id, True, 0)
    real = eve.esi.fetch_killmail

    def slow(*pair):
        body = real(*pair)
        accounts.set_publication(user_id, False, 0)
        return body

    monkeypatch.setattr(eve.esi, "fetch_killmail", slow)
    eve.work()
    assert (Killmail.objects.count(), withheld_of(user_id).count()) == (0, 3)


def test_what_somebody_adds_while_it_is_fetched_is_published(eve, monkeypatch):
    eve.login(VICTIM)
    real = eve.esi.fetch_killmail

    def slow(id_, hash_):
        body = real(id_, hash_)
        if id_ == 1002:
            assert queueing.queue_killmail(id_, hash_, Priority.ANYBODY) == "QUEUED"
        return body

    monkeypatch.setattr(eve.esi, "fetch_killmail", slow)
    eve.work()
    publish()
    assert list(Killmail.objects.values_list("pk", flat=True)) == [1002]


def test_a_wish_that_was_overlooked_is_seen_within_the_hour(eve):
    user_id = eve.login(VICTIM)
    accounts.set_publication(user_id, True, 1)
    eve.work()
    PendingKillmail.objects.update(due_at=None)  # a worker died at the worst moment
    pending.schedule_left_over()
    publish()
    assert Killmail.objects.count() == 3


# Lists


def test_a_full_reading_goes_on_to_the_last_page_over_several_runs(eve):
    eve.fake.world.page_size = 1
    eve.fake.world.add_killmails(losses(20))
    eve.login(VICTIM)
    for full in (False, False, True, False):
        KillmailSync.objects.filter(state=State.UP_TO_DATE).update(full=full, etag="" if full else "x")
        a_quarter_of_an_hour_passes(eve)
        due_now(VICTIM)
        eve.work()
    pages = [one.path.partition("page=")[2] for one in eve.fake.asked if "recent" in one.path]
    assert pages == [str(page) for page in range(1, 21)] * 2
    assert (sync_of(VICTIM).state, sync_of(VICTIM).full) == (State.UP_TO_DATE, False)


@pytest.mark.usefixtures("still")
def test_a_slow_list_stays_with_its_worker(eve, monkeypatch):
    eve.login(VICTIM)
    (sync,) = claim(KillmailSync.objects.all())

    def pages(*_, page, etag):
        # Renewed before each page; and until the next one most of a minute passes.
        assert KillmailSync.objects.annotate(left=F("claimed_until") - Now()).get().left == CLAIM
        KillmailSync.objects.update(claimed_until=Now() + timedelta(seconds=1))
        assert claim(KillmailSync.objects.all()) == []
        return RecentPage([KillmailRef(1000 - page, "a" * 40)], 9, "e", True, 300.0)

    monkeypatch.setattr(eve.esi, "fetch_recent_killmails", pages)
    lists.read_list(sync, eve.esi, eve.sso)
    assert PendingKillmail.objects.count() == 9


def test_who_has_lost_the_claim_stops_and_changes_nothing(eve, monkeypatch):
    eve.login(VICTIM)
    (sync,) = claim(KillmailSync.objects.all())
    KillmailSync.objects.update(fence=99)
    lists.read_list(sync, eve.esi, eve.sso)
    assert (eve.asked(f"/characters/{VICTIM}/killmails"), sync_of(VICTIM).last_run_at) == ([], None)


def test_a_list_that_is_asked_for_while_it_is_read_waits_for_esis_next_answer(eve, monkeypatch):
    eve.login(VICTIM)
    real, asked = eve.esi.fetch_recent_killmails, []

    def slow(*arguments, **more):
        asked.append(queueing.queue_lists(Q(eve_id=VICTIM), Priority.COMMAND))
        return real(*arguments, **more)

    monkeypatch.setattr(eve.esi, "fetch_recent_killmails", slow)
    eve.work()
    assert len(asked) == 1
    sync = KillmailSync.objects.annotate(now=Now()).get()
    assert (sync.due_at - sync.now).total_seconds() > 200


def test_a_list_that_was_off_is_read_after_a_login_however_lately_it_was_read(eve):
    eve.login(VICTIM)
    eve.work()
    UserCharacter.objects.update(state="NEEDS_LOGIN", reason="x")
    due_now(VICTIM)
    eve.work()
    assert sync_of(VICTIM).state == State.OFF
    eve.login(VICTIM)
    assert (sync_of(VICTIM).state, sync_of(VICTIM).due_at is None) == (State.WAITING, False)


@pytest.mark.parametrize("tries", [0, 3])
def test_a_login_while_the_old_grant_is_found_to_be_over_leaves_the_list_on(eve, monkeypatch, tries):
    eve.login(VICTIM)
    eve.work()  # so it was read just now
    due_now(VICTIM)
    KillmailSync.objects.update(tries=tries)
    eve.fake.sso.end_grants(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now())
    real = lists.grant_for

    def slow(*arguments, **more):
        try:
            return real(*arguments, **more)
        finally:
            monkeypatch.setattr(lists, "grant_for", real)
            eve.login(VICTIM)

    monkeypatch.setattr(lists, "grant_for", slow)
    (sync,) = claim(KillmailSync.objects.all())
    lists.read_list(sync, eve.esi, eve.sso)
    assert sync_of(VICTIM).due_at is not None
    eve.work()
    assert (eve.row(VICTIM).state, sync_of(VICTIM).state, sync_of(VICTIM).claimed_until) == (
        "READY", State.UP_TO_DATE, None,
    )  # fmt: skip


def test_a_list_that_kills_its_worker_does_not_come_again_at_once(eve, monkeypatch):
    eve.login(VICTIM)
    KillmailSync.objects.update(tries=4)

    def killed(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(eve.esi, "fetch_recent_killmails", killed)
    with pytest.raises(KeyboardInterrupt):
        eve.work()
    sync = KillmailSync.objects.annotate(now=Now()).get()
    assert (sync.due_at - sync.now).total_seconds() > 200


def test_directors_are_asked_for_their_corporation_however_many_are_none(eve):
    user_id = eve.login(VICTIM)
    UserCharacter.objects.bulk_create(
        UserCharacter(pk=number, user_id=user_id, name="x", owner_hash="h", scopes=[OWN], refresh_token="x")
        for number in range(1, 1100)
    )
    eve.login(KILLER, BOTH)
    rounds.note_memberships(eve.esi)
    assert eve.row(KILLER).corporation_id == KILLER_CORPORATION


# Tokens


def test_a_login_while_the_old_grant_is_revoked_keeps_its_list(eve, monkeypatch):
    accounts.remove_character(eve.login(VICTIM), VICTIM)
    real = eve.sso.revoke

    def slow(token):
        real(token)
        eve.login(VICTIM)

    monkeypatch.setattr(eve.sso, "revoke", slow)
    rounds.revoke_leaving(eve.sso)
    assert (eve.row(VICTIM).state, KillmailSync.objects.count()) == ("READY", 1)


def test_eve_that_does_not_answer_is_asked_again_to_end_a_grant(eve):
    accounts.remove_character(eve.login(VICTIM), VICTIM)
    eve.fake.fail("/v2/oauth/revoke", Fault(503))
    rounds.revoke_leaving(eve.sso)
    assert [grant.ended for grant in eve.fake.sso.grants_of(VICTIM)] == [False]
    rounds.revoke_leaving(eve.sso)
    assert (eve.fake.sso.grants_of(VICTIM), UserCharacter.objects.count()) == ([], 0)
    accounts.remove_character(eve.login(VICTIM), VICTIM)
    UserCharacter.objects.update(changed_at=Now() - timedelta(hours=2))
    eve.fake.fail("/v2/oauth/revoke", Fault(503))
    rounds.revoke_leaving(eve.sso)
    assert UserCharacter.objects.count() == 0


def revokes(eve):
    eve.work()
    return eve.asked("/v2/oauth/revoke")


def test_a_token_that_a_later_login_has_replaced_is_revoked_when_the_new_one_is_and_not_before(eve):
    eve.login(VICTIM)
    user_id = eve.login(VICTIM)
    assert (revokes(eve), len(eve.fake.sso.grants_of(VICTIM))) == ([], 2)
    assert grant_for(eve.sso, VICTIM)
    accounts.remove_character(user_id, VICTIM)
    assert (revokes(eve), eve.fake.sso.grants_of(VICTIM)) == ([200, 200], [])
    assert not UnusedGrant.objects.exists()


def test_a_login_without_our_scopes_leaves_no_grant_at_eve(eve):
    eve.login(VICTIM)
    eve.login(VICTIM, ("publicData",))
    assert (revokes(eve), eve.fake.sso.grants_of(VICTIM)) == ([200, 200], [])


def test_a_login_that_is_not_welcome_leaves_no_grant_at_eve(client, eve):
    user_id = eve.login(VICTIM, ())
    get_user_model().objects.filter(pk=user_id).update(is_active=False)
    assert revokes(eve) == [200]
    assert come_back(client, eve, begin(client)).status_code == 403
    assert (revokes(eve), eve.fake.sso.grants_of(VICTIM)) == ([200, 200], [])


def test_a_character_that_is_removed_while_its_token_is_refreshed_leaves_no_grant_at_eve(eve, monkeypatch):
    user_id = eve.login(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now())
    real = eve.sso.refresh

    def slow(token):
        tokens = real(token)
        accounts.remove_character(user_id, VICTIM)
        return tokens

    monkeypatch.setattr(eve.sso, "refresh", slow)
    with pytest.raises(NoGrant):
        grant_for(eve.sso, VICTIM)
    assert (set(revokes(eve)), eve.fake.sso.grants_of(VICTIM)) == ({200}, [])


def test_eve_is_told_for_an_hour_of_a_grant_that_is_not_used(eve):
    eve.login(VICTIM, ())
    eve.fake.fail("/v2/oauth/revoke", Fault(503), times=0)
    for left in (1, 1):
        rounds.revoke_leaving(eve.sso)
        assert UnusedGrant.objects.count() == left
    UnusedGrant.objects.update(tried_at=Now() - timedelta(hours=2))
    rounds.revoke_leaving(eve.sso)
    assert UnusedGrant.objects.count() == 0


def test_a_login_while_the_old_token_is_refused_keeps_its_own(eve, monkeypatch):
    eve.login(VICTIM)
    refused = []

    def refuse(*_, **__):
        refused.append(1)
        if len(refused) == 2:
            eve.login(VICTIM)
        raise TokenRefused("no")

    monkeypatch.setattr(eve.esi, "fetch_recent_killmails", refuse)
    (sync,) = claim(KillmailSync.objects.all())
    lists.read_list(sync, eve.esi, eve.sso)
    assert (eve.row(VICTIM).state, eve.row(VICTIM).refresh_token != "") == ("READY", True)


def test_a_login_while_the_old_token_is_refreshed_keeps_its_rights(eve, monkeypatch):
    eve.login(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now())
    real = eve.sso.refresh

    def slow(token):
        tokens = real(token)
        eve.login(VICTIM, BOTH)
        return tokens

    monkeypatch.setattr(eve.sso, "refresh", slow)
    assert grant_for(eve.sso, VICTIM).scopes == set(BOTH)
    assert sorted(eve.row(VICTIM).scopes) == sorted(BOTH)


def test_a_token_whose_owner_was_not_looked_at_is_not_used(eve, monkeypatch):
    eve.login(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now(), owner_hash="another")
    with monkeypatch.context() as patch:
        patch.setattr(eve.sso, "read", _away)
        with pytest.raises(UpstreamUnreachable):
            grant_for(eve.sso, VICTIM)
    with pytest.raises(NoGrant):
        grant_for(eve.sso, VICTIM)
    assert eve.row(VICTIM).state == "SOLD"


def test_a_key_of_eves_that_is_told_late_costs_nobody_a_login(eve):
    eve.login(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now())
    told = json.dumps({"keys": [eve.fake.sso._public_key()]}).encode()
    eve.fake.sso.rotate_keys()
    eve.fake.fail("/oauth/jwks", Fault(200, told), times=2)
    with pytest.raises(UpstreamUnreachable, match="no key of EVE's has signed it"):
        grant_for(eve.sso, VICTIM)
    assert (eve.row(VICTIM).state, eve.row(VICTIM).refreshing_until) == ("READY", None)
    eve.sso._keys_at = eve.sso._sought_at = float("-inf")  # some minutes later
    eve.fake.heal()
    assert grant_for(eve.sso, VICTIM).character_id == VICTIM


def _away(*_):
    raise UpstreamUnreachable("EVE's keys are away")


# What anybody adds


def test_what_cannot_be_published_does_not_go_round_for_ever_nor_hold_up_others(eve, monkeypatch):
    user_id = eve.login(VICTIM)
    eve.work()
    real = pending.store_killmail

    def store(record, claim):
        if record.killmail_id == 1001:
            raise ZeroDivisionError
        return real(record, claim)

    monkeypatch.setattr(pending, "store_killmail", store)
    accounts.set_publication(user_id, True, 0)
    for _ in range(9):
        pending.publish_due()
        PendingKillmail.objects.update(claimed_until=None)
    assert sorted(Killmail.objects.values_list("pk", flat=True)) == [1002, 1003]
    assert RejectedKillmail.objects.get().reason == "TOO_MANY_TRIES"


def test_what_anybody_adds_leaves_half_of_esis_limit_to_users_and_nothing_in_the_quarantine(eve):
    for number in range(3):
        queueing.queue_killmail(700 + number, "0" * 40, Priority.ANYBODY)
    eve.work()
    assert (RejectedKillmail.objects.count(), PendingKillmail.objects.filter(state="REFUSED").count()) == (0, 3)
    assert queueing.why_refused(700, "0" * 40).startswith("ESI_UNKNOWN")
    budget = EsiBudget.objects.get(name="killmail")
    budget.counts |= {"others": 1900, "others_at": next(iter(eve.esi.budget._store._now() for _ in (1,)))}
    budget.save()
    queueing.queue_killmail(800, "0" * 40, Priority.ANYBODY)
    eve.work()
    assert eve.asked("/killmails/800/") == []
    queueing.queue_killmail(801, "0" * 40, Priority.COMMAND)
    eve.work()
    assert eve.asked("/killmails/801/") == [422]
    assert eve.asked("/killmails/800/") == [422]  # ESI itself has told that nobody else spends anything
    queueing.queue_killmail(900, "", Priority.ANYBODY)  # whose hash zKillboard never told
    PendingKillmail.objects.update(added_at=Now() - timedelta(days=8))
    assert pending.forget_refused() == 5


def test_a_limit_that_is_spent_puts_nothing_in_the_quarantine(eve, monkeypatch):
    def spent(*_):
        raise BudgetSpent(900, "x")

    monkeypatch.setattr(eve.esi, "fetch_killmail", spent)
    eve.login(VICTIM)
    eve.work()
    assert set(PendingKillmail.objects.values_list("state", "tries")) == {("TO_FETCH", 0)}


@pytest.mark.parametrize("status", [400, 404])
def test_a_stray_answer_that_there_is_no_such_killmail_is_not_believed_at_once(eve, status):
    user_id = eve.login(VICTIM)
    eve.fake.fail("/killmails/1001/", Fault(status, b'{"error": "Not found"}'), times=2)
    for _ in range(3):
        eve.work()
        PendingKillmail.objects.update(due_at=Now())
    assert eve.asked("/killmails/1001/") == [status, status, 200]
    assert (withheld_of(user_id).count(), RejectedKillmail.objects.count()) == (3, 0)


def test_what_esi_does_not_know_three_times_comes_to_the_quarantine(eve):
    eve.login(VICTIM)
    eve.fake.fail("/killmails/1001/", Fault(404, b'{"error": "Not found"}'), times=0)
    for _ in range(5):
        eve.work()
        PendingKillmail.objects.filter(state="TO_FETCH").update(due_at=Now())
    assert eve.asked("/killmails/1001/") == [404] * 3
    assert RejectedKillmail.objects.get().reason == "ESI_UNKNOWN"
