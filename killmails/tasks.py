"""Celery tasks: ids in, one call each. A message may be lost or come twice; the sweeper finds what is left over."""

import logging
import time
from datetime import timedelta

from celery import current_app, shared_task
from django.db.models.functions import Now

from killmails.errors import Outrun, Unacceptable
from killmails.ingest import details, names, prices
from killmails.ingest.dead_letters import collect
from killmails.ingest.esi import esi
from killmails.ingest.quarantine import replay
from killmails.models import RejectedKillmail
from killmails.universe.builds import watch_builds
from killmails.users.pending import forget_published, forget_refused, publish_due, schedule_left_over
from killmails.users.rounds import ROUND, go_round
from killmails.users.sso import site, sso

logger = logging.getLogger(__name__)

SWEEP = 15  # seconds, as beat's
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


@shared_task
def notice_static_data() -> None:
    """Tells the log of a newer build of CCP's static data. Queued each hour, asks CCP once in a day."""
    watch_builds()


@shared_task
def load_newest_prices() -> None:
    """The days since those that are loaded. Queued each hour."""
    prices.load_newest()


@shared_task
def fill_names() -> None:
    """Names, tickers and memberships that are not known, or old. Queued each quarter of a minute."""
    upstream = esi()
    if upstream is not None:
        names.fill_names(upstream)
        if details.fill_details(upstream):
            prices.revalue_newly_known()


@shared_task
def work_on_esi() -> None:
    """A round of what users' killmails need of ESI: what is most urgent then. Queued each quarter of a minute, too."""
    upstream = esi()
    if upstream is not None and go_round(upstream, sso(), site()):
        work_on_esi.apply_async(expires=SWEEP)  # beat begins another one then


@shared_task
def publish_withheld() -> None:
    """Publishes the killmails whose owners wanted them published by now. Queued each quarter of a minute, too."""
    ends_at = time.monotonic() + ROUND
    while publish_due():
        if time.monotonic() > ends_at:
            publish_withheld.apply_async(expires=SWEEP)
            break


@shared_task
def forget_what_is_public() -> None:
    """Pending killmails that nobody waits for any more; and whether a wish was overlooked. Queued each hour."""
    forget_published()
    forget_refused()
    schedule_left_over()
