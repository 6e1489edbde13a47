"""Who may see a withheld killmail: whoever brought it, in one place, and nobody else anywhere (T13)."""

import json
import re
from datetime import date, timedelta
from types import ModuleType

import pytest
from django.contrib import admin
from django.contrib.admin.utils import quote
from django.contrib.auth import get_user_model
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import include, path, reverse
from django.utils.formats import date_format

from killboard.engine import engine
from killboard.tasks import forget_sessions
from killmails import accounts
from killmails.events import KillmailLog
from killmails.fake_eve import Fault
from killmails.ingest import store
from killmails.models import (
    Attacker,
    Character,
    EsiBudget,
    Killmail,
    KillmailEvent,
    KillmailPackage,
    KillmailSync,
    LogHead,
    PendingKillmail,
    UnfilledKillmail,
)
from killmails.recording.tape import killmail_hash
from killmails.upstream import esi_questions
from killmails.users.pending import publish_due
from realtime.callers import NOBODY, Caller
from realtime.log import Head
from tests.killmails.eve import KILLER, VICTIM, losses, world_of

pytestmark = pytest.mark.django_db

KILLMAIL = "{ id hash time totalValue victim { character { id name } shipType { name } } attackers { damageDone } }"
ENTRIES = {
    "killmail": f'{{ killmail(id: "1001") {KILLMAIL} }}',
    "killmails": f"{{ killmails(first: 100) {{ nodes {KILLMAIL} pageInfo {{ hasNextPage endCursor }} }} }}",
    "filter by victim": f'{{ killmails(filter: {{ characterIds: ["{VICTIM}"] }}) {{ nodes {KILLMAIL} }} }}',
    "filter by place": '{ killmails(filter: { solarSystemIds: ["30000142"] }) { edges { cursor } } }',
    "explainMatch": '{ explainMatch(killmailId: "1001", filter: { minValue: 0 }) { matches } }',
    "killmailEvents": f"{{ killmailEvents {{ position hasNextPage nodes {{ position kind killmail {KILLMAIL} }} }} }}",
    "addKillmail": f'mutation {{ addKillmail(id: "1001", hash: "{"0" * 40}") {{ id state reason }} }}',
    "addKillmail by its page": 'mutation { addKillmail(link: "https://zkillboard.com/kill/1001/") { state reason } }',
    "viewer": "{ viewer { killmailsToFetch withheldKillmails { hasNextPage nodes { killmail { id } } } } }",
    "mySyncStatus": "{ mySyncStatus { kind id state newKillmails } }",
}
OWNERS = {"viewer", "mySyncStatus"}


def ask(query, caller=NOBODY):
    result = engine.result(engine.prepare(query, None, None, caller))
    return {"data": result.data, "errors": [error.message for error in result.errors or ()]}


def viewer(user_id):
    return Caller(accounts.authenticate(accounts.new_api_token(user_id, "test")))


@pytest.fixture
def people(eve):
    """The three of them before and after the owner's killmails have come; the world is empty at first."""
    eve.fake.world.killmails = {}
    owner, other = eve.login(VICTIM), eve.login(KILLER)
    eve.fake.world.roles = {}
    people = {"nobody": NOBODY, "another user": viewer(other), "owner": viewer(owner)}
    eve.work()
    return people


def killmails_come(eve, first=1001):
    """For the owner alone: the killer has no right to a list."""
    bodies = losses(3, first)
    for body in bodies:
        body["attackers"][0] |= {"character_id": 2100000077}
    eve.fake.world.add_killmails(bodies)
    eve.fake.limits.refill()
    KillmailSync.objects.update(due_at="2020-01-01T00:00:00Z", not_before=None)
    eve.work()
    assert PendingKillmail.objects.filter(state="WITHHELD").count() == 3


@pytest.mark.parametrize("entry", list(ENTRIES))
def test_answers_are_the_same_word_for_word_whether_something_is_withheld_or_not(eve, people, entry):
    before = {role: ask(ENTRIES[entry], caller) for role, caller in people.items()}
    PendingKillmail.objects.all().delete()  # what the mutations before have asked for
    killmails_come(eve)
    after = {role: ask(ENTRIES[entry], caller) for role, caller in people.items()}
    for role in people:
        assert (after[role] == before[role]) is not (role == "owner" and entry in OWNERS), (role, after[role])


