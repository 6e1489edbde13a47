"""Speaking HTTP: limits on time and size, no redirects, nothing from the environment."""

import contextlib
import gzip
import socket
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace

import pytest

from killmails.errors import EsiUnknown, Reason, Unacceptable, Unreadable, UpstreamRefused, UpstreamUnreachable
from killmails.upstream import http
from killmails.upstream.http import BODY_CAP, KEPT, Answer, Client, answers, retry_after
from killmails.upstream.zkillboard import ZkillboardSite
from tests.fake_r2z2 import FakeR2Z2, Reply
from tests.killmails.test_counts import in_a_child


@pytest.fixture
def fake():
    with FakeR2Z2() as fake:
        yield fake


LIMIT = 60.0  # seconds for what is to be answered, on a machine however busy


def get(fake: FakeR2Z2, deadline: float = LIMIT) -> Answer:
    return Client("tests/1 (tests@example.com)", deadline).get(f"{fake.url}/ephemeral/1.json")


# What arrives


def test_body_arrives_as_it_was_sent(fake):
    fake.put(1, bytes(range(256)) * 40)
    assert get(fake) == Answer(200, bytes(range(256)) * 40)


def test_gzip_is_unpacked(fake):
    fake.script(1, Reply(gzip.compress(b"killmail"), headers={"Content-Encoding": "gzip"}))
    assert get(fake) == Answer(200, b"killmail")


def test_404_is_an_answer(fake):
    assert get(fake).status == 404


@pytest.mark.parametrize("body", [b"x" * (BODY_CAP + 1), b"no gzip"])
def test_404_is_one_whatever_its_body_is(fake, body):
    headers = {"Content-Encoding": "gzip"} if body == b"no gzip" else {}
    fake.script(1, Reply(body, status=404, headers=headers))
    assert get(fake) == Answer(404, b"")


def test_question_names_us_and_asks_for_gzip(fake):
    get(fake)
    asked = fake.headers[0]
    assert (asked["User-Agent"], asked["Accept-Encoding"]) == ("tests/1 (tests@example.com)", "gzip")


def test_connection_is_kept_for_the_next_question(fake):
    fake.put(1, b"x")
    client = Client("tests", LIMIT)
    for _ in range(3):
        client.get(f"{fake.url}/ephemeral/1.json")
        client.get(f"{fake.url}/ephemeral/2.json")
    assert fake.connections == 1


def test_questions_are_counted_by_their_answers(fake):
    fake.script(1, Reply(b"x"), Reply(status=404), Reply(status=503), Reply(hang_up=True), Reply(b"x" * (BODY_CAP + 1)))
    before = Counter(answers().get("zkillboard"))
    for _ in range(5):
        with contextlib.suppress(UpstreamRefused, UpstreamUnreachable, Unacceptable):
            get(fake)
    assert Counter(answers()["zkillboard"]) - before == {"200": 2, "404": 1, "503": 1, "none": 1}


def test_questions_of_each_upstream_are_counted_by_themselves_also_those_of_the_pool(fake):
    def ask() -> None:
        fake_url = f"{fake.url}/ephemeral/1.json"
        Client("tests", upstream="static_data").ask("GET", fake_url)
        Client("tests", upstream="esi").ask("GET", fake_url)  # counted with its limits
        with contextlib.suppress(EsiUnknown):
            ZkillboardSite(fake.url, "tests").fetch_hash(1)

    before = answers()
    fake.script(1, Reply(status=418), Reply(b"x"), Reply(b"x"), Reply(b"x"))
    ask()
    in_a_child(ask)
    after = answers()
    gained = {name: Counter(after[name]) - Counter(before.get(name)) for name in after}
    assert {name: told for name, told in gained.items() if told} == {
        "static_data": {"other": 1, "200": 1},
        "zkillboard_site": {"404": 2},
    }


# Refusals


@pytest.mark.parametrize("status", [201, 204, 206, 301, 304, 400, 401, 403, 420, 429, 500, 502, 503, 504, 599])
def test_any_other_status_is_a_refusal(fake, status):
    fake.script(1, Reply(b"" if status in (204, 304) else b"<html>", status=status, headers={"Retry-After": "7"}))
    with pytest.raises(UpstreamRefused) as caught:
        get(fake)
    assert (caught.value.status, caught.value.retry_after) == (status, 7.0)


def test_refusal_costs_the_connection_but_not_the_next_question(fake):
    fake.script(1, Reply(b"x" * 1_000_000, status=503), Reply(b"fine"))
    client = Client("tests", LIMIT)
    with pytest.raises(UpstreamRefused):
        client.get(f"{fake.url}/ephemeral/1.json")
    assert client.get(f"{fake.url}/ephemeral/1.json").body == b"fine"


@pytest.mark.parametrize("target", ["http://169.254.169.254/latest/meta-data/", "{url}/ephemeral/2.json", "//evil"])
def test_redirect_is_not_followed(fake, target):
    fake.script(1, Reply(status=302, headers={"Location": target.format(url=fake.url)}))
    fake.put(2, b"somewhere else")
    with pytest.raises(UpstreamRefused, match="302"):
        get(fake)
    assert fake.asked == ["1"]


