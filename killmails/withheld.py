"""Withheld killmails for those who brought them: as killmails that stand in no table of killmails."""

import json
import logging
import zlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from killmails.columns import attackers_of, told_columns, value_columns
from killmails.errors import Unacceptable
from killmails.loading import ATTACKER_ROWS, Bodies, load
from killmails.models import Attacker, Killmail, PendingKillmail
from killmails.models.places import read_places
from killmails.records import KillmailRecord, parse_fetched
from killmails.valuation import valuate

logger = logging.getLogger(__name__)


def record_of(row: PendingKillmail) -> KillmailRecord:
    """The record of a withheld killmail. Raises Unacceptable."""
    return parse_fetched(zlib.decompress(bytes(row.deflated or b"")), datetime.now(UTC))


def _record_or_none(row: PendingKillmail) -> KillmailRecord | None:
    """None where the rules have become stricter since: it is refused when it is to be published."""
    try:
        return record_of(row)
    except Unacceptable as error:
        logger.warning("Withheld killmail %d cannot be shown: %s", row.killmail_id, error.reason)
        return None


def load_withheld(rows: Sequence[PendingKillmail], fields: Iterable[str]) -> list[Killmail]:
    """The killmails of these rows, in their order, with what GraphQL's `fields` ask for; never to be saved.

    As many queries for one as for a hundred.
    """
    known = [(row, record) for row in rows if (record := _record_or_none(row))]
    if not known:
        return []
    records = [record for _, record in known]
    bodies: Bodies = {record.killmail_id: json.loads(record.raw)["esi"] for record in records}
    valuations = valuate(bodies)
    places = {place.solar_system_id: place for place in read_places({record.solar_system_id for record in records})}
    killmails = []
    for row, record in known:
        columns: dict[str, Any] = {
            **told_columns(record),
            **(places[record.solar_system_id]._asdict() if record.solar_system_id in places else {}),
            **value_columns(valuations[record.killmail_id]),
            "location_id": row.location_id,
        }
        killmails.append(_with_attackers(Killmail(pk=record.killmail_id, **columns), record))
    return load(killmails, {*fields, ATTACKER_ROWS}, bodies=bodies)


def _with_attackers(killmail: Killmail, record: KillmailRecord) -> Killmail:
    """As if they had been read ahead."""
    rows = Attacker.objects.none()
    rows._result_cache = attackers_of(record)
    rows._prefetch_done = True
    killmail._prefetched_objects_cache = {"attackers": rows}
    return killmail
