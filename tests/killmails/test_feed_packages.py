"""What the feed does with packages that are broken or too large: the cases F3 to F8 and F16, over real HTTP."""

import gzip
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from killmails.models import Killmail, RejectedKillmail
from tests.builders import ROOT, counts, package, raw_package
from tests.fake_r2z2 import FakeR2Z2, Reply, gzip_bomb
from tests.feeding import (
    at_rest,
    cursor,
    expect_next_stored,
    expect_quarantine,
    expect_stored,
    feed_at,
    let_pass,
    silence,
)

pytestmark = pytest.mark.django_db
MIB = 1024 * 1024


# Not JSON


def test_f3_html_is_asked_for_three_times_and_then_quarantined(fake):
    html = b"<!DOCTYPE html><html><title>Just a moment...</title></html>"
    expect_quarantine(fake, html, "NOT_JSON", "HTML", tries=3)


def test_f3_html_that_was_only_passing_costs_nothing(fake):
    fake.script(5, Reply(b"<html>"), Reply(b"<html>"), Reply(raw_package(5)))
    feed = feed_at(5, fake.url)
    for _ in range(3):
        feed.step()
        let_pass(6)
    assert at_rest(6)
    assert "RejectedKillmail" not in counts()
    assert Killmail.objects.get().pk == 1005


@pytest.mark.parametrize("body", [b"", b" \r\n\t", b"[]", b"null", b'"killmail"', b"7"])
def test_f4_body_without_an_object_is_asked_for_three_times_and_then_quarantined(fake, body):
    expect_quarantine(fake, body, "NOT_JSON", tries=3)


