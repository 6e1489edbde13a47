"""What the tests of the feed share."""

import pytest

from killmails.ingest import feed
from killmails.upstream import zkillboard
from tests.fake_r2z2 import FakeR2Z2


@pytest.fixture
def fake(monkeypatch):
    """The upstream that misbehaves as it is told."""
    # The test's own transaction lives on the connection that a step would give back.
    monkeypatch.setattr(feed, "close_old_connections", lambda: None)
    monkeypatch.setattr(zkillboard, "PACE", 0.0)  # test_zkillboard looks at the pace
    with FakeR2Z2() as fake:
        yield fake
