"""Answers of ESI that are kept: not asked for again before they expire, and then only whether they have changed."""

from datetime import timedelta

import pytest
from django.conf import settings as django_settings
from django.db.models.functions import Now

from killmails.errors import UpstreamRefused
from killmails.fake_eve import Fault
from killmails.ingest import esi as process_esi
from killmails.ingest import esi_store
from killmails.ingest.esi_store import DatabaseStore, KeptAnswers
from killmails.models import EsiAnswer, EsiBudget
from killmails.recording.tape import killmail_hash
from killmails.upstream.budget import Budget, MemoryStore
from killmails.upstream.budget_redis import RedisStore
from killmails.upstream.esi import AllianceRecord, Esi
from killmails.upstream.esi_questions import Kept
from tests.builders import esi_body

pytestmark = pytest.mark.django_db

ALLIANCE = AllianceRecord("Alliance 99000001", "A0001")


@pytest.fixture
def fake(fake_esi):
    return fake_esi


@pytest.fixture
def esi(fake):
    return Esi(fake.url, "tests", Budget(MemoryStore()), KeptAnswers())


def expire():
    EsiAnswer.objects.update(expires_at=Now() - timedelta(seconds=1))


def test_answer_is_not_asked_for_again_before_it_expires_whoever_asks(fake, esi):
    assert esi.fetch_alliance(99000001) == ALLIANCE
    other = Esi(fake.url, "tests", Budget(MemoryStore()), KeptAnswers())
    assert (other.fetch_alliance(99000001), len(fake.asked)) == (ALLIANCE, 1)
    kept = EsiAnswer.objects.annotate(now=Now()).get()
    assert kept.path == "/alliances/99000001"
    assert 3000 <= (kept.expires_at - kept.now).total_seconds() <= 3601
    assert fake.early == []


def test_it_is_not_blind_who_keeps_nothing_asks_too_early(fake):
    esi = Esi(fake.url, "tests", Budget(MemoryStore()))
    esi.fetch_alliance(99000001)
    esi.fetch_alliance(99000001)
    assert fake.early == ["/alliances/99000001"]


def test_answer_that_has_expired_and_not_changed_is_used_again(fake, esi):
    esi.fetch_alliance(99000001)
    expire()
    assert (esi.fetch_alliance(99000001), esi.fetch_alliance(99000001)) == (ALLIANCE, ALLIANCE)
    assert [one.status for one in fake.asked] == [200, 304]
    assert fake.asked[1].headers["If-None-Match"] == EsiAnswer.objects.get().etag


def test_answer_that_has_changed_takes_the_place_of_the_old_one(fake, esi):
    esi.fetch_alliance(99000001)
    expire()
    fake.world.alliances[99000001] = {"name": "Other", "ticker": "O"}
    for _ in range(2):
        assert esi.fetch_alliance(99000001) == AllianceRecord("Other", "O")
    assert [one.status for one in fake.asked] == [200, 200]


def test_304_that_nobody_asked_for_is_refused(fake, esi):
    fake.fail("/alliances", Fault(304, b""))
    with pytest.raises(UpstreamRefused, match="304"):
        esi.fetch_alliance(99000001)


