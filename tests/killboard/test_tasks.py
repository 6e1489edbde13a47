"""What is over is forgotten: sessions, API tokens, locks."""

from datetime import timedelta

import pytest
from axes.models import AccessAttempt
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.db.models.functions import Now
from django.utils import timezone

from killboard.celery import app
from killboard.tasks import forget_sessions
from killmails import accounts
from killmails.models import ApiToken

pytestmark = pytest.mark.django_db


def test_what_is_over_goes_and_the_rest_stays():
    now = timezone.now()
    for key, hours in (("old", -1), ("new", 1)):
        Session.objects.create(session_key=key, session_data="", expire_date=now + timedelta(hours=hours))
    user = User.objects.create(username="somebody")
    kept = accounts.new_api_token(user.pk, "kept")
    accounts.new_api_token(user.pk, "over")
    ApiToken.objects.filter(name="over").update(expires_at=Now() - timedelta(seconds=1))
    for name, days in (("long ago", 2), ("today", 0)):
        AccessAttempt.objects.create(username=name, failures_since_start=5)
        AccessAttempt.objects.filter(username=name).update(attempt_time=now - timedelta(days=days))
    forget_sessions()
    assert list(Session.objects.values_list("pk", flat=True)) == ["new"]
    assert accounts.authenticate(kept).user_id == user.pk
    assert ApiToken.objects.count() == 1
    assert list(AccessAttempt.objects.values_list("username", flat=True)) == ["today"]


def test_everything_that_beat_asks_for_is_a_task():
    app.loader.import_default_modules()
    asked = {entry["task"] for entry in app.conf.beat_schedule.values()}
    assert asked <= set(app.tasks)
    assert "killboard.tasks.forget_sessions" in asked
