"""Logging in with EVE in a browser, and the account page (T15)."""

import time
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.utils import timezone

from killboard import login
from killmails import accounts
from killmails.fake_eve import FakeEsi, Fault
from killmails.models import ApiToken, KillmailSync, Publication, UserCharacter
from killmails.models.users import CORPORATION, OWN
from tests.killmails.eve import KILLER, VICTIM, Eve, losses, world_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def eve(settings):
    settings.ALLOWED_HOSTS = ["testserver"]
    with FakeEsi(world_of(losses(3))) as fake:
        yield Eve(fake, settings)


def begin(client, **form):
    """The address at EVE that a browser is sent to."""
    answer = client.post("/auth/login", {"own": "1"} | form)
    assert answer.status_code == 302
    return answer["Location"]


def come_back(client, eve, url, character_id=VICTIM):
    """… and the board's answer when EVE sends it back."""
    back = urlsplit(eve.fake.sso.approve(url, character_id))
    return client.get(f"{back.path}?{back.query}")


def log_in(client, eve, character_id=VICTIM, **form):
    answer = come_back(client, eve, begin(client, **form), character_id)
    assert (answer.status_code, answer["Location"]) == (302, "/account")
    return answer


def test_a_browser_logs_in(client, eve):
    url = begin(client, corporation="1")
    query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    assert url.startswith(f"{eve.fake.url}/v2/oauth/authorize?")
    assert (query["scope"], query["code_challenge_method"]) == (f"{OWN} {CORPORATION}", "S256")
    assert query["redirect_uri"] == "http://localhost:4000/auth/callback"
    assert come_back(client, eve, url).status_code == 302
    page = client.get("/account").content.decode()
    assert f"Character {VICTIM}" in page
    assert KillmailSync.objects.get(eve_id=VICTIM).priority == 0  # a login's


def test_only_what_was_ticked_is_asked_for(client, eve):
    url = client.post("/auth/login", {})["Location"]
    assert parse_qs(urlsplit(url).query).get("scope") is None
    come_back(client, eve, url)
    assert (eve.row(VICTIM).scopes, eve.row(VICTIM).refresh_token, KillmailSync.objects.count()) == ([], "", 0)


def test_no_token_is_in_an_address_or_a_page(client, eve, caplog):
    answer = log_in(client, eve)
    pages = answer["Location"] + client.get("/account").content.decode() + caplog.text
    assert eve.fake.sso.issued
    assert not any(token in pages for token in eve.fake.sso.issued)


@pytest.mark.parametrize("state", ["missing", "forged", "another session's", "reused", "expired"])
def test_a_state_that_is_not_this_sessions_is_refused(client, eve, state, monkeypatch):
    url = begin(client)
    back = urlsplit(eve.fake.sso.approve(url, VICTIM))
    query, browser = back.query, client
    if state == "missing":
        query = query.partition("&state=")[0]
    elif state == "forged":
        query = query.partition("&state=")[0] + "&state=" + "A" * 43
    elif state == "another session's":
        browser = Client()
    elif state == "reused":
        client.get(f"/auth/callback?{query}")
        UserCharacter.objects.all().delete()
    else:
        later = login.database_now() + timedelta(seconds=601)
        monkeypatch.setattr(login, "database_now", lambda: later)
    asked = len(eve.fake.asked)
    answer = browser.get(f"/auth/callback?{query}")
    assert (answer.status_code, len(eve.fake.asked)) == (400, asked)
    assert "This login was not begun here" in answer.content.decode()
    assert UserCharacter.objects.count() == 0


@pytest.mark.parametrize("hours", [-2, 2])
def test_p24_a_login_that_was_begun_at_a_server_with_another_clock_is_accepted(client, eve, monkeypatch, hours):
    offset, seconds, moment = timedelta(hours=hours), time.time, timezone.now
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: seconds() + offset.total_seconds())
        patch.setattr(timezone, "now", lambda: moment() + offset)
        url = begin(client)
    assert come_back(client, eve, url).status_code == 302


def test_a_code_that_was_meant_for_another_browser_is_refused_by_its_verifier(client, eve):
    """Somebody's own code in a victim's browser would log the victim in as somebody else."""
    theirs = parse_qs(urlsplit(eve.fake.sso.approve(begin(Client()), KILLER)).query)["code"][0]
    state = parse_qs(urlsplit(begin(client)).query)["state"][0]
    answer = client.get(f"/auth/callback?code={theirs}&state={state}")
    assert (answer.status_code, UserCharacter.objects.count()) == (400, 0)
    assert "EVE did not confirm this login" in answer.content.decode()


def test_each_tab_has_a_state_of_its_own_and_there_are_five(client, eve):
    urls = [begin(client) for _ in range(7)]
    answers = [come_back(client, eve, url).status_code for url in urls]
    assert answers == [400, 400, 302, 302, 302, 302, 302]


def test_a_login_that_was_cancelled_is_said_so(client, eve):
    state = parse_qs(urlsplit(begin(client)).query)["state"][0]
    answer = client.get(f"/auth/callback?error=access_denied&state={state}")
    assert (answer.status_code, "the login was cancelled" in answer.content.decode()) == (400, True)


def test_eve_that_does_not_answer_is_said_so(client, eve):
    url = begin(client)
    eve.fake.fail("/v2/oauth/token", Fault(503))
    answer = come_back(client, eve, url)
    assert (answer.status_code, "does not answer as it should" in answer.content.decode()) == (502, True)


def test_the_session_gets_another_key_when_somebody_logs_in(client, eve):
    url = begin(client)
    before = client.cookies["sessionid"].value
    come_back(client, eve, url)
    assert client.cookies["sessionid"].value != before
    cookie = client.cookies["sessionid"]
    assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")


