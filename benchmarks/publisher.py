"""A worker process: stores invented killmails, as the feed's worker does, and says when each was committed."""

import asyncio
import os
from time import monotonic_ns

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "killboard.settings")
django.setup()  # first: the imports below need it

from django.db import transaction  # noqa: E402

from benchmarks.child import Answer, Failure, answer_requests  # noqa: E402
from benchmarks.operations import FIRST_PILOT, PILOTS, pilots_of  # noqa: E402
from killmails.ingest.store import Stored, store_killmail  # noqa: E402
from killmails.models import Alliance, Character, Corporation, LogHead  # noqa: E402
from killmails.records import KillmailRecord, parse_package  # noqa: E402
from killmails.universe.small import load_small_universe  # noqa: E402
from tests.builders import NOW, attacker, esi_body, raw_package  # noqa: E402

VICTIMS = {"corporation_id": 98_000_001, "alliance_id": 99_000_001}
ATTACKERS = {"corporation_id": 98_000_002, "alliance_id": 99_000_002}
SHIPS = (587, 603)  # a Rifter dies, Merlins attack


class Publisher:
    """Stores one killmail after the other; positions are dense, because nobody else writes."""

    def __init__(self) -> None:
        self.stored = 0

    async def answer(self, request: Answer) -> Answer:
        match request:
            case {"do": "prepare"}:
                return await asyncio.to_thread(self.prepare)
            case {"do": "publish", "events": events, "pool": pool}:
                return await asyncio.to_thread(self.publish, events, pool)
        raise Failure(f"what is {request}?")

    def prepare(self) -> Answer:
        """Names for all that the killmails mention, so that frames have the size that they have in life."""
        load_small_universe(invented=False)
        pilots = range(FIRST_PILOT, FIRST_PILOT + PILOTS)
        Character.objects.bulk_create(Character(id=id_, name=f"Benchmark Pilot {id_ - FIRST_PILOT}") for id_ in pilots)
        sides = ((VICTIMS, "Measured"), (ATTACKERS, "Measuring"))
        for side, name in sides:
            Corporation.objects.create(id=side["corporation_id"], name=f"{name} Corporation")
            Alliance.objects.create(id=side["alliance_id"], name=f"{name} Alliance")
        return {}

    def publish(self, events: int, pool: int) -> Answer:
        """Stores so many killmails in a row: the first position, and when each commit had returned (ns)."""
        records = [self._record(pool) for _ in range(events)]
        first = LogHead.objects.get(pk=1).position + 1
        return {"first": first, "committed": [_store(record) for record in records]}

    def _record(self, pool: int) -> KillmailRecord:
        self.stored += 1
        victim_id, *attacker_ids = pilots_of(self.stored, pool)
        esi = esi_body(100_000_000 + self.stored)
        esi["victim"] |= VICTIMS | {"character_id": victim_id, "ship_type_id": SHIPS[0]}
        esi["attackers"] = [
            attacker(character_id=id_, ship_type_id=SHIPS[1], final_blow=seat == 0, **ATTACKERS)
            for seat, id_ in enumerate(attacker_ids)
        ]
        record = parse_package(raw_package(self.stored, esi), self.stored, NOW)
        assert isinstance(record, KillmailRecord)
        return record


def _store(record: KillmailRecord) -> int:
    committed = []

    def claim() -> None:
        transaction.on_commit(lambda: committed.append(monotonic_ns()))

    if store_killmail(record, claim) is not Stored.ADDED:
        raise Failure(f"killmail {record.killmail_id} was there already")
    return committed[0]


if __name__ == "__main__":
    asyncio.run(answer_requests(Publisher().answer))