def test_it_is_not_blind_what_is_published_changes_the_answers(eve, people):
    accounts.set_publication(eve.row(VICTIM).user_id, True, 0)
    names = ["killmail", "killmails", "filter by victim", "filter by place", "explainMatch", "killmailEvents"]
    before = [ask(ENTRIES[name]) for name in names]
    killmails_come_public(eve)
    assert [name for name, old in zip(names, before, strict=True) if ask(ENTRIES[name]) == old] == []


def killmails_come_public(eve):
    eve.fake.world.add_killmails(losses(3))
    KillmailSync.objects.update(due_at="2020-01-01T00:00:00Z", not_before=None)
    eve.work()


def test_nothing_of_it_stands_in_a_table_that_others_read(eve, people):
    killmails_come(eve)
    for model in (Killmail, Attacker, KillmailPackage, KillmailEvent, UnfilledKillmail):
        assert model.objects.count() == 0, model
    assert LogHead.objects.get().position == 0
    assert not Character.objects.filter(pk=2100000077).exists()  # who is on it is not known by it either
    log = KillmailLog()
    head = log.head()
    assert log.read_new(Head(head.epoch, 0), 100, frozenset()) == (head, [])  # nor what subscriptions are fed from


FIRST = 987_654_001  # of three killmails: no other number looks like it


def pages_of_the_admin():
    """Of each model that the admin shows, whichever they are: the list, searches, and of each row all that is there."""
    yield reverse("admin:index")
    for model in admin.site._registry:
        name = f"admin:{model._meta.app_label}_{model._meta.model_name}"
        yield from (f"{reverse(f'{name}_changelist')}{query}" for query in ("", f"?q={FIRST}", f"?q={VICTIM}"))
        for pk in model._default_manager.values_list("pk", flat=True):
            yield from (reverse(f"{name}_{page}", args=[quote(pk)]) for page in ("change", "history"))


def told_in_the_admin(client):
    """The pages on which something of what is withheld stands: who, when, or which killmail."""
    who, when = "2100000077", losses(1)[0]["killmail_time"][:10]
    hashes = "|".join(PendingKillmail.objects.values_list("hash", flat=True))
    of_it = re.compile(
        rf"\b({who}|{when}|{date_format(date.fromisoformat(when))}|{FIRST}|{FIRST + 1}|{FIRST + 2}|{hashes})\b"
    )
    found = []
    for page in pages_of_the_admin():
        answer = client.get(page)
        assert answer.status_code == 200, page
        text = re.sub(rf'(q=|value="){FIRST}\b', "", answer.content.decode())  # what was searched for
        found += [page] if of_it.search(text) else []
    return found


def test_an_operator_sees_nothing_of_it_in_the_admin(eve, people, admin_client):
    killmails_come(eve, FIRST)
    assert told_in_the_admin(admin_client) == []
    assert admin_client.get(f"/admin/killmails/killmail/{FIRST}/change/").status_code == 302  # there is none
    assert not Killmail.objects.exists()


def test_it_is_not_blind_a_model_that_shows_it_is_found_out(eve, people, admin_client, settings):
    """As somebody may write it one day."""
    killmails_come(eve, FIRST)
    admin.site.register(PendingKillmail)
    try:
        settings.ROOT_URLCONF = ModuleType("urls")  # the admin's addresses as they are now
        settings.ROOT_URLCONF.urlpatterns = [path("admin/", admin.site.urls), path("", include("killboard.urls"))]
        told = told_in_the_admin(admin_client)
    finally:
        admin.site.unregister(PendingKillmail)
    pages = ["", *(f"{row.pk}/change/" for row in PendingKillmail.objects.all())]
    assert {f"/admin/killmails/pendingkillmail/{page}" for page in pages} <= set(told)


