"""What ESI tells besides names: tickers, who is where today, and what the static data does not know (yet)."""

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from django.db import transaction
from django.db.models import F, Q, QuerySet
from django.db.models.functions import Now

from killmails.errors import Unacceptable, UpstreamError
from killmails.ingest.names import MAY_BE_ASKED, REFUSALS, TURN
from killmails.models import (
    Alliance,
    Character,
    Constellation,
    Corporation,
    Entity,
    InventoryCategory,
    InventoryGroup,
    InventoryType,
    Region,
    SolarSystem,
)
from killmails.models.entities import Filled
from killmails.models.places import fill_places
from killmails.upstream.esi import Esi

logger = logging.getLogger(__name__)

CHARACTERS, OTHERS = 1_000, 20  # of which so many are asked for in a turn
CHARACTERS_OLD, OTHERS_OLD = timedelta(days=1), timedelta(days=7)
NPC_PILOTS = (3_000_000, 3_999_999)  # they are members of nothing that changes
FAILED_AGAIN = timedelta(seconds=30)
AGAIN = timedelta(hours=1)  # after what ESI does not know
# What a thing is, and where a system lies, all the way up: some of it may be what ESI could not tell.
TYPE_LACKS = Q(group__name=None) | Q(group__category__name=None)
SYSTEM_LACKS = Q(constellation__name=None) | Q(constellation__region__name=None)
Found = TypeVar("Found")


def fill_details(esi: Esi) -> bool:
    """The oldest first, a part in each turn. Logs what goes wrong: the next turn goes on with others.

    Whether types became known, by which killmails can be reckoned.
    """
    ends_at, types = time.monotonic() + TURN, 0
    try:
        _fill_each(Corporation, lambda id_: _fill_corporation(esi, id_), ends_at)
        _fill_each(Alliance, lambda id_: _fill_alliance(esi, id_), ends_at)
        types = _fill_types(esi, ends_at)
        _fill_solar_systems(esi, ends_at)
        _fill_members(esi, ends_at)
    except (UpstreamError, Unacceptable) as error:
        logger.warning("ESI gives no details; asked again with the next turn: %s", error)
    return types > 0


def _read(fetch: Callable[[int], Found | None], id_: int) -> Found | None:
    """What cannot be accepted is as good as unknown: it may not stand in the way of all others, turn after turn."""
    try:
        return fetch(id_)
    except Unacceptable as error:
        logger.warning("ESI's answer to %s(%d) cannot be accepted: %s", fetch.__name__, id_, error)
        return None


def _claim(model: type[Filled]) -> list[int]:
    """Those that are due, and are nobody else's for a while: whatever becomes of them, others come first next time."""
    number, old = (CHARACTERS, CHARACTERS_OLD) if model is Character else (OTHERS, OTHERS_OLD)
    due = model.objects.filter(Q(details_at=None) | Q(details_at__lt=Now() - old), name__isnull=False)
    if model is Character:
        due = due.exclude(pk__range=NPC_PILOTS)
    with transaction.atomic():
        due = due.order_by(F("details_at").asc(nulls_first=True)).select_for_update(skip_locked=True)
        ids = sorted(due.values_list("pk", flat=True)[:number])
        model.objects.filter(pk__in=ids).update(details_at=Now())
    return ids


def _fill_each(model: type[Filled], fill: Callable[[int], None], ends_at: float) -> None:
    """One after the other. Those that were not asked for are due again at once, and one that failed a little later:
    perhaps it is this one alone that fails.
    """
    waiting = _claim(model)
    try:
        while waiting and time.monotonic() < ends_at:
            one = waiting.pop()
            try:
                fill(one)
            except UpstreamError:
                model.objects.filter(pk=one).update(details_at=Now() - OTHERS_OLD + FAILED_AGAIN)
                raise
    finally:
        model.objects.filter(pk__in=waiting).update(details_at=None)


def _fill_members(esi: Esi, ends_at: float) -> None:
    ids = _claim(Character)
    if not ids:
        return
    left = set(ids)
    try:
        found = esi.fetch_affiliations(ids, max(1.0, ends_at - time.monotonic()), REFUSALS)
        left -= {one.character_id for one in found} | found.unknown
    finally:
        Character.objects.filter(pk__in=left).update(details_at=None)
    _provide(Alliance, (one.alliance_id for one in found))
    _provide(Corporation, (one.corporation_id for one in found))
    rows = [
        Character(id=one.character_id, corporation_id=one.corporation_id, alliance_id=one.alliance_id) for one in found
    ]
    Character.objects.bulk_update(sorted(rows, key=lambda row: row.pk), ["corporation", "alliance"], batch_size=250)


