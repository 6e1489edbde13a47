"""Patience for all tests here: on a machine that stalls for some seconds, no limit of the board's own strikes.

A test of a limit sets it by itself.
"""

import pytest

from realtime import consumer, endpoint, hub, outbox

PATIENT = 60.0  # seconds


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "INIT_LIMIT", PATIENT)
    monkeypatch.setattr(consumer, "CLOSE_LIMIT", PATIENT)
    monkeypatch.setattr(endpoint, "ANSWER_LIMIT", PATIENT)
    monkeypatch.setattr(hub, "START_LIMIT", PATIENT)
    monkeypatch.setattr(outbox, "SEND_LIMIT", PATIENT)