def test_the_log_does_not_tell_its_hash(eve, caplog, monkeypatch):
    """With the hash anybody could read it at ESI."""
    monkeypatch.setattr(esi_questions, "PAUSE", 0.001)
    eve.login(VICTIM)
    faults = [Fault(hang_up=True), Fault(503), Fault(429), Fault(420), Fault(422, b"{}")]
    for fault in faults:
        eve.fake.fail("/killmails/", fault, times=5)
        PendingKillmail.objects.update(due_at="2020-01-01T00:00:00Z", claimed_until=None)
        eve.work()
        eve.fake.heal()
        EsiBudget.objects.all().delete()
    assert {one.status for one in eve.fake.asked if one.path.startswith("/killmails")} >= {503, 429, 420, 422}
    hashes = [killmail_hash(body) for body in losses(3)]
    assert "Killmails are asked for again" in caplog.text
    assert not [one for one in hashes if one in caplog.text]


def test_a_user_goes_with_all_that_is_theirs_and_nobody_sees_how_much(eve, people, admin_client):
    killmails_come(eve)
    user = eve.row(VICTIM).user
    path = f"/admin/auth/user/{user.pk}/delete/"
    for text in (admin_client.get(path).content.decode(), str(admin_client.post("/admin/auth/user/", {
        "action": "delete_selected", "_selected_action": [user.pk]}).content)):  # fmt: skip
        assert "Are you sure" in text
        assert not [word for word in ("1001", "ending", "Owner", "ublication") if word in text]
    assert admin_client.post(path, {"post": "yes"}).status_code == 302
    assert not get_user_model().objects.filter(pk=user.pk).exists()
    assert not PendingKillmail.objects.filter(state="WITHHELD").exists()
    before = len(eve.asked("/v2/oauth/revoke"))
    eve.work()  # EVE is told
    assert len(eve.asked("/v2/oauth/revoke")) == before + 1
    assert not eve.fake.violations
    assert not KillmailSync.objects.filter(eve_id=VICTIM).exists()


def test_whoever_has_the_characters_that_eve_is_to_be_told_of_cannot_be_deleted(eve, admin_client):
    accounts.forget_user(get_user_model().objects.get(pk=eve.login(VICTIM)))
    heir = get_user_model().objects.get(username=accounts.LEAVING)
    path = f"/admin/auth/user/{heir.pk}/delete/"
    assert "until EVE has been told" in admin_client.get(path).content.decode()
    admin_client.post(path, {"post": "yes"})
    admin_client.post("/admin/auth/user/", {"action": "delete_selected", "_selected_action": [heir.pk], "post": "yes"})
    accounts.forget_user(heir)
    assert eve.row(VICTIM).user_id == heir.pk
    eve.work()
    assert (len(eve.asked("/v2/oauth/revoke")), eve.fake.sso.grants_of(VICTIM)) == (1, [])


def test_what_was_fetched_for_somebody_who_is_gone_is_forgotten_within_the_hour(eve, monkeypatch):
    user_id = eve.login(VICTIM)
    real = eve.esi.fetch_killmail

    def slow(*pair):
        get_user_model().objects.filter(pk=user_id).exists() and accounts.forget_user(eve.row(VICTIM).user)
        return real(*pair)

    monkeypatch.setattr(eve.esi, "fetch_killmail", slow)
    eve.work()
    assert PendingKillmail.objects.filter(state="WITHHELD", owners=None).exists()
    forget_sessions()
    assert PendingKillmail.objects.count() == 0


def test_who_was_forgotten_may_come_again_at_once(eve):
    first = eve.login(VICTIM)
    accounts.forget_user(get_user_model().objects.get(pk=first))
    second = eve.login(VICTIM)
    eve.work()
    assert second != first
    assert PendingKillmail.objects.withheld_of(second).count() == 3


def test_what_two_have_brought_stays_for_the_other(eve):
    first, second = eve.login(VICTIM), eve.login(KILLER)
    eve.fake.world.roles = {}
    eve.work()
    mine = PendingKillmail.objects.filter(owners__user=first).count()
    theirs = PendingKillmail.objects.filter(owners__user=second).count()
    assert mine == theirs == 3
    accounts.forget_user(get_user_model().objects.get(pk=first))
    assert PendingKillmail.objects.withheld_of(second).count() == 3


