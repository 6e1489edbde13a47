"""Celery tasks: ids in, one call each. A message may be lost or come twice; the sweeper finds what is left over."""

import logging
from datetime import timedelta

from celery import current_app, shared_task
from django.db.models.functions import Now

from killmails.errors import Outrun, Unacceptable
from killmails.ingest.dead_letters import collect
from killmails.ingest.quarantine import replay
from killmails.models import RejectedKillmail

logger = logging.getLogger(__name__)

LEFT_OVER = timedelta(seconds=30)


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
    """Queues again what was queued half a minute ago and not done: its message was lost."""
    queued = RejectedKillmail.objects.filter(state=RejectedKillmail.State.QUEUED)
    for rejected_id in queued.filter(changed_at__lt=Now() - LEFT_OVER).values_list("pk", flat=True):
        # Once in each half minute, however long the queue is.
        if queued.filter(pk=rejected_id, changed_at__lt=Now() - LEFT_OVER).update(changed_at=Now()):
            replay_rejected.delay(rejected_id)


@shared_task
def collect_dead_letters() -> None:
    """Carries RabbitMQ's dead letters to the table that the admin shows."""
    app = current_app
    if app.conf.dead_letters is not None:
        with app.connection_for_read() as connection:
            queue = app.conf.dead_letters(connection.default_channel)
            collect(queue, frozenset(app.tasks), app.conf.most_deliveries)
