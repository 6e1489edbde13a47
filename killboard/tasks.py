"""Celery tasks about the pages: what browsers left behind."""

from datetime import timedelta

from axes.models import AccessAttempt
from celery import shared_task
from django.conf import settings
from django.contrib.sessions.backends.db import SessionStore
from django.db.models.functions import Now

from killmails.accounts import forget_expired_tokens, forget_ownerless

KEPT = timedelta(days=1)  # of attempts that lock nobody out any more


@shared_task
def forget_sessions() -> None:
    """Sessions, API tokens, locks and withheld killmails that are nobody's any more. Queued each hour."""
    SessionStore.clear_expired()
    forget_expired_tokens()
    forget_ownerless()
    AccessAttempt.objects.filter(attempt_time__lt=Now() - settings.AXES_COOLOFF_TIME - KEPT).delete()
