"""Names of who and what killmails name: asked of ESI before a killmail is stored, and filled afterwards.

Whatever lacks a name can be found in the database, by itself and by the killmails that wait for it, so that nothing is
lost with a message or a process. Two fillers at once share the work.
"""

import logging
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from datetime import timedelta

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from killmails.errors import Unacceptable, UpstreamError
from killmails.ingest.store import publish_filled
from killmails.models import (
    Alliance,
    Character,
    Corporation,
    Entity,
    Faction,
    InventoryType,
    SolarSystem,
    UnfilledKillmail,
)
from killmails.models.entities import Filled
from killmails.records import KillmailRecord
from killmails.upstream.esi import Esi, Name, Names

logger = logging.getLogger(__name__)

PATIENCE = 2.0  # seconds that a killmail waits for its names
BREAK = 10.0  # seconds in which no killmail waits, after ESI was away or too slow
FRESH = 120.0  # seconds since its upload; whoever catches up has the filler ask for a thousand at once
AT_ONCE = 1_000  # ids in a question
# That a turn of the filler may cost, and all killmails of a minute together: all workers may have ninety in it.
REFUSALS = 20
MINUTE = 60.0
REFUSED_AT_ONCE = 10  # of those that ESI did not know: it allows 100 refusals in a minute, and counts all halves
TURN = 10.0  # seconds of work before the next task may run
CLAIMED = timedelta(seconds=60)  # for so long nobody else asks for the same
FIRST_AGAIN, LONGEST_AGAIN = 60, 86_400  # seconds until ESI is asked again for what it did not know
HOPELESS = 14  # refusals, after about five days: no killmail waits any more
OLD = timedelta(days=30)  # names are asked for again: corporations and characters are renamed now and then

# ESI's categories, in the order in which a storing transaction locks the tables.
MODELS: dict[str, type[Entity]] = {
    "alliance": Alliance,
    "character": Character,
    "corporation": Corporation,
    "faction": Faction,
    "inventory_type": InventoryType,
    "solar_system": SolarSystem,
}
MAY_BE_ASKED = Q(fill_not_before=None) | Q(fill_not_before__lte=Now())

Ids = dict[str, list[int]]  # by category


class NameAsker:
    """For one follower of the feed: the names on a killmail that is about to be stored."""

    def __init__(self, esi: Esi | None) -> None:
        """`esi`: None where there is none, and nothing is asked."""
        self._esi = esi
        self._closed_until = 0.0
        self._minute_ends, self._refusals_left = 0.0, REFUSALS

    def ask(self, record: KillmailRecord) -> None:
        """Takes two seconds at most, and none for a while after ESI failed: the filler notices its return."""
        stale = time.time() - (record.uploaded_at or 0) > FRESH
        if self._esi is None or stale or time.monotonic() < self._closed_until:
            return
        wanted = _unknown(record)
        asked = _by_id(wanted)
        if not asked or not self._refusals_left_now():
            return
        try:
            names = self._esi.fetch_names(asked, PATIENCE, self._refusals_left)
        except (UpstreamError, Unacceptable) as error:
            self._break(error)
            return
        self._refusals_left -= names.refused
        refused = _refused(names, asked)
        write_names(names)
        # The next killmail of the same fight is not to ask for them: each makes ESI refuse the whole question.
        for category, model in MODELS.items():
            rows = [model(id=id_) for id_ in wanted.get(category, ()) if id_ in refused]
            model.objects.bulk_create(rows, ignore_conflicts=True)
        _put_off(wanted, refused)
        if names.cut_short_by:
            self._break(names.cut_short_by)

    def _refusals_left_now(self) -> int:
        """A fight of pilots whom ESI does not know would else spend those of all workers, a few with each killmail."""
        now = time.monotonic()
        if now >= self._minute_ends:
            self._minute_ends, self._refusals_left = now + MINUTE, REFUSALS
        return self._refusals_left

    def _break(self, error: Exception) -> None:
        logger.warning("ESI did not tell all names (%s); killmails do not wait for it for %.0f s.", error, BREAK)
        self._closed_until = time.monotonic() + BREAK