def _fill_corporation(esi: Esi, id_: int) -> None:
    if found := _read(esi.fetch_corporation, id_):
        _provide(Alliance, [found.alliance_id])
        Corporation.objects.filter(pk=id_).update(
            name=found.name, ticker=found.ticker, alliance=found.alliance_id, faction=found.faction_id
        )


def _fill_alliance(esi: Esi, id_: int) -> None:
    if found := _read(esi.fetch_alliance, id_):
        Alliance.objects.filter(pk=id_).update(name=found.name, ticker=found.ticker)


def _provide(model: type[Entity], ids: Any) -> None:
    """Rows, so that a reference has its row; the filler names them."""
    rows = [model(id=id_) for id_ in sorted({id_ for id_ in ids if id_ is not None})]
    model.objects.bulk_create(rows, ignore_conflicts=True)


def _fill_types(esi: Esi, ends_at: float) -> int:
    """Those whose group is not known: the static data does not have them. How many were asked for."""
    types = InventoryType.objects.filter(MAY_BE_ASKED, TYPE_LACKS, name__isnull=False)
    return _ask_each(lambda id_: _fill_type(esi, id_), types, ends_at)


def _fill_solar_systems(esi: Esi, ends_at: float) -> None:
    """Those of which it is not known where they lie."""
    systems = SolarSystem.objects.filter(MAY_BE_ASKED, SYSTEM_LACKS, name__isnull=False)
    if _ask_each(lambda id_: _fill_solar_system(esi, id_), systems, ends_at):
        fill_places()


def _ask_each(fill: Callable[[int], None], rows: QuerySet, ends_at: float) -> int:
    ids = list(rows.values_list("pk", flat=True)[:OTHERS])
    for number, id_ in enumerate(ids):
        if time.monotonic() >= ends_at:
            return number
        if rows.filter(pk=id_).exists():  # else one before it has put it off
            fill(id_)
    return len(ids)


def _fill_type(esi: Esi, id_: int) -> None:
    found = _read(esi.fetch_type, id_)
    row = InventoryType.objects.filter(pk=id_)
    if found is None:
        row.update(fill_not_before=Now() + AGAIN)
        return
    group = _read(esi.fetch_group, found.group_id)
    _provide(InventoryGroup, [found.group_id])
    if group:
        category = _read(esi.fetch_category_name, group.category_id)
        InventoryCategory.objects.update_or_create(
            pk=group.category_id, defaults={"name": category} if category else {}
        )
        InventoryGroup.objects.update_or_create(
            pk=found.group_id, defaults={"name": group.name, "category_id": group.category_id}
        )
    row.update(
        name=found.name,
        group=found.group_id,
        market_group=found.market_group_id,
        rig_size=found.rig_size,
        meta_level=found.meta_level,
        has_heat_damage=found.has_heat_damage,
    )
    # Its sisters as well: they would ask for the same in vain, and ESI counts that.
    sisters = InventoryType.objects.filter(TYPE_LACKS, group=found.group_id)
    sisters.update(fill_not_before=Now() + AGAIN)


def _fill_solar_system(esi: Esi, id_: int) -> None:
    found = _read(esi.fetch_solar_system, id_)
    row = SolarSystem.objects.filter(pk=id_)
    if found is None:
        row.update(fill_not_before=Now() + AGAIN)
        return
    constellation = _read(esi.fetch_constellation, found.constellation_id)
    _provide(Constellation, [found.constellation_id])
    if constellation:
        region = _read(esi.fetch_region_name, constellation.region_id)
        Region.objects.update_or_create(pk=constellation.region_id, defaults={"name": region} if region else {})
        Constellation.objects.update_or_create(
            pk=found.constellation_id, defaults={"name": constellation.name, "region_id": constellation.region_id}
        )
    row.update(name=found.name, constellation=found.constellation_id, security_status=found.security_status)
    sisters = SolarSystem.objects.filter(SYSTEM_LACKS, constellation=found.constellation_id)
    sisters.update(fill_not_before=Now() + AGAIN)
