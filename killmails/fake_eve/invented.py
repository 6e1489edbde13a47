"""A world to play with: pilots of the shipped recording, who lose a ship each hour, and to one another.

What happens in an hour is the same however often the world is made, as long as it has the same pilots.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import chain, zip_longest
from typing import Any

from killmails.fake_eve.world import Records, World
from killmails.recording.tape import SHIPPED_RECORDING, TIME_FORMAT, load_recording

DAYS = 30
FIRST_ID = 1_500_000_000  # above every killmail that EVE has had
MOST_ATTACKERS = 5
PLACES = {"solar_systems": "systems", "celestials": "stations"}  # as ESI calls them
HOUR = timedelta(hours=1)


def invented_world(pilots: int, corporations: int) -> World:
    """So many pilots, if there are as many, of the largest corporations; the first of each is its director."""
    told = json.loads(SHIPPED_RECORDING.with_name("universe.json").read_text())
    world = World()
    for kind, rows in told.items():
        getattr(world, PLACES.get(kind, kind)).update((row["id"], _record(row)) for row in rows)
    for corporation in world.corporations.values():
        corporation.setdefault("ticker", "NPC")
    members: dict[int, list[int]] = defaultdict(list)
    for pilot, record in sorted(world.characters.items()):
        members[record["corporation_id"]].append(pilot)
        if "alliance_id" in record:
            world.corporations[record["corporation_id"]]["alliance_id"] = record["alliance_id"]
    largest = sorted(members.values(), key=len, reverse=True)[:corporations]
    in_turn = [pilot for pilot in chain(*zip_longest(*largest)) if pilot is not None]
    world.characters = {pilot: world.characters[pilot] for pilot in in_turn[:pilots]}
    world.roles = {some[0]: ("Director",) for some in largest}
    return world


def killmails_until(world: World, now: datetime) -> Records:
    """What its pilots have lost in the last 30 days, by id."""
    losses = [record["esi"] for record in load_recording() if _is_between_pilots(record["esi"])]
    pilots = [{"character_id": pilot} | _membership(record) for pilot, record in world.characters.items()]
    begin = now.replace(minute=0, second=0, microsecond=0) - DAYS * 24 * HOUR
    bodies = (_loss(losses, pilots, begin + number * HOUR) for number in range(DAYS * 24 + 1))
    return {body["killmail_id"]: body for body in bodies if body["killmail_time"] <= now.strftime(TIME_FORMAT)}


def _loss(losses: list[dict[str, Any]], pilots: list[dict[str, int]], at: datetime) -> dict[str, Any]:
    """A recorded loss, of another pilot and at another time; all have lost to all others in the end."""
    hour = int(at.timestamp()) // 3600
    body, count = losses[hour % len(losses)], len(pilots)
    victim = hour % count
    # Behind the victim, and round to it, all the others: from the hour's killer on.
    others = [pilots[(victim + 1 + number) % count] for number in range(count - 1)]
    first = hour // count % (count - 1)
    return body | {
        "killmail_id": FIRST_ID + hour,
        "killmail_time": (at + timedelta(minutes=hour * 37 % 60)).strftime(TIME_FORMAT),
        "victim": _as_pilot(body["victim"], pilots[victim]),
        "attackers": _attackers(body["attackers"], others[first:] + others[:first]),
    }


def _attackers(recorded: Iterable[dict[str, Any]], pilots: list[dict[str, int]]) -> list[dict[str, Any]]:
    """The final blow first, by the first of the pilots; NPCs stay who they are."""
    by_weight = sorted(recorded, key=lambda attacker: not attacker["final_blow"])[:MOST_ATTACKERS]
    free = iter(pilots)
    found = []
    for attacker in by_weight:
        pilot = next(free, None) if "character_id" in attacker else {}
        if pilot is not None:
            found.append(_as_pilot(attacker, pilot) if pilot else attacker)
    return found


def _as_pilot(recorded: dict[str, Any], pilot: dict[str, int]) -> dict[str, Any]:
    kept = {key: value for key, value in recorded.items() if key not in ("alliance_id", "faction_id")}
    return kept | pilot


def _is_between_pilots(body: dict[str, Any]) -> bool:
    final_blows = [attacker for attacker in body["attackers"] if attacker["final_blow"]]
    return all("character_id" in one for one in (body["victim"], *final_blows)) and bool(final_blows)


def _record(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "id" and value is not None}


def _membership(record: dict[str, Any]) -> dict[str, int]:
    return {key: record[key] for key in ("corporation_id", "alliance_id") if key in record}