def _unknown(record: KillmailRecord) -> Ids:
    """Who is on it, is not named, and may be asked for."""
    everybody = [record.victim, *record.attackers]
    unknown: Ids = {}
    for category in ("alliance", "character", "corporation"):
        ids = {getattr(one, f"{category}_id") for one in everybody} - {None}
        known = MODELS[category].objects.filter(Q(name__isnull=False) | ~MAY_BE_ASKED, pk__in=ids)
        unknown[category] = sorted(ids - set(known.values_list("pk", flat=True)))
    return unknown


def _by_id(ids: Ids) -> dict[int, str]:
    return {id_: category for category, of_category in ids.items() for id_ in of_category}


def _refused(names: Names, asked: dict[int, str]) -> set[int]:
    """Those that ESI does not know; with them those that it told of another category, whose names are not believed."""
    misfits = {id_ for id_, name in names.items() if name.category != asked[id_]}
    for id_ in misfits:
        del names[id_]
    return names.unknown | misfits


def write_names(names: Names) -> int:
    """Each in the table of its category. How many. Safe to run twice."""
    for category, model in MODELS.items():
        of_category = {id_: name for id_, name in names.items() if name.category == category}
        rows = [_row(model, id_, name) for id_, name in sorted(of_category.items())]
        columns = ["name", "fill_tries", "fill_not_before", *(["filled_at"] if issubclass(model, Filled) else [])]
        model.objects.bulk_create(
            rows, batch_size=AT_ONCE, update_conflicts=True, update_fields=columns, unique_fields=["id"]
        )
    return len(names)


def _row(model: type[Entity], id_: int, name: Name) -> Entity:
    also = {"filled_at": Now()} if issubclass(model, Filled) else {}
    return model(id=id_, name=name.name, **also)


# The filler


def fill_names(esi: Esi) -> int:
    """Asks for what lacks a name, those first for whom most killmails wait; publishes killmails whose names have come.

    How many names came. Logs what goes wrong: the next turn tries again.
    """
    ends_at, filled = time.monotonic() + TURN, 0
    try:
        whole = True
        while whole and time.monotonic() < ends_at and (claimed := _claim(Q(fill_tries=0), AT_ONCE)):
            more, whole = _fill(esi, claimed, ends_at - time.monotonic())
            filled += more
        if whole and time.monotonic() < ends_at and (claimed := _claim(Q(fill_tries__gt=0), REFUSED_AT_ONCE)):
            filled += _fill(esi, claimed, ends_at - time.monotonic())[0]
    except (UpstreamError, Unacceptable) as error:
        logger.warning("ESI gives no names; asked again with the next turn: %s", error)
    published = sum(publish_filled(id_, before, now) for id_, before, now in _changed())
    if filled or published:
        logger.info("%d names filled, %d killmails published again.", filled, published)
    return filled


def _fill(esi: Esi, claimed: Ids, seconds: float) -> tuple[int, bool]:
    """How many names came, and whether ESI has answered for all."""
    asked = _by_id(claimed)
    try:
        names = esi.fetch_names(asked, seconds, REFUSALS)
    except (UpstreamError, Unacceptable):
        _release(claimed, asked)
        raise
    refused = _refused(names, asked)
    write_names(names)
    _put_off(claimed, refused)
    _release(claimed, asked.keys() - names.keys() - refused)
    return len(names), names.cut_short_by is None


def _claim(which: Q, room: int) -> Ids:
    """Up to so many ids that nobody else asks for, for the next minute: first those for whom most killmails wait."""
    claimed: Ids = {}
    popular = _popular(which)[:room]
    for category, model in MODELS.items():
        wanted = [id_ for its, id_ in popular if its == category]
        claimed[category] = _take(model, model.objects.filter(which, name=None, pk__in=wanted), room) if wanted else []
        room -= len(claimed[category])
    for category, model in MODELS.items():
        more = _take(model, model.objects.filter(which, name=None), room)
        room -= len(more)
        claimed[category] += more
        if issubclass(model, Filled):
            old = _take(model, model.objects.filter(which, filled_at__lt=Now() - OLD), room)
            room -= len(old)
            claimed[category] += old
    return {category: ids for category, ids in claimed.items() if ids}


