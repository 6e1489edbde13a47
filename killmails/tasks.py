"""Celery tasks: ids in, one call each. A message may be lost or come twice; the sweeper finds what is left over."""

import logging
from datetime import timedelta

from celery import shared_task
from django.db.models.functions import Now

from killmails.errors import Outrun, Unacceptable
from killmails.ingest.quarantine import replay
from killmails.models import RejectedKillmail

logger = logging.getLogger(__name__)

LEFT_OVER = timedelta(minutes=1)


@shared_task
def replay_rejected(rejected_id: int) -> None:
    """Tries a quarantined package again."""
    try:
        replay(rejected_id)
    except Outrun as error:
        logger.info("%s", error)
    except Unacceptable as error:
        logger.warning("Quarantined package %d still cannot be accepted: %s", rejected_id, error)


@shared_task
def sweep_replays() -> None:
    """Queues again what was queued more than a minute ago and not done: its message was lost."""
    left_over = RejectedKillmail.objects.filter(state=RejectedKillmail.State.QUEUED, changed_at__lt=Now() - LEFT_OVER)
    for rejected_id in left_over.values_list("pk", flat=True):
        replay_rejected.delay(rejected_id)
