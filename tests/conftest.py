"""For all tests: nothing beyond this machine is asked, and the log has its head."""

import os
import socket
from typing import Any

import hypothesis
import pytest

# The same examples each time but with LONG=1, and none too slow: a busy machine is no fault of theirs.
hypothesis.settings.register_profile(
    "board",
    deadline=None,
    derandomize=os.environ.get("LONG") != "1",
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("board")


def make_log_head(**_: Any) -> None:
    """After each test with real transactions all tables are emptied; the log's head is made by a migration."""
    from killmails.models import LogHead

    LogHead.objects.get_or_create(pk=1)


def pytest_configure() -> None:
    from django.apps import apps
    from django.conf import settings
    from django.db.models.signals import post_migrate

    # What a password is hashed with is meant to be slow; the boards of the tests that are processes keep it.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    post_migrate.connect(make_log_head, sender=apps.get_app_config("killmails"))


LOOPBACK = ("127.", "::1", "localhost")


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuses every connection of this process to another machine."""
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and not str(address[0]).startswith(LOOPBACK):
            raise AssertionError(f"a test asked {address[0]}: only this machine may be asked")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