def _popular(which: Q) -> list[tuple[str, int]]:
    """Category and id of those for whom the newest killmails wait and who may be asked for, most wanted first."""
    waiting: Counter[tuple[str, int]] = Counter()
    for missing in UnfilledKillmail.objects.order_by("-pk").values_list("missing", flat=True)[:AT_ONCE]:
        waiting.update((category, id_) for category, ids in missing.items() for id_ in ids)
    due: set[tuple[str, int]] = set()
    for category, model in MODELS.items():
        if ids := [id_ for its, id_ in waiting if its == category]:
            free = model.objects.filter(MAY_BE_ASKED, which, name=None, pk__in=ids)
            due.update((category, id_) for id_ in free.values_list("pk", flat=True))
    return [key for key, _ in waiting.most_common() if key in due]


def _take(model: type[Entity], rows: QuerySet, room: int) -> list[int]:
    if room <= 0:
        return []
    with transaction.atomic():
        free = rows.filter(MAY_BE_ASKED).order_by(F("fill_not_before").asc(nulls_first=True))
        ids = list(free.select_for_update(skip_locked=True).values_list("pk", flat=True)[:room])
        model.objects.filter(pk__in=ids).update(fill_not_before=Now() + CLAIMED)
    return ids


def _release(claimed: Ids, ids: Collection[int]) -> None:
    for category, all_ids in claimed.items():
        of_category = [id_ for id_ in all_ids if id_ in ids]
        MODELS[category].objects.filter(pk__in=of_category).update(fill_not_before=None)


def _put_off(claimed: Ids, ids: Collection[int]) -> None:
    """ESI does not know them: a new pilot for an hour or so. Asked again after 1, 2, 4 … minutes, in the end daily."""
    for category, all_ids in claimed.items():
        rows = MODELS[category].objects.filter(pk__in=[id_ for id_ in all_ids if id_ in ids])
        by_tries: dict[int, list[int]] = {}
        for id_, tries in rows.values_list("pk", "fill_tries"):
            by_tries.setdefault(tries, []).append(id_)
        for tries, of_tries in by_tries.items():
            wait = timedelta(seconds=min(LONGEST_AGAIN, FIRST_AGAIN * 2 ** min(tries, 20)))
            rows.filter(pk__in=of_tries).update(fill_tries=min(tries + 1, 1000), fill_not_before=Now() + wait)


def _changed() -> Iterator[tuple[int, Ids, Ids]]:
    """Killmails to publish again, with what they lacked and what they lack still.

    As soon as all names are there, or all that ESI knows: of the others nobody can tell when they come.
    """
    last = 0
    while page := list(UnfilledKillmail.objects.filter(pk__gt=last).order_by("pk")[:AT_ONCE]):
        last = page[-1].pk
        tries = _unnamed(row.missing for row in page)
        for row in page:
            left = {category: [id_ for id_ in ids if id_ in tries] for category, ids in row.missing.items()}
            left = {category: ids for category, ids in left.items() if ids}
            fewest = min((tries[id_] for id_ in _by_id(left)), default=1)
            if left != row.missing and fewest > 0:
                yield row.pk, row.missing, left
            elif left == row.missing and fewest >= HOPELESS:
                UnfilledKillmail.objects.filter(pk=row.pk, missing=left).delete()


def _unnamed(missing: Iterable[Ids]) -> dict[int, int]:
    """Those of these ids that have no name, and how often in a row ESI did not know them."""
    wanted: dict[str, set[int]] = {}
    for one in missing:
        for category, ids in one.items():
            wanted.setdefault(category, set()).update(ids)
    tries: dict[int, int] = {}
    for category, all_ids in wanted.items():
        tries |= dict(MODELS[category].objects.filter(pk__in=all_ids, name=None).values_list("pk", "fill_tries"))
    return tries
