"""Tokens at rest, and refreshing them: encrypted, one at a time, and never lost to a stale copy."""

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import pytest
from cryptography.fernet import Fernet, InvalidToken
from django.conf import settings as django_settings
from django.db import connection, connections
from django.db.models.functions import Now

from killmails.errors import NoGrant, SealBroken, UpstreamRefused, UpstreamUnreachable
from killmails.fake_eve import Fault
from killmails.models import KillmailSync, UnusedGrant, UserCharacter
from killmails.sealing import reseal, seal, unseal
from killmails.upstream.sso import DEADLINE
from killmails.users import grants, keys
from killmails.users.grants import grant_for, store_tokens
from killmails.users.keys import rotate
from tests.killmails.eve import BOTH, KEY, KILLER, KILLER_CORPORATION, VICTIM

TOKENS = 1000 if os.environ.get("LONG") == "1" else 300
NEW = "B" * 43 + "="
TOKEN = "a-refresh-token"


def test_what_is_sealed_says_nothing_and_opens_again(settings):
    settings.TOKEN_KEYS = [KEY]
    assert TOKEN not in seal(TOKEN)
    assert seal(TOKEN) != seal(TOKEN)
    assert (unseal(seal(TOKEN)), seal(""), unseal("")) == (TOKEN, "", "")


def test_the_first_key_seals_and_all_open(settings):
    settings.TOKEN_KEYS = [KEY]
    old = seal(TOKEN)
    settings.TOKEN_KEYS = [NEW, KEY]
    assert unseal(old) == TOKEN
    anew = reseal(old)
    settings.TOKEN_KEYS = [NEW]
    assert unseal(anew) == TOKEN
    with pytest.raises(SealBroken) as caught:
        unseal(old)
    assert old not in str(caught.value)


def test_the_secret_key_opens_nothing(settings):
    settings.TOKEN_KEYS = [KEY]
    sealed = seal(TOKEN)
    assert django_settings.SECRET_KEY not in settings.TOKEN_KEYS
    settings.SECRET_KEY = "x" * 50
    assert unseal(sealed) == TOKEN


def users(count):
    from django.contrib.auth import get_user_model

    user = get_user_model().objects.create(username="somebody")
    UserCharacter.objects.bulk_create(
        UserCharacter(pk=number, user=user, name="Pilot", owner_hash="o", refresh_token=seal(f"token {number}"))
        for number in range(1, count + 1)
    )