def test_f5_truncated_json_is_asked_for_three_times_and_then_quarantined(fake):
    raw = raw_package(5)
    expect_quarantine(fake, raw[: len(raw) // 2], "BAD_JSON", tries=3)


def test_f6_body_shorter_than_declared_is_no_answer_and_the_cursor_stays(fake):
    raw = raw_package(5)
    fake.script(5, Reply(raw[:-1], declared=len(raw)), Reply(raw))
    feed = feed_at(5, fake.url)
    feed.step()
    assert (cursor().next_sequence, cursor().tries, counts()) == (5, 0, {})
    assert 6 <= silence() <= 6 * 1.3
    let_pass(8)
    feed.step()
    assert at_rest(6)
    assert Killmail.objects.get().package.raw() == raw


def test_f6_connection_that_ends_without_an_answer_leaves_the_cursor(fake):
    fake.script(5, Reply(hang_up=True), Reply(raw_package(5)))
    feed = feed_at(5, fake.url)
    feed.step()
    assert (cursor().next_sequence, cursor().tries, counts()) == (5, 0, {})
    assert 6 <= silence() <= 6 * 1.3
    let_pass(8)
    feed.step()
    assert at_rest(6)


def test_gzip_that_cannot_be_unpacked_is_asked_for_three_times_and_then_quarantined(fake):
    raw = gzip.compress(raw_package(5))
    fake.script(5, Reply(raw[:40] + b"\x00\xff" * 20 + raw[80:], headers={"Content-Encoding": "gzip"}))
    feed = feed_at(5, fake.url)
    for _ in range(3):
        feed.step()
        let_pass(60)
    assert at_rest(6)
    assert RejectedKillmail.objects.get().reason == "NOT_JSON"


# Too large


def test_f7_package_above_five_mebibytes_is_quarantined_at_once_with_its_first_mebibyte(fake):
    raw = b'{"sequence_id":5,"filler":"' + b"x" * (5 * MIB) + b'"}'
    fake.put(5, raw)
    fake.put(6, raw_package(6))
    feed = feed_at(5, fake.url)
    feed.step()
    assert at_rest(6)
    assert counts() == {"RejectedKillmail": 1}
    rejected = RejectedKillmail.objects.get()
    assert (rejected.sequence, rejected.reason) == (5, "TOO_LARGE")
    assert bytes(rejected.raw) == raw[:MIB]
    expect_next_stored(fake, feed)


def test_f7_package_of_almost_five_mebibytes_is_stored(fake):
    expect_stored(fake, package(5, filler="x" * (5 * MIB - 10_000)))


ASK_IN_A_PROCESS = """
import json, resource, sys, time
from killmails.errors import Unacceptable
from killmails.upstream.http import Client
import requests
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
client, before, began, found = Client("tests"), peak(), time.process_time(), None
try:
    if sys.argv[2] == "client":
        client.get(sys.argv[1])
    else:
        requests.get(sys.argv[1]).content
except Unacceptable as error:
    found = error.reason
print(json.dumps([found, time.process_time() - began, (peak() - before) / 1024]))
"""


def ask_in_a_process(url: str, how: str) -> tuple[str | None, float, float]:
    """What was found, the seconds of its own work, and by how many MiB the memory of a fresh process grew."""
    command = [sys.executable, "-c", ASK_IN_A_PROCESS, url, how]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, timeout=300)
    return tuple(json.loads(done.stdout))


def expect_left_early(fake: FakeR2Z2, coding: str, bomb: Callable[[], Iterator[bytes]]) -> None:
    fake.script(5, Reply(stream=bomb, headers={"Content-Encoding": coding}))
    found, seconds, grown = ask_in_a_process(f"{fake.url}/ephemeral/5.json", "client")
    assert found == "TOO_LARGE"
    assert seconds < 2
    assert grown < 64


def test_f7_gzip_bomb_of_ten_gigabytes_is_left_within_two_seconds_and_64_mebibytes(fake):
    expect_left_early(fake, "gzip", lambda: gzip_bomb(10_000 * MIB))


def test_f7_gzip_bomb_inside_gzip_is_left_as_early(fake):
    packed_twice = gzip.compress(b"".join(gzip_bomb(1_000 * MIB)))
    expect_left_early(fake, "gzip, gzip", lambda: iter([packed_twice]))


def test_f7_client_that_reads_a_bomb_to_its_end_is_seen_to_grow(fake):
    """Without this the two tests above might be blind."""
    fake.script(5, Reply(stream=lambda: gzip_bomb(200 * MIB), headers={"Content-Encoding": "gzip"}))
    found, _, grown = ask_in_a_process(f"{fake.url}/ephemeral/5.json", "plainly")
    assert found is None
    assert grown > 64


def test_f7_gzip_bomb_is_quarantined_and_the_feed_goes_on(fake):
    fake.script(5, Reply(stream=lambda: gzip_bomb(10_000 * MIB), headers={"Content-Encoding": "gzip"}))
    fake.put(6, raw_package(6))
    feed = feed_at(5, fake.url)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    feed.step()
    assert time.thread_time() - began < 2
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 64
    assert at_rest(6)
    rejected = RejectedKillmail.objects.get()
    assert (rejected.reason, bytes(rejected.raw)) == ("TOO_LARGE", b" " * MIB)
    expect_next_stored(fake, feed)


# JSON that goes beyond what we accept


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_f8_json_nested_100_000_deep_is_bad_json(fake, opening):
    closing = "]" if opening == "[" else "}"
    raw = raw_package(5)[:-1] + b',"deep":' + (opening * 100_000).encode() + b"1" + (closing * 100_000).encode() + b"}"
    expect_quarantine(fake, raw, "BAD_JSON", tries=3)


def test_f8_json_nested_33_deep_is_bad_json_and_32_deep_is_stored(fake):
    raw = raw_package(5)[:-1] + b',"deep":' + b"[" * 32 + b"]" * 32 + b"}"
    expect_quarantine(fake, raw, "BAD_JSON", "deeper than 32", tries=3)
    fake.put(7, raw_package(7)[:-1] + b',"deep":' + b"[" * 31 + b"]" * 31 + b"}")
    feed_at(7, fake.url).step()
    assert Killmail.objects.filter(pk=1007).exists()


@pytest.mark.parametrize(
    "addition",
    [
        b'"killmail_id":1005',
        b'"zzz":{"a":1,"a":1}',
        b'"zzz":NaN',
        b'"zzz":Infinity',
        b'"zzz":-Infinity',
        b'"zzz":1e400',
        b'"zzz":-1e400',
        b'"zzz":' + b"9" * 5000,
        b'"zzz":"\xff"',
        b'"zzz":"tab\tinside"',
        b'"zzz":01',
        b"\"zzz\":'single'",
    ],
)
def test_f16_what_pythons_reader_would_let_through_is_bad_json(fake, addition):
    expect_quarantine(fake, raw_package(5)[:-1] + b"," + addition + b"}", "BAD_JSON", tries=3)
