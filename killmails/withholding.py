"""When a withheld killmail is published: by the wishes of all who brought it.

Of several, the first who lets it be published decides: each of them could publish it anywhere.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta

from django.db.models import F

from killmails.models import PendingKillmail, PendingOwner, Publication

AT_ONCE = 1000
WITHHELD = PendingKillmail.State.WITHHELD


def schedule(ids: Iterable[int]) -> None:
    """When withheld ones are published, by the wishes of all who brought them."""
    rows = PendingKillmail.objects.filter(pk__in=list(ids), state=WITHHELD)
    by_delay: dict[int, list[int]] = defaultdict(list)
    for id_, delay in delays(rows.values_list("pk", flat=True)).items():
        by_delay[delay].append(id_)
    for delay, of_delay in by_delay.items():
        rows.filter(pk__in=of_delay, public=False).update(due_at=F("time") + timedelta(hours=delay))
    published = [id_ for of_delay in by_delay.values() for id_ in of_delay]
    rows.filter(public=False).exclude(pk__in=published).update(due_at=None)


def schedule_all(user_id: int) -> None:
    """The user wishes otherwise now."""
    ids = list(PendingKillmail.objects.withheld_of(user_id).order_by("pk").values_list("pk", flat=True))
    for first in range(0, len(ids), AT_ONCE):
        schedule(ids[first : first + AT_ONCE])


def delays(ids: Iterable[int]) -> dict[int, int]:
    """Hours after the loss, of those that may be published at all."""
    owners = dict[int, set[int]]()
    for id_, user_id in PendingOwner.objects.filter(pending__in=list(ids)).values_list("pending_id", "user_id"):
        owners.setdefault(id_, set()).add(user_id)
    users = {user_id for its in owners.values() for user_id in its}
    wishes = dict(Publication.objects.filter(user__in=users, publish=True).values_list("user_id", "delay_hours"))
    hours = {id_: [wishes[user_id] for user_id in its if user_id in wishes] for id_, its in owners.items()}
    return {id_: min(its) for id_, its in hours.items() if its}
