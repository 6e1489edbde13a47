"""What the client of ESI makes of the lists of recent killmails, which it reads in a character's name."""

import contextlib
import json
import threading
from collections import Counter

import pytest

from killmails.errors import BudgetSpent, EsiForbidden, TokenRefused, Unacceptable, UpstreamRefused
from killmails.fake_eve import Fault
from killmails.recording.tape import killmail_hash
from killmails.upstream import esi_questions
from killmails.upstream.budget import Budget, MemoryStore
from killmails.upstream.esi import Esi, KillmailRef
from killmails.upstream.sso import Sso
from tests.killmails.eve import (
    BOTH,
    CALLBACK,
    KILLER,
    KILLER_CORPORATION,
    OTHER,
    OWN,
    VICTIM,
    VICTIM_CORPORATION,
    losses,
    tokens_of,
)

OURS = f"/characters/{VICTIM}/killmails/recent"
THEIRS = f"/corporations/{VICTIM_CORPORATION}/killmails/recent"


@pytest.fixture
def fake(fake_esi):
    """Somebody lost three ships; his corporation's director is he himself."""
    fake_esi.world.killmails.clear()
    fake_esi.world.add_killmails(losses(3))
    fake_esi.world.roles[VICTIM] = ("Director",)
    return fake_esi


@pytest.fixture
def token(fake):
    """Access tokens by character."""
    sso = Sso(fake.url, "fake-client", "", CALLBACK, "tests")
    found = {number: tokens_of(fake, sso, number, BOTH).access_token for number in (VICTIM, KILLER, OTHER)}
    fake.asked.clear()
    return found


def ref(killmail_id: int) -> KillmailRef:
    return KillmailRef(killmail_id, killmail_hash(losses(1, killmail_id)[0]))


def ids(page) -> list[int]:
    return [one.killmail_id for one in page.refs]


def test_list_is_read_in_the_name_of_its_character_newest_first(fake, esi, token):
    page = esi.fetch_recent_killmails("character", VICTIM, VICTIM, token[VICTIM])
    assert ids(page) == [1003, 1002, 1001]
    assert page.refs[-1] == ref(1001)
    assert (page.pages, page.changed, page.etag.count('"')) == (1, True, 2)
    assert 298 <= page.expires_in <= 301
    asked = fake.asked[0]
    assert (asked.path, asked.headers["Authorization"]) == (f"{OURS}?page=1", f"Bearer {token[VICTIM]}")
    assert fake.violations == []
    assert ids(esi.fetch_recent_killmails("character", KILLER, KILLER, token[KILLER])) == [1003, 1002, 1001]
    assert ids(esi.fetch_recent_killmails("character", OTHER, OTHER, token[OTHER])) == []  # had no final blow


def test_corporations_list_is_read_by_its_director_alone(fake, esi, token):
    page = esi.fetch_recent_killmails("corporation", VICTIM_CORPORATION, VICTIM, token[VICTIM])
    assert ids(page) == [1003, 1002, 1001]
    for holder, corporation, words in (
        (KILLER, KILLER_CORPORATION, r"Character does not have required role\(s\)"),
        (KILLER, VICTIM_CORPORATION, "Character is not in the corporation"),
    ):
        with pytest.raises(EsiForbidden, match=words):
            esi.fetch_recent_killmails("corporation", corporation, holder, token[holder])
    with pytest.raises(EsiForbidden, match="token is not valid for this character"):
        esi.fetch_recent_killmails("character", VICTIM, KILLER, token[KILLER])
    assert len(fake.asked) == 4  # once each: asking again is no use


@pytest.mark.parametrize(
    ("body", "words"),
    [(b"<html>", "ESI refuses it"), (b'{"error": ""}', "ESI refuses it"), (b'{"error": "a\\u0000b"}', "ESI refuses it"),
     (json.dumps({"error": "x" * 900}).encode(), "x" * 200)],
)  # fmt: skip
def test_words_of_a_refusal_are_ours_where_esis_cannot_be_shown(fake, esi, token, body, words):
    fake.fail(OURS, Fault(403, body))
    with pytest.raises(EsiForbidden) as refusal:
        esi.fetch_recent_killmails("character", VICTIM, VICTIM, token[VICTIM])
    assert str(refusal.value) == words


def test_token_that_esi_does_not_take_is_told_without_it(fake, esi, token):
    fake.sso.expire_access(VICTIM)
    for one in (token[VICTIM], "invented"):
        with pytest.raises(TokenRefused) as refusal:
            esi.fetch_recent_killmails("character", VICTIM, VICTIM, one)
        assert str(refusal.value) == f"ESI does not take the token of character {VICTIM}"
    assert len(fake.asked) == 2


def test_list_that_has_not_changed_is_not_told_again(fake, esi, token):
    def ask(etag: str = ""):
        return esi.fetch_recent_killmails("character", VICTIM, VICTIM, token[VICTIM], etag=etag)

    first = ask()
    again = ask(first.etag)
    assert (again.refs, again.changed, again.etag) == ([], False, first.etag)
    assert 298 <= again.expires_in <= 301
    fake.world.add_killmails(losses(1, 1004))
    changed = ask(first.etag)
    assert (ids(changed), changed.changed) == ([1004, 1003, 1002, 1001], True)
    assert [one.status for one in fake.asked] == [200, 304, 200]


def test_pages_are_counted_and_beyond_the_last_there_is_nothing(fake, esi, token):
    fake.world.page_size = 2
    pages = [esi.fetch_recent_killmails("character", VICTIM, VICTIM, token[VICTIM], page=page) for page in (1, 2, 3)]
    assert [ids(page) for page in pages] == [[1003, 1002], [1001], []]
    assert [page.pages for page in pages] == [2, 2, 1]
    assert [one.status for one in fake.asked] == [200, 200, 404]