def test_proxies_and_passwords_of_the_environment_are_not_used(fake, monkeypatch, tmp_path):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    fake.put(1, b"x")
    assert get(fake).body == b"x"
    assert "Authorization" not in fake.headers[0]


# Time


def dripping(body: bytes) -> Iterator[bytes]:
    for byte in body:
        time.sleep(0.05)
        yield bytes([byte])


@pytest.mark.parametrize(
    "reply",
    [
        Reply(silent_for=30),
        Reply(b"x" * 1000, drip=0.05),
        Reply(gzip.compress(bytes(range(256))), drip=0.05, headers={"Content-Encoding": "gzip"}),
        Reply(stream=lambda: dripping(b"x" * 1000)),
        Reply(b"x" * 1000, drip=0.05, status=404),
    ],
    ids=["silence", "drip", "packed drip", "drip without a length", "dripping 404"],
)
def test_answer_that_takes_too_long_is_cut_at_the_deadline(fake, reply):
    fake.script(1, reply)
    began = time.monotonic()
    with pytest.raises(UpstreamUnreachable, match="no complete answer within 1 s"):
        get(fake, deadline=0.6)
    assert 0.5 < time.monotonic() - began < 25  # and not 30


def test_question_after_one_that_was_cut_is_answered(fake):
    fake.script(1, Reply(silent_for=30))
    client = Client("tests", LIMIT)
    with pytest.raises(UpstreamUnreachable):
        client.ask("GET", f"{fake.url}/ephemeral/1.json", within=0.3)
    fake.put(1, b"fine")
    assert client.get(f"{fake.url}/ephemeral/1.json").body == b"fine"


class Alarm:
    """A clock that strikes when the test says that its time has come."""

    def __init__(self, seconds, strike):
        self.strike = strike

    def start(self):
        """It does not run by itself."""

    def cancel(self):
        self.strike = lambda: None


def test_deadline_of_one_question_does_not_cut_the_next(fake, monkeypatch):
    alarms = []

    def set_alarm(*given):
        alarms.append(Alarm(*given))
        return alarms[-1]

    monkeypatch.setattr(http, "threading", SimpleNamespace(Timer=set_alarm))

    def answer(of):
        yield b"yy"
        alarms[of].strike()
        yield b"yy"

    fake.put(1, b"x")
    fake.script(2, Reply(stream=lambda: answer(0)), Reply(stream=lambda: answer(2)))
    client = Client("tests", LIMIT)
    client.get(f"{fake.url}/ephemeral/1.json")
    assert client.get(f"{fake.url}/ephemeral/2.json").body == b"yyyy"
    with pytest.raises(UpstreamUnreachable, match="no complete answer"):  # its own does
        client.get(f"{fake.url}/ephemeral/2.json")


# Answers cut short


@pytest.mark.parametrize("packed", [False, True])
def test_body_shorter_than_declared_is_no_answer(fake, packed):
    body = gzip.compress(b"killmail" * 100) if packed else b"killmail"
    fake.script(1, Reply(body[:-3], declared=len(body), headers={"Content-Encoding": "gzip"} if packed else {}))
    with pytest.raises(UpstreamUnreachable):
        get(fake)


def test_body_cut_within_a_chunk_is_no_answer(fake):
    fake.script(1, Reply(stream=lambda: iter([b"a\r\nkill"]), headers={"Transfer-Encoding": "chunked"}))
    with pytest.raises(UpstreamUnreachable):
        get(fake)


def test_connection_without_an_answer_is_unreachable(fake):
    fake.script(1, Reply(hang_up=True))
    with pytest.raises(UpstreamUnreachable, match="no connection"):
        get(fake)


def test_closed_port_is_unreachable():
    with FakeR2Z2() as gone:
        pass
    with pytest.raises(UpstreamUnreachable, match=gone.url):
        get(gone)


def test_body_that_cannot_be_unpacked_is_unreadable(fake):
    fake.script(1, Reply(b"plainly no gzip", headers={"Content-Encoding": "gzip"}), Reply(b"fine"))
    client = Client("tests", LIMIT)
    with pytest.raises(Unreadable) as caught:
        client.get(f"{fake.url}/ephemeral/1.json")
    assert caught.value.reason is Reason.NOT_JSON
    assert client.get(f"{fake.url}/ephemeral/1.json").body == b"fine"


# Size


def test_body_of_exactly_the_cap_is_taken_and_one_byte_more_is_not(fake):
    fake.script(1, Reply(b"x" * BODY_CAP), Reply(b"x" * (BODY_CAP + 1)), Reply(b"fine"))
    client, url = Client("tests", LIMIT), f"{fake.url}/ephemeral/1.json"
    assert len(client.get(url).body) == BODY_CAP
    with pytest.raises(Unacceptable) as caught:
        client.get(url)
    assert (caught.value.reason, caught.value.raw) == (Reason.TOO_LARGE, b"x" * KEPT)
    assert client.get(url).body == b"fine"


