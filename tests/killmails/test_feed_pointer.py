"""sequence.json that tells no sequence that we could believe: the case F20, over real HTTP."""

import logging

import pytest

from tests.builders import counts, raw_package
from tests.feeding import feed_at, let_pass, place, silence, steps

pytestmark = pytest.mark.django_db

BAD_POINTERS = [
    b'{"sequence":"abc"}', b'{"sequence":-5}', b'{"sequence":0}', b'{"sequence":1.5}', b'{"sequence":true}', b"{}",
    b"[]", b"<html>", b"", b'{"sequence":99999999999999999999999}', b'{"sequence":NaN}', b"9" * 6_000_000,
]  # fmt: skip


@pytest.mark.parametrize("pointer", BAD_POINTERS, ids=lambda pointer: repr(pointer[:30]))
def test_f20_pointer_that_is_none_starts_nothing(fake, caplog, pointer):
    fake.point(pointer)
    feed = feed_at(None, fake.url)
    feed.step()
    assert (place(), counts()) == ((None, 0, 0), {})
    assert silence() == 6.0
    assert errors(caplog) == 1
    let_pass(6)
    fake.point(700)
    feed.step()
    assert place() == (700, 0, 0)


@pytest.mark.parametrize("pointer", [*BAD_POINTERS, b'{"sequence":9000000}'], ids=lambda pointer: repr(pointer[:30]))
def test_f20_pointer_that_is_none_or_far_behind_leaves_the_cursor_and_complains_once(fake, caplog, pointer):
    fake.point(pointer)
    feed = feed_at(10_000_000, fake.url)
    for _ in range(4):
        steps(feed, 1, apart=61)
        assert (place(), counts()) == ((10_000_000, 0, 0), {})
    assert fake.asked.count("sequence") >= 2
    assert errors(caplog) == 1
    fake.put(10_000_000, raw_package(10_000_000))
    feed.step()
    assert place() == (10_000_001, 0, 0)


def errors(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.levelno >= logging.ERROR for record in caplog.records)