@pytest.mark.parametrize(("told", "pages"), [("abc", 1), ("1000000000", 100), ("-1", 1), ("0", 1), ("100", 100)])
def test_e10_pages_that_cannot_be_are_capped_and_logged(fake, esi, token, caplog, told, pages):
    fake.fail(OURS, Fault(200, b"[]", headers={"X-Pages": told}))
    assert esi.fetch_recent_killmails("character", VICTIM, VICTIM, token[VICTIM]).pages == pages
    said = [record.getMessage() for record in caplog.records]
    assert said == ([] if told == "100" else [f"{OURS}?page=1 has {told} pages, as ESI says; {pages} are read."])


RIGHT = {"killmail_id": 1, "killmail_hash": "0" * 40}


@pytest.mark.parametrize(
    "body",
    [b"<html>", b"{}", b'{"error": "x"}', b"[{}]",
     *(json.dumps([RIGHT, RIGHT | wrong]).encode() for wrong in (
        {"killmail_id": 0}, {"killmail_id": "1"}, {"killmail_id": 2**63}, {"killmail_hash": "0" * 39},
        {"killmail_hash": "A" * 40}, {"killmail_hash": "../../oauth"}, {"killmail_hash": None}))],
)  # fmt: skip
def test_list_with_a_row_that_is_none_is_not_taken(fake, esi, token, body):
    fake.fail(OURS, Fault(200, body))
    with pytest.raises(Unacceptable):
        esi.fetch_recent_killmails("character", VICTIM, VICTIM, token[VICTIM])


@pytest.mark.parametrize("status", [400, 422, 302])
def test_other_refusals_are_no_empty_list(fake, esi, token, status):
    fake.fail(OURS, Fault(status, b"{}"))
    with pytest.raises(UpstreamRefused, match=f"status {status}"):
        esi.fetch_recent_killmails("character", VICTIM, VICTIM, token[VICTIM])


def test_etag_that_is_too_long_to_be_kept_is_left(fake, esi, token):
    fake.fail(OURS, Fault(200, b"[]", headers={"ETag": f'"{"x" * 300}"'}))
    assert esi.fetch_recent_killmails("character", VICTIM, VICTIM, token[VICTIM]).etag == ""


def test_esis_own_stumble_is_asked_again(fake, esi, token, monkeypatch):
    monkeypatch.setattr(esi_questions, "PAUSE", 0.001)
    fake.fail(OURS, Fault(504, b'{"error": "Timeout contacting tranquility"}'), times=2)
    assert len(esi.fetch_recent_killmails("character", VICTIM, VICTIM, token[VICTIM]).refs) == 3
    assert [one.status for one in fake.asked] == [504, 504, 200]


# Limits


def test_users_have_limits_of_their_own_which_we_keep_before_esi_has_to(fake, esi, token):
    """30 tokens in a quarter of an hour, 3 of which we leave alone: twelve pages for 2 each."""
    fake.world.page_size = 1
    fake.world.add_killmails(losses(20))

    def read(page: int) -> list[int]:
        return ids(esi.fetch_recent_killmails("character", VICTIM, VICTIM, token[VICTIM], page=page))

    assert [read(page) for page in range(1, 13)] == [[number] for number in range(1020, 1008, -1)]
    for page in (13, 14):
        with pytest.raises(BudgetSpent, match=f"the budget of char-killmail:{VICTIM} is spent") as spent:
            read(page)
    assert 800 < spent.value.retry_after <= 906
    esi.fetch_recent_killmails("character", KILLER, KILLER, token[KILLER])  # another user goes on
    esi.fetch_recent_killmails("corporation", VICTIM_CORPORATION, VICTIM, token[VICTIM])  # and so does another group
    assert [one.status for one in fake.asked] == [200] * 14
    assert fake.limits.lowest["char-killmail"] == 6
    assert fake.violations == []


def test_twenty_threads_of_three_users_never_meet_esis_limit(fake, esi, token):
    """Not even in the beginning: the limit is known before the first answer."""
    ask_at_once(esi, token)
    found = Counter(int(one.path.split("/")[2]) for one in fake.asked)
    assert set(found) == {VICTIM, KILLER, OTHER}
    # While a question is under way it counts at the worst price, so fewer than twelve may come through.
    assert all(5 <= count <= 12 for count in found.values())
    assert {one.status for one in fake.asked} == {200}
    assert fake.violations == []


def test_it_is_not_blind_threads_without_a_common_budget_break_it(fake, token):
    ask_at_once(Esi(fake.url, "tests", Budget(EachItsOwn())), token)
    assert {one.status for one in fake.asked} == {200, 429}
    assert "429: the bucket of char-killmail is empty" in fake.violations


class EachItsOwn(MemoryStore):
    """Known to be wrong: every question has counts that nothing was spent of."""

    def reserve(self, ask):
        return MemoryStore().reserve(ask)


def ask_at_once(esi: Esi, token: dict[int, str]) -> None:
    """Twenty threads, each with two questions for each user, as far as it may."""

    def ask() -> None:
        for holder in (*token, *token):
            with contextlib.suppress(BudgetSpent, UpstreamRefused):
                esi.fetch_recent_killmails("character", holder, holder, token[holder])

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()


def test_scope_that_was_not_granted_is_esis_refusal(fake, esi):
    sso = Sso(fake.url, "fake-client", "", CALLBACK, "tests")
    own = tokens_of(fake, sso, VICTIM, (OWN,)).access_token
    with pytest.raises(EsiForbidden, match=r"missing scope esi-killmails\.read_corporation_killmails\.v1"):
        esi.fetch_recent_killmails("corporation", VICTIM_CORPORATION, VICTIM, own)
    assert fake.asked[-1].path == f"{THEIRS}?page=1"