def test_a_second_login_adds_a_character(client, eve):
    log_in(client, eve)
    log_in(client, eve, KILLER)
    assert User.objects.count() == 1
    assert UserCharacter.objects.count() == 2


@pytest.mark.parametrize(
    ("choice", "row"), [("", None), ("never", (False, 0)), ("0", (True, 0)), ("24", (True, 24)), ("5", None)]
)
def test_what_is_published_is_asked_before_the_first_login(client, eve, choice, row):
    log_in(client, eve, publication=choice)
    assert Publication.objects.values_list("publish", "delay_hours").first() == row


def test_forms_need_a_token_against_forgery(eve):
    strict = Client(enforce_csrf_checks=True)
    for path in ("/auth/login", "/auth/logout", "/account"):
        assert strict.post(path, {"own": "1"}).status_code == 403
    assert strict.get("/auth/logout").status_code == 405


def test_who_is_inactive_does_not_come_in(client, eve):
    log_in(client, eve)
    User.objects.update(is_active=False)
    assert come_back(Client(), eve, begin(other := Client())).status_code == 400
    assert come_back(other, eve, begin(other)).status_code == 403


def test_who_is_made_one_of_the_admins_has_to_come_in_with_the_password(client, eve):
    log_in(client, eve)
    assert client.get("/admin/").status_code == 302
    User.objects.update(is_staff=True)
    assert client.get("/admin/").status_code == 302
    assert client.get("/account").status_code == 302  # the session is over


def test_without_an_application_nobody_can_log_in_and_is_told_why(client, eve, settings):
    settings.EVE_CLIENT_ID = ""
    for path in ("/auth/login", "/auth/callback?code=x&state=y"):
        answer = client.get(path)
        assert (answer.status_code, "EVE_CLIENT_ID is not set" in answer.content.decode()) == (404, True)


# The account page


def test_the_account_page_is_for_who_is_logged_in(client, eve):
    assert client.get("/account")["Location"] == "/auth/login"
    log_in(client, eve)
    page = client.get("/account")
    assert "no-store" in page["Cache-Control"]
    assert page["Content-Security-Policy"] == (
        "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "form-action 'self'"
    )
    assert client.get("/auth/login")["Content-Security-Policy"].endswith(f"form-action 'self' {eve.fake.url}")
    client.post("/auth/logout")
    assert client.get("/account").status_code == 302


def test_a_token_is_shown_once_and_works(client, eve):
    log_in(client, eve)
    page = client.post("/account", {"action": "new_token", "name": "my bot"}).content.decode()
    token = page.partition('<code class="token">')[2].partition("<")[0]
    assert accounts.authenticate(token).user_id == User.objects.get().pk
    page = client.get("/account").content.decode()
    assert ("my bot" in page, token in page) == (True, False)
    client.post("/account", {"action": "forget_token", "token": ApiToken.objects.get().digest})
    assert accounts.authenticate(token) is None


@pytest.mark.parametrize("name", ["my bot", "x" * 70])
def test_a_page_that_is_loaded_anew_makes_no_second_token(client, eve, name):
    log_in(client, eve)
    first, again = (client.post("/account", {"action": "new_token", "name": name}).content.decode() for _ in range(2))
    assert ('<code class="token">' in first, '<code class="token">' in again) == (True, False)
    assert "You have a token of that name" in again
    assert ApiToken.objects.count() == 1


def test_a_user_has_twenty_tokens_at_most(client, eve):
    log_in(client, eve)
    for number in range(20):
        client.post("/account", {"action": "new_token", "name": f"bot {number}"})
    page = client.post("/account", {"action": "new_token", "name": "bot"}).content.decode()
    assert ("You have 20 tokens" in page, ApiToken.objects.count()) == (True, 20)


def test_the_forms_do_what_they_say_and_only_for_oneself(client, eve):
    other = eve.login(KILLER)
    log_in(client, eve)
    client.post("/account", {"action": "publication", "publication": "72"})
    assert list(Publication.objects.values_list("user__eve_characters", "delay_hours")) == [(VICTIM, 72)]
    client.post("/account", {"action": "remove", "character": str(KILLER)})
    client.post("/account", {"action": "forget_token", "token": accounts.digest_of(accounts.new_api_token(other, "x"))})
    assert (eve.row(KILLER).state, ApiToken.objects.count()) == ("READY", 1)
    client.post("/account", {"action": "remove", "character": str(VICTIM)})
    assert eve.row(VICTIM).state == "LEAVING"
    for nonsense in ({}, {"action": "drop"}, {"action": "remove", "character": "é"}, {"action": "publication"}):
        assert client.post("/account", nonsense).status_code == 302


def test_the_form_has_ticked_what_was_granted_before(client, eve):
    page = client.get("/auth/login").content.decode()
    assert ('name="own" value="1" checked' in page, 'name="corporation" value="1" checked' in page) == (True, False)
    log_in(client, eve, corporation="1")
    page = client.get("/auth/login").content.decode()
    assert ('name="own" value="1" checked' in page, 'name="corporation" value="1" checked' in page) == (True, True)


def test_nul_in_a_form_is_no_error(client, eve):
    log_in(client, eve)
    assert client.post("/account", {"action": "new_token", "name": "a\0b"}).status_code == 200
    assert client.post("/account", {"action": "forget_token", "token": "\0"}).status_code == 302
    assert ApiToken.objects.get().name == "ab"


def test_names_of_players_are_text(client, eve):
    eve.fake.world.characters[VICTIM]["name"] = "<script>alert(1)</script>"
    log_in(client, eve)
    page = client.get("/account").content.decode()
    assert ("<script>alert" in page, "&lt;script&gt;alert" in page) == (False, True)
