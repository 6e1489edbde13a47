"""Asking zKillboard's feed for its pointer and its packages."""

import contextlib

import pytest

from killmails.errors import BadPointer, EsiUnknown, Unacceptable, UpstreamRefused
from killmails.fake_eve import Fault
from killmails.recording.server import RecordingServer, load_recording
from killmails.upstream import zkillboard
from killmails.upstream.zkillboard import Zkillboard, ZkillboardSite
from tests.fake_r2z2 import FakeR2Z2, Reply


@pytest.fixture
def fake():
    with FakeR2Z2() as fake:
        yield fake


def test_package_comes_as_its_bytes_and_a_missing_one_as_none(fake):
    fake.put(5, b"\x00any bytes\xff")
    zkillboard = Zkillboard(fake.url, "tests@example.com")
    assert zkillboard.fetch_package(5) == b"\x00any bytes\xff"
    assert zkillboard.fetch_package(6) is None
    assert fake.asked == ["5", "6"]


def test_pointer_is_a_number(fake):
    fake.point(96695606)
    assert Zkillboard(fake.url, "").fetch_pointer() == 96695606
    assert fake.asked == ["sequence"]


@pytest.mark.parametrize(
    "body",
    [b'{"sequence":"1"}', b'{"sequence":0}', b'{"sequence":-1}', b'{"sequence":4611686018427387904}',
     b'{"sequence":1.0}', b'{"sequence":true}', b'{"sequence":null}', b"[1]", b"5", b"", b"<html>", b"x" * 6_000_000],
    ids=lambda body: repr(body[:30]),
)  # fmt: skip
def test_pointer_that_is_none_is_refused(fake, body):
    fake.point(body)
    with pytest.raises(BadPointer, match=r"sequence\.json"):
        Zkillboard(fake.url, "").fetch_pointer()


def test_missing_pointer_is_refused(fake):
    with pytest.raises(BadPointer):
        Zkillboard(fake.url, "").fetch_pointer()


def test_refusals_and_oversize_go_through(fake):
    fake.script(5, Reply(status=403))
    fake.put(6, b"x" * 6_000_000)
    zkillboard = Zkillboard(fake.url, "")
    with pytest.raises(UpstreamRefused, match="403"):
        zkillboard.fetch_package(5)
    with pytest.raises(Unacceptable, match="TOO_LARGE"):
        zkillboard.fetch_package(6)


@pytest.mark.parametrize(("contact", "named"), [("me@example.com", "me@example.com"), ("", "not given")])
def test_board_says_who_asks(fake, contact, named):
    Zkillboard(fake.url, contact).fetch_package(1)
    assert fake.headers[0]["User-Agent"] == f"killboard/0.1 (EVE Online killboard backend; contact: {named})"


def test_questions_are_a_tenth_of_a_second_apart_also_after_a_refusal(fake):
    fake.put(1, b"x")
    fake.script(2, Reply(status=503))
    zkillboard = Zkillboard(fake.url, "")
    for number in (1, 2, 1, 3, 1, 2, 1, 1, 1, 1):
        with contextlib.suppress(UpstreamRefused):
            zkillboard.fetch_package(number)
    apart = [later - earlier for earlier, later in zip(fake.times, fake.times[1:], strict=False)]
    assert len(apart) == 9
    assert min(apart) > 0.099


def test_recorded_feed_never_refuses_a_client_at_this_pace():
    with RecordingServer(load_recording(), rate=0, ready=20) as server:
        zkillboard = Zkillboard(server.url, "tests@example.com")
        assert all(zkillboard.fetch_package(number) for number in range(1, 21))
        assert {status for _, _, status in server.requests} == {200}


@pytest.mark.parametrize(
    "told", ['"CCP VERIFIED"', '"../../oauth"', f'"{"A" * 40}"', f'"{"a" * 39}"', f'"{"a" * 40}\\n"', "null", "5"]
)
def test_a_hash_that_is_none_is_unknown(fake_esi, monkeypatch, told):
    monkeypatch.setattr(zkillboard, "SITE_PACE", 0.0)
    site = ZkillboardSite(fake_esi.url, "")
    for number, text in ((1, told), (2, f'"{"0a" * 20}"')):
        body = f'[{{"killmail_id": {number}, "zkb": {{"hash": {text}}}}}]'.encode()
        fake_esi.fail(f"/api/killID/{number}/", Fault(200, body, free=True))
    with pytest.raises(EsiUnknown, match="killmail 1: zKillboard has none"):
        site.fetch_hash(1)
    assert site.fetch_hash(2) == "0a" * 20