def test_body_without_end_is_left_when_the_cap_is_reached(fake):
    def endless():
        while True:
            yield b"x" * 65536

    fake.script(1, Reply(stream=endless))
    began = time.monotonic()
    with pytest.raises(Unacceptable, match="TOO_LARGE"):
        get(fake)
    assert time.monotonic() - began < LIMIT / 2  # and not at the deadline


# Other questions, and files


def test_any_status_is_an_answer_with_its_headers_to_who_asks_so(fake):
    fake.script(1, Reply(b'{"error": "x"}', status=422, headers={"X-Ratelimit-Remaining": "7"}), Reply(status=304))
    client = Client("tests", LIMIT)
    answer = client.ask("GET", f"{fake.url}/ephemeral/1.json", headers={"If-None-Match": '"a"'})
    assert (answer, answer.headers["x-ratelimit-remaining"]) == (Answer(422, b'{"error": "x"}'), "7")
    assert client.ask("GET", f"{fake.url}/ephemeral/1.json").status == 304
    assert (fake.headers[0]["If-None-Match"], fake.connections) == ('"a"', 1)


def test_redirect_is_an_answer_that_is_not_followed(fake):
    fake.script(1, Reply(status=302, headers={"Location": f"{fake.url}/ephemeral/2.json"}))
    assert Client("tests", LIMIT).ask("GET", f"{fake.url}/ephemeral/1.json").status == 302
    assert fake.asked == ["1"]


def test_refused_answer_beyond_the_cap_keeps_its_status_and_loses_its_body(fake):
    fake.script(1, Reply(b"x" * 11, status=500), Reply(b"x" * 11))
    client = Client("tests", LIMIT, cap=10)
    assert client.ask("GET", f"{fake.url}/ephemeral/1.json") == Answer(500, b"")
    with pytest.raises(Unacceptable, match="exceeds 10 bytes"):
        client.ask("GET", f"{fake.url}/ephemeral/1.json")


def test_question_may_have_less_time_than_its_client(fake):
    fake.script(1, Reply(silent_for=30))
    began = time.monotonic()
    with pytest.raises(UpstreamUnreachable, match="no complete answer within 0 s"):
        Client("tests", LIMIT).ask("GET", f"{fake.url}/ephemeral/1.json", within=0.3)
    assert 0.2 < time.monotonic() - began < 25  # and not 30


def test_file_is_written_as_it_comes_and_its_size_told(fake, tmp_path):
    fake.script(1, Reply(b"x" * 20_000, headers={"ETag": '"b"'}), Reply(b"gone", status=404), Reply(b"x" * 20_001))
    client, url, told = Client("tests", LIMIT, cap=20_000), f"{fake.url}/ephemeral/1.json", []
    with (tmp_path / "file").open("wb") as file:
        answer = client.download(url, file, told=lambda *bytes_: told.append(bytes_))
        assert (answer, answer.headers["etag"], told[-1]) == (Answer(200, b""), '"b"', (20_000, 20_000))
        assert client.download(url, file) == Answer(404, b"gone")
        assert file.tell() == 20_000
        with pytest.raises(Unacceptable, match="exceeds 20000 bytes"):
            client.download(url, file)


def test_file_cut_short_is_no_answer(fake, tmp_path):
    fake.script(1, Reply(b"x" * 10, declared=20))
    with (tmp_path / "file").open("wb") as file, pytest.raises(UpstreamUnreachable):
        Client("tests", LIMIT).download(f"{fake.url}/ephemeral/1.json", file)


# Retry-After


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0661\u0662", None),
        ("Fri, 99 Foo 2026 99:99:99 GMT", None),
        ("0", 0.0),
        ("5", 5.0),
        (" 37 ", 37.0),
        ("86400", 86400.0),
        ("86401", 86400.0),
        ("9" * 400, 86400.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 86400.0),
    ],
)
def test_retry_after_is_seconds_up_to_a_day_or_nothing(value, seconds):
    assert retry_after(value) == seconds


def test_retry_after_as_a_date_is_the_seconds_until_then():
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=90)
    seconds = retry_after(format_datetime(until, usegmt=True))
    assert (until - datetime.now(UTC)).total_seconds() <= seconds <= 90


def test_addresses_that_do_not_answer_share_the_time(monkeypatch):
    """urllib3 gives each address of a name the whole time; a name may have many."""
    addresses = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in range(3)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: addresses)
    waited = []

    def slow(self, address):
        waited.append(self.gettimeout())
        time.sleep(self.gettimeout())
        raise TimeoutError

    monkeypatch.setattr(socket.socket, "connect", slow)
    with pytest.raises(UpstreamUnreachable):
        Client("tests", 0.9).get("http://name.example/")
    assert len(waited) == 3
    assert sum(waited) < 1.2  # and not 0.9 for each