def test_it_is_counted_as_stored_when_it_is_published(eve, people):
    """What /metrics and /health tell of killmails is counted where they are stored."""
    stored = store.outcomes.told()
    killmails_come(eve)
    assert store.outcomes.told() == stored
    accounts.set_publication(eve.row(VICTIM).user_id, True, 0)
    publish_due()
    assert store.outcomes.told()["added"] == stored.get("added", 0) + 3


def test_its_owner_sees_it_as_it_would_be_published(eve, people):
    killmails_come(eve)
    fields = (
        "{ id hash time attackerCount finalBlow { character { id } damageDone } attackers { character { id } } "
        "victim { shipType { id } damageTaken } items { itemType { id } quantityDestroyed items { flag } } "
        "solarSystem { id } points isSolo labels location { id } valueBasis { lines { quantity } } fitting { eft } }"
    )
    page = ask(f"{{ viewer {{ withheldKillmails {{ nodes {{ killmail {fields} }} }} }} }}", people["owner"])
    assert page["errors"] == []
    withheld = page["data"]["viewer"]["withheldKillmails"]["nodes"]
    accounts.set_publication(eve.row(VICTIM).user_id, True, 0)
    publish_due()
    public = ask(f"{{ killmails {{ nodes {fields} }} }}")
    assert sorted((one["killmail"] for one in withheld), key=str) == sorted(
        public["data"]["killmails"]["nodes"], key=str
    )


def test_as_many_queries_for_one_as_for_twenty_five(eve, people):
    killmails_come(eve)
    query = "{ viewer { withheldKillmails(first: %d) { nodes { killmail { id labels points items { flag } } } } } }"
    counts = []
    for first in (1, 3):
        with CaptureQueriesContext(
            connection,
        ) as queries:
            ask(query % first, people["owner"])
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_pages_of_withheld_killmails_come_to_an_end(eve, people):
    killmails_come(eve)
    query = "{ viewer { withheldKillmails(first: 2%s) { hasNextPage nodes { killmail { id } } } } }"
    first = ask(query % "", people["owner"])["data"]["viewer"]["withheldKillmails"]
    assert ([one["killmail"]["id"] for one in first["nodes"]], first["hasNextPage"]) == (["1003", "1002"], True)
    second = ask(query % ', before: "1002"', people["owner"])["data"]["viewer"]["withheldKillmails"]
    assert ([one["killmail"]["id"] for one in second["nodes"]], second["hasNextPage"]) == (["1001"], False)


# What users may ask for


def test_mutations_about_oneself_need_a_token(eve):
    for mutation in (
        "syncMyKillmails { id }",
        "setPublicationDelay(hours: 0) { publish }",
        f'removeCharacter(id: "{VICTIM}")',
        "logout",
    ):
        result = engine.result(engine.prepare(f"mutation {{ {mutation} }}", None, None))
        assert [error.extensions["code"] for error in result.errors] == ["UNAUTHENTICATED"]
    assert ask("{ viewer { name } }") == {"data": {"viewer": None}, "errors": []}


def test_what_a_user_wishes_is_said_in_graphql(eve, people):
    caller = people["owner"]
    answer = ask("mutation { setPublicationDelay(hours: 24) { publish delayHours } }", caller)
    assert answer["data"] == {"setPublicationDelay": {"publish": True, "delayHours": 24}}
    for arguments, message in {
        "hours: 5": "hours: must be one of 0, 1, 3, 8, 24, 72.",
        "hours: 24, publish: null": "publish: must be true or false.",
    }.items():
        wrong = ask(f"mutation {{ setPublicationDelay({arguments}) {{ publish }} }}", caller)
        assert wrong["errors"] == [message]
    answer = ask("{ viewer { publication { publish delayHours } characters { id state ownKillmails } } }", caller)
    assert answer["data"]["viewer"] == {
        "publication": {"publish": True, "delayHours": 24},
        "characters": [{"id": str(VICTIM), "state": "READY", "ownKillmails": True}],
    }


def test_a_users_lists_are_queued_and_nobody_elses(eve, people):
    KillmailSync.objects.update(last_run_at=None, priority=2)
    assert ask("mutation { syncMyKillmails { id } }", people["owner"])["errors"] == []
    assert dict(KillmailSync.objects.values_list("eve_id", "priority")) == {VICTIM: 1, KILLER: 2}
    wrong = ask(f'mutation {{ syncMyKillmails(character: "{KILLER}") {{ id }} }}', people["owner"])
    assert wrong["errors"] == [f"character: '{KILLER}' is none of yours."]