@pytest.mark.django_db
def test_rotating_the_keys_twice_does_no_harm_and_a_lost_key_is_told(settings):
    settings.TOKEN_KEYS = [KEY]
    users(3)
    UserCharacter.objects.filter(pk=3).update(refresh_token="nonsense")
    for sealed in ("nonsense", seal("an unused token")):
        UnusedGrant.objects.create(character_id=1, refresh_token=sealed)
    settings.TOKEN_KEYS = [NEW, KEY]
    assert (rotate(), rotate()) == ((2, 1), (2, 1))
    settings.TOKEN_KEYS = [NEW]
    assert unseal(UserCharacter.objects.get(pk=1).refresh_token) == "token 1"
    assert unseal(UnusedGrant.objects.last().refresh_token) == "an unused token"


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_all_tokens_are_readable_after_rotations_that_were_killed(settings):
    """While others refresh, with the new keys as well. With --long a thousand of them."""
    settings.TOKEN_KEYS = [KEY]
    users(TOKENS)
    settings.TOKEN_KEYS = [NEW, KEY]
    stop = threading.Event()
    with ThreadPoolExecutor(1) as other:
        refreshing = other.submit(_refresh_at_random, stop)
        for until in (TOKENS // 3, TOKENS * 2 // 3, None):  # killed twice, then to its end
            command = _rotate_in_a_process(settings)
            while until and not _is_under(NEW, until):
                time.sleep(0.01)
            if until:
                command.kill()
            out, errors = command.communicate(timeout=300)
        stop.set()
        assert refreshing.result() > 0
    assert (out, errors) == (f"{TOKENS} characters' tokens are encrypted with the first key.\n", "")
    settings.TOKEN_KEYS = [NEW]
    opened = [unseal(sealed) for sealed in UserCharacter.objects.order_by("pk").values_list("refresh_token", flat=True)]
    assert [text.partition(" again")[0] for text in opened] == [f"token {number}" for number in range(1, TOKENS + 1)]


@pytest.mark.django_db
def test_a_token_that_is_refreshed_at_this_moment_is_not_lost_to_a_rotation(eve, settings, monkeypatch):
    """EVE has given a new one: it has to find its row as it was."""
    eve.login(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now())
    settings.TOKEN_KEYS = [NEW, KEY]
    real, waited = eve.sso.refresh, []

    def slow(token):
        tokens = real(token)
        with pytest.raises(KeyboardInterrupt):
            rotate()
        return tokens

    def sleep(seconds):
        waited.append(seconds)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(eve.sso, "refresh", slow)
        patch.setattr(keys, "time", SimpleNamespace(sleep=sleep))
        grant_for(eve.sso, VICTIM)
    assert len(waited) == 1
    assert rotate() == (1, 0)
    settings.TOKEN_KEYS = [NEW]
    UserCharacter.objects.update(access_expires_at=Now())
    assert grant_for(eve.sso, VICTIM).character_id == VICTIM
    assert eve.fake.sso.refreshes == {VICTIM: 2}


def _rotate_in_a_process(settings):
    database = connection.settings_dict
    url = f"postgresql://{database['USER']}@{database['HOST']}:{database['PORT']}/{database['NAME']}"
    env = os.environ | {"DATABASE_URL": url, "TOKEN_KEYS": ",".join(settings.TOKEN_KEYS), "FEED": "off"}
    command = [sys.executable, "manage.py", "rotate_token_keys"]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _is_under(key, number):
    sealed = UserCharacter.objects.values_list("refresh_token", flat=True).get(pk=number)
    try:
        return bool(Fernet(key).decrypt(sealed.encode()))
    except InvalidToken:
        return False


def _refresh_at_random(stop):
    count = 0
    try:
        while not stop.is_set():
            count += 1
            number = count * 37 % (TOKENS // 4) + 1  # of those that were rotated before the first kill
            UserCharacter.objects.filter(pk=number).update(refresh_token=seal(f"token {number} again"))
            time.sleep(0.005)
    finally:
        connections.close_all()
    return count


# Refreshing


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_twenty_workers_at_once_make_one_refresh_for_each_expiry(eve):
    eve.login(VICTIM)
    for expiry in (1, 2):
        UserCharacter.objects.update(access_expires_at=Now())
        assert len(set(_at_once(eve, 20))) == 1
        assert eve.fake.sso.refreshes == {VICTIM: expiry}
    assert eve.row(VICTIM).state == UserCharacter.State.READY


@pytest.mark.services
@pytest.mark.django_db(transaction=True)
def test_it_is_not_blind_who_claims_nothing_refreshes_as_often_as_asked(eve, monkeypatch):
    """All but the first find the token dead."""
    eve.login(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now())
    monkeypatch.setattr(grants, "_claim", lambda row: True)
    together, refresh = threading.Barrier(4), eve.sso.refresh
    first = unseal(eve.row(VICTIM).refresh_token)

    def refresh_together(token):
        if token == first:
            together.wait(60)  # until all of them have read it
        return refresh(token)

    monkeypatch.setattr(eve.sso, "refresh", refresh_together)
    _at_once(eve, 4)
    assert eve.asked("/v2/oauth/token").count(400) >= 3


def _at_once(eve, count):
    barrier = threading.Barrier(count)

    def ask():
        barrier.wait()
        try:
            return grant_for(eve.sso, VICTIM).access_token
        except (NoGrant, UpstreamRefused) as error:
            return str(error)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(count) as workers:
        return [future.result() for future in [workers.submit(ask) for _ in range(count)]]


@pytest.mark.django_db
def test_the_new_refresh_token_is_stored_before_the_access_token_is_looked_at(eve):
    """Else a token that cannot be read would cost the grant."""
    eve.login(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now())
    eve.fake.sso.knobs.claims = {"aud": "somebody else"}
    before = eve.row(VICTIM).refresh_token
    seen = []

    def end_grant(character_id, sealed, state, reason):
        seen.append(eve.row(VICTIM).refresh_token == sealed != before)

    original, grants.end_grant = grants.end_grant, end_grant
    try:
        with pytest.raises(NoGrant):
            grant_for(eve.sso, VICTIM)
    finally:
        grants.end_grant = original
    assert seen == [True]


@pytest.mark.django_db
def test_a_new_refresh_token_beside_an_unusable_access_token_is_stored_and_used_later(eve):
    eve.login(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now())
    eve.fake.sso.knobs.also = {"access_token": "no token"}
    with pytest.raises(UpstreamUnreachable):
        grant_for(eve.sso, VICTIM)
    row = eve.row(VICTIM)
    assert (unseal(row.refresh_token), row.access_token) == (eve.fake.sso.issued[-1], "")
    assert (row.state, row.refreshing_until) == (UserCharacter.State.READY, None)
    eve.fake.sso.knobs.also = {}
    assert grant_for(eve.sso, VICTIM).character_id == VICTIM
    assert eve.asked("/v2/oauth/token") == [200] * 3


@pytest.mark.django_db
def test_invalid_grant_from_a_stale_copy_does_not_delete_the_new_token(eve):
    eve.login(VICTIM)
    stale = eve.row(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now())
    grant_for(eve.sso, VICTIM)
    grants.end_grant(VICTIM, stale.refresh_token, UserCharacter.State.NEEDS_LOGIN, "stale")
    assert eve.row(VICTIM).state == UserCharacter.State.READY
    assert grant_for(eve.sso, VICTIM).character_id == VICTIM


@pytest.mark.django_db
def test_tokens_of_an_older_grant_do_not_replace_those_of_a_new_login(eve):
    eve.login(VICTIM)
    stale = eve.row(VICTIM)
    eve.login(VICTIM)
    fresh = eve.row(VICTIM).refresh_token
    assert store_tokens(stale, eve.sso.refresh(unseal(stale.refresh_token))) == ""
    assert eve.row(VICTIM).refresh_token == fresh


def paused_after_eves_answer(eve, monkeypatch, meanwhile):
    """The next refresh: its worker is taken for dead when EVE has answered, and goes on after `meanwhile`."""
    real = eve.sso.refresh

    def refresh(token):
        tokens = real(token)
        monkeypatch.setattr(eve.sso, "refresh", real)
        UserCharacter.objects.update(refreshing_until=Now() - timedelta(seconds=1))
        meanwhile()
        return tokens

    monkeypatch.setattr(eve.sso, "refresh", refresh)
    UserCharacter.objects.update(access_expires_at=Now())


def states(eve_ids):
    return set(KillmailSync.objects.filter(eve_id__in=eve_ids).values_list("state", flat=True))


@pytest.mark.django_db
def test_a_worker_that_was_paused_between_eves_answer_and_the_commit_loses_no_grant(eve, monkeypatch):
    eve.fake.world.roles[KILLER] = ("Director",)
    eve.login(KILLER, BOTH)
    eve.work()
    lists = (KILLER, KILLER_CORPORATION)

    def another_worker_is_refused():
        KillmailSync.objects.update(due_at=Now(), not_before=None)
        eve.work()
        assert (eve.row(KILLER).state, states(lists)) == (UserCharacter.State.NEEDS_LOGIN, {KillmailSync.State.OFF})

    paused_after_eves_answer(eve, monkeypatch, another_worker_is_refused)
    grant = grant_for(eve.sso, KILLER)
    row = eve.row(KILLER)
    assert (grant.sealed, row.state, row.reason) == (row.refresh_token, UserCharacter.State.READY, "")
    assert (row.refreshing_until, row.refused_token) == (None, "")
    assert eve.asked("/v2/oauth/token") == [200, 200, 400]
    KillmailSync.objects.exclude(due_at=None).update(due_at=Now(), not_before=None)
    eve.work()
    assert states(lists) == {KillmailSync.State.UP_TO_DATE}


@pytest.mark.django_db
def test_a_refusal_that_comes_after_the_new_token_was_stored_ends_nothing(eve, monkeypatch):
    """The worker that was paused is the one whose question came second."""
    eve.login(VICTIM)
    real = eve.sso.refresh

    def refresh(token):
        monkeypatch.setattr(eve.sso, "refresh", real)
        UserCharacter.objects.update(refreshing_until=Now() - timedelta(seconds=1))
        assert grant_for(eve.sso, VICTIM)
        return real(token)

    monkeypatch.setattr(eve.sso, "refresh", refresh)
    UserCharacter.objects.update(access_expires_at=Now())
    assert grant_for(eve.sso, VICTIM).sealed == eve.row(VICTIM).refresh_token
    assert eve.asked("/v2/oauth/token") == [200, 200, 400]


@pytest.mark.django_db
def test_a_late_token_does_not_bring_back_what_ended_otherwise(eve, monkeypatch):
    """A login after the refusal, or an end that was no refusal."""

    def refused_and_logged_in():
        with pytest.raises(NoGrant):
            grant_for(eve.sso, VICTIM)
        eve.login(VICTIM)
        fresh.append(eve.row(VICTIM).refresh_token)

    def given_up():
        row = eve.row(VICTIM)
        assert grants.end_grant(VICTIM, row.refresh_token, UserCharacter.State.NEEDS_LOGIN, "ESI does not take it")

    fresh = []
    eve.login(VICTIM)
    paused_after_eves_answer(eve, monkeypatch, refused_and_logged_in)
    assert [grant_for(eve.sso, VICTIM).sealed] == fresh
    paused_after_eves_answer(eve, monkeypatch, given_up)
    with pytest.raises(NoGrant):
        grant_for(eve.sso, VICTIM)
    assert (eve.row(VICTIM).state, eve.row(VICTIM).refresh_token) == (UserCharacter.State.NEEDS_LOGIN, "")


def test_eve_may_answer_as_slowly_as_it_is_allowed_to_and_nobody_else_refreshes():
    assert grants.LEASE.total_seconds() >= 3 * DEADLINE


@pytest.mark.django_db
def test_e13_an_answer_without_a_refresh_token_leaves_the_old_one(eve):
    eve.login(VICTIM)
    before = eve.row(VICTIM).refresh_token
    UserCharacter.objects.update(access_expires_at=Now())
    eve.fake.sso.knobs.also = {"refresh_token": None}
    grant_for(eve.sso, VICTIM)
    assert eve.row(VICTIM).refresh_token == before


@pytest.mark.django_db
def test_a_refresh_that_fails_for_now_changes_nothing_and_is_tried_again(eve):
    eve.login(VICTIM)
    before = eve.row(VICTIM).refresh_token
    UserCharacter.objects.update(access_expires_at=Now())
    eve.fake.fail("/v2/oauth/token", Fault(503))
    with pytest.raises(UpstreamRefused):
        grant_for(eve.sso, VICTIM)
    assert (eve.row(VICTIM).refresh_token, eve.row(VICTIM).state) == (before, UserCharacter.State.READY)
    assert grant_for(eve.sso, VICTIM).character_id == VICTIM


@pytest.mark.django_db
def test_a_worker_that_died_while_it_refreshed_is_followed_by_another(eve):
    eve.login(VICTIM)
    UserCharacter.objects.update(access_expires_at=Now(), refreshing_until=Now())
    assert grant_for(eve.sso, VICTIM).character_id == VICTIM


@pytest.mark.django_db
def test_p24_a_worker_whose_clock_is_wrong_refreshes_when_it_is_time(eve, monkeypatch):
    """By the database's clock alone."""
    eve.login(VICTIM)
    for offset in (-7200, 7200):
        real = time.time
        monkeypatch.setattr(time, "time", lambda real=real, offset=offset: real() + offset)
        grant_for(eve.sso, VICTIM)
        assert eve.fake.sso.refreshes[VICTIM] == 0
    UserCharacter.objects.update(access_expires_at=Now())
    grant_for(eve.sso, VICTIM)
    assert eve.fake.sso.refreshes[VICTIM] == 1
