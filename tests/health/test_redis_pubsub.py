"""test_redis_pubsub where it cannot do its work: one line that says why. What it hears: tests/e2e/test_guide.py."""

import pytest
from django.core.management import CommandError, call_command

from health.management.commands import test_redis_pubsub as command
from tests.health.doorbell_server import configured
from tests.services import Redis
from tests.services.service import free_port


def refused(url, *options):
    with configured(url), pytest.raises(CommandError) as caught:
        call_command("test_redis_pubsub", *options)
    assert caught.value.returncode == 1
    return str(caught.value)


@pytest.mark.parametrize("options", [[], ["--publish"]])
def test_board_without_redis_is_told_that_nothing_could_arrive(options):
    assert refused("", *options) == "This board uses no Redis (REDIS_URL, USE_REDIS_PUBSUB): nothing could arrive here."


def test_redis_that_is_away_is_named_without_its_password():
    port = free_port()
    text = refused(f"redis://bob:hunter2@127.0.0.1:{port}", "--publish")
    assert text == f"Redis at 127.0.0.1:{port} does not answer (ConnectionError): see diagnose_redis."


@pytest.mark.services
def test_redis_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(command, "PUBLISH_LIMIT", 0.5)
    with Redis() as redis:
        redis.pause()
        assert refused(redis.url, "--publish").endswith("does not answer (TimeoutError): see diagnose_redis.")
        redis.resume()