def test_a_token_that_was_logged_out_is_none_any_more(eve, people):
    user_id = eve.row(VICTIM).user_id
    token = accounts.new_api_token(user_id, "bot")
    caller = Caller(accounts.authenticate(token))
    assert ask("mutation { logout }", caller)["data"] == {"logout": True}
    assert accounts.authenticate(token) is None
    assert ask("mutation { logout(everywhere: true) }", people["owner"])["data"] == {"logout": True}
    assert accounts.living([people["owner"].viewer]) == []
    assert eve.row(VICTIM).state == "LEAVING"


def test_a_token_ends_with_its_time_and_with_its_user(eve):
    user_id = eve.login(VICTIM)
    token = accounts.new_api_token(user_id, "bot")
    assert accounts.authenticate(token).user_id == user_id
    for wrong in ("", "kb_", token[:-1], token + "x", f"kb_{'é' * 30}", "kb_" + "a" * 500):
        assert accounts.authenticate(wrong) is None
    accounts.ApiToken.objects.update(expires_at=accounts.Now() - timedelta(seconds=1))
    assert accounts.authenticate(token) is None
    accounts.ApiToken.objects.update(expires_at=None)
    get_user_model().objects.update(is_active=False)
    assert accounts.authenticate(token) is None
    assert token not in json.dumps(list(accounts.ApiToken.objects.values()), default=str)


NO_LINK = "link: is neither https://zkillboard.com/kill/…/ nor https://esi.evetech.net/killmails/…/…/."


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        ('id: "1"', "id and hash: give both, or a link."),
        (f'id: "0", hash: "{"a" * 40}"', "id: '0' is not a killmail's id, a whole number."),
        ('id: "1", hash: ""', "hash: '' is not 40 hex digits in lower case."),
        ('id: "1", hash: "abc"', "hash: 'abc' is not 40 hex digits in lower case."),
        ('link: "https://evil.example/kill/1/"', NO_LINK),
        ('link: "zkillboard.com/kill/1/", id: "1"', "link: takes the place of id and hash; give one or the other."),
    ],
)
def test_what_is_no_killmail_is_not_added(arguments, wrong):
    assert ask(f"mutation {{ addKillmail({arguments}) {{ state }} }}")["errors"] == [wrong]
    assert PendingKillmail.objects.count() == 0


@pytest.mark.parametrize(
    ("link", "pair"),
    [
        ("https://zkillboard.com/kill/123/", (123, "")),
        ("zkillboard.com/kill/123", (123, "")),
        (f"https://esi.evetech.net/latest/killmails/5/{'a' * 40}/?datasource=tranquility", (5, "a" * 40)),
        (f"https://esi.evetech.net/killmails/5/{'a' * 40}", (5, "a" * 40)),
        (f"<url=killReport:5:{'a' * 40}>Kill: Zoë (Rifter)</url>", (5, "a" * 40)),
    ],
)
def test_links_are_read_and_never_opened(link, pair):
    variables = {"link": link}
    query = "mutation ($link: String) { addKillmail(link: $link) { id state } }"
    result = engine.result(engine.prepare(query, variables, None))
    assert (result.errors, result.data["addKillmail"]) == (None, {"id": str(pair[0]), "state": "QUEUED"})
    assert PendingKillmail.objects.values_list("killmail_id", "hash").get() == pair


def test_nobody_adds_more_than_ten_in_a_minute():
    query = 'mutation ($id: ID) { addKillmail(id: $id, hash: "%s") { state } }' % ("a" * 40)
    codes = []
    for number in range(1, 13):
        result = engine.result(engine.prepare(query, {"id": str(number)}, None, Caller(None, "192.0.2.1")))
        codes.append(result.errors[0].extensions["code"] if result.errors else "")
    assert codes == [""] * 10 + ["RATE_LIMITED"] * 2
    assert PendingKillmail.objects.count() == 10


def test_the_world_of_the_tests_has_what_they_say():
    assert sorted(world_of(losses(3)).killmails) == [1001, 1002, 1003]