@pytest.mark.parametrize(
    "headers",
    [{}, {"Expires": "soon"}, {"Expires": "Thu, 01 Jan 2026 00:00:00 GMT"}, {"Expires": "0"},
     {"Cache-Control": "public"}, {"Cache-Control": "max-age=0"}, {"Cache-Control": "s-max-age=60"},
     {"Cache-Control": "max-age=60", "Age": "60"}, {"Cache-Control": "max-age=soon"}],
)  # fmt: skip
def test_answer_that_does_not_say_how_long_it_holds_is_not_kept(fake, esi, headers):
    fake.fail("/alliances", Fault(200, b'{"name": "A", "ticker": "T"}', headers=headers))
    assert esi.fetch_alliance(99000001) == AllianceRecord("A", "T")
    assert not EsiAnswer.objects.exists()


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({"Cache-Control": "public, max-age=3600"}, 3600), ({"Cache-Control": "MAX-AGE=3600,public", "Age": "600"}, 3000),
     ({"Cache-Control": "max-age=60", "Expires": "Fri, 31 Dec 9999 23:59:59 GMT"}, 31 * 86_400),
     ({"Cache-Control": "max-age=60", "Expires": "Thu, 01 Jan 2026 00:00:00 GMT"}, 60)],
)  # fmt: skip
def test_answer_is_kept_by_cache_control_and_by_expires_whichever_is_later(fake, esi, headers, seconds):
    fake.fail("/alliances", Fault(200, b'{"name": "A", "ticker": "T"}', headers=headers))
    esi.fetch_alliance(99000001)
    kept = EsiAnswer.objects.annotate(now=Now()).get()
    assert seconds - 10 < (kept.expires_at - kept.now).total_seconds() <= seconds


def test_answer_that_holds_for_ever_is_kept_for_a_month(fake, esi):
    headers = {"Expires": "Fri, 31 Dec 9999 23:59:59 GMT", "ETag": '"a"'}
    fake.fail("/alliances", Fault(200, b'{"name": "A", "ticker": "T"}', headers=headers))
    esi.fetch_alliance(99000001)
    assert EsiAnswer.objects.get(expires_at__lte=Now() + timedelta(days=31)).etag == '"a"'


def test_killmails_and_names_are_not_kept_since_the_board_keeps_them_itself(fake, esi):
    esi.fetch_killmail(1, killmail_hash(esi_body(1)))
    esi.fetch_names([99000001])
    assert not EsiAnswer.objects.exists()


def test_refusals_are_not_kept(fake, esi):
    assert esi.fetch_alliance(1) is None
    assert not EsiAnswer.objects.exists()


def test_kept_answers_are_bounded_and_those_that_expire_first_go(monkeypatch):
    monkeypatch.setattr(esi_store, "MOST", 100)
    monkeypatch.setattr(esi_store, "TRIM", 10)
    monkeypatch.setattr(esi_store, "LARGEST", 30)
    kept = KeptAnswers()
    for number in range(10):
        kept.keep(f"/{number}", Kept("", b"%d" % number * 3, 100 + number * (-1) ** number))
    size = EsiAnswer.objects.values_list("size", flat=True)[0]
    assert EsiAnswer.objects.count() == 100 // size == 9
    assert kept.find("/9") is None  # it would have expired first
    assert kept.find("/8").body == b"888"
    kept.keep("/large", Kept("", bytes(range(200)), 100))
    assert kept.find("/large") is None


# The client of a process


@pytest.fixture
def forgotten(monkeypatch):
    monkeypatch.setattr(process_esi, "_kept", None)


def test_process_has_one_client_with_the_store_that_all_share(fake, settings, forgotten):
    settings.FEED, settings.ESI_URL = "live", fake.url
    esi = process_esi.esi()
    assert esi is process_esi.esi()
    assert esi.fetch_alliance(99000001) == ALLIANCE
    assert type(esi.budget._store) is (DatabaseStore if django_settings.REDIS is None else RedisStore)
    assert esi.budget.told()["answers"]["200"] >= 1
    assert EsiBudget.objects.exists() is (django_settings.REDIS is None)


def test_without_a_redis_the_database_counts(fake, settings, forgotten):
    settings.FEED, settings.ESI_URL, settings.REDIS = "off", fake.url, None
    assert process_esi.esi().fetch_alliance(99000001) == ALLIANCE
    assert process_esi.esi().budget.told() == {"left": {"errors": 100}, "answers": {"200": 1}, "banned_for": 0}


def test_there_is_no_esi_beside_a_recording(settings, forgotten):
    settings.FEED = "recorded"
    assert process_esi.esi() is None
