"""Asking for work: rows in the database, and a message that there are some.

The message may be lost: a sweeper looks each quarter of a minute. It is sent by a thread of its own, since a broker
that hangs must not hold up a request.
"""

import logging
import threading
from datetime import timedelta

from celery import current_app
from django.db import transaction
from django.db.models import F, Q, SmallIntegerField, Value
from django.db.models.functions import Greatest, Least, Now

from killmails.models import Killmail, KillmailSync, PendingKillmail, Priority

logger = logging.getLogger(__name__)

WORK = "killmails.tasks.work_on_esi"
PUBLISH = "killmails.tasks.publish_withheld"
RECENT = timedelta(minutes=5)  # a list that was read since then is not queued again without `force`

_sending = {task: threading.Lock() for task in (WORK, PUBLISH)}
_rung = True  # the last one


def ring(task: str = WORK) -> None:
    """After the commit, and without waiting. One message at a time: whoever gets it works until all is done."""
    transaction.on_commit(lambda: _ring(task))


def _ring(task: str) -> None:
    if _sending[task].acquire(blocking=False):
        threading.Thread(target=_send, args=[task], name="ring-workers", daemon=True).start()


def _send(task: str) -> None:
    global _rung  # noqa: PLW0603
    try:
        current_app.send_task(task, retry=False, ignore_result=True)
        _rung = True
    except Exception as error:  # noqa: BLE001  (each transport has its own; the sweeper finds the work)
        _rung = False
        logger.warning("Workers could not be told of new work (%s); the sweeper will.", type(error).__name__)
    finally:
        _sending[task].release()


def wait_until_rung() -> bool:
    """For who ends after this: whether the workers were told."""
    with _sending[WORK]:
        return _rung


def queue_lists(which: Q, priority: Priority, *, force: bool = False, full: bool = False) -> list[KillmailSync]:
    """Has these lists read: those that are read at all, and not just now. Which ones.

    `force`: those as well that were just read, or are off. Nothing is asked before ESI's last answer has expired.
    `full`: from the first page to the last, whatever is known.
    """
    rows = KillmailSync.objects.filter(which)
    if not force:
        rows = rows.exclude(state=KillmailSync.State.OFF)
        rows = rows.filter(Q(last_run_at=None) | Q(last_run_at__lt=Now() - RECENT))
    found = list(rows.order_by("kind", "eve_id"))
    chosen = KillmailSync.objects.filter(pk__in=[row.pk for row in found])
    columns = {"priority": Least(F("priority"), Value(int(priority), SmallIntegerField())), "changed_at": Now()}
    with transaction.atomic():
        chosen.filter(not_before=None).update(due_at=Now(), **columns)
        chosen.exclude(not_before=None).update(due_at=Greatest(Now(), "not_before"), **columns)
        if full:
            chosen.update(full=True, next_page=1, newest_on_the_way=0)
        ring()
    return found


def ensure_list(kind: KillmailSync.Kind, eve_id: int, priority: Priority) -> None:
    """Somebody with the right to read it has logged in: it is read now, and from now on."""
    KillmailSync.objects.bulk_create([KillmailSync(kind=kind, eve_id=eve_id)], ignore_conflicts=True)
    rows = KillmailSync.objects.filter(kind=kind, eve_id=eve_id)
    rows.filter(state=KillmailSync.State.OFF).update(state=KillmailSync.State.WAITING, reason="")
    # However lately it was read: a run that is under way with the old rights is not to turn it off.
    queue_lists(Q(kind=kind, eve_id=eve_id), priority, force=True)


STORED, QUEUED, REFUSED = "STORED", "QUEUED", "REFUSED"


def queue_killmail(killmail_id: int, hash_: str, priority: Priority) -> str:
    """Has a killmail fetched that somebody knows the hash of ("": zKillboard is asked). STORED, QUEUED or REFUSED.

    One that is withheld is treated as any other: who knows its hash could read it at ESI.
    """
    if Killmail.objects.filter(pk=killmail_id).exists():
        return STORED
    with transaction.atomic():
        row = PendingKillmail(killmail_id=killmail_id, hash=hash_, priority=priority, public=True)
        PendingKillmail.objects.bulk_create([row], ignore_conflicts=True)
        same = PendingKillmail.objects.filter(killmail_id=killmail_id, hash=hash_)
        if same.filter(state=PendingKillmail.State.REFUSED).exists():
            return REFUSED
        same.filter(state=PendingKillmail.State.WITHHELD).update(due_at=Now())
        same.update(public=True)
        same.filter(priority__gt=priority).update(priority=priority)
        ring()
    return QUEUED


def why_refused(killmail_id: int, hash_: str) -> str:
    """In words; "" where it was not."""
    rows = PendingKillmail.objects.filter(killmail_id=killmail_id, hash=hash_)
    return rows.values_list("reason", flat=True).first() or ""
