"""The lists of recent killmails of a fake ESI: for who has the right to read them.

Source: https://developers.eveonline.com/docs/services/esi/
"""

import re
from datetime import datetime, timedelta
from typing import Any

from killmails.fake_eve.messages import Reply, Request
from killmails.fake_eve.world import World
from killmails.recording.tape import killmail_hash

KEPT = timedelta(days=90)
OWN = "esi-killmails.read_killmails.v1"
CORPORATION = "esi-killmails.read_corporation_killmails.v1"


def character_recent(world: World, request: Request, found: re.Match[str]) -> Reply:
    """What it lost, and where it had the final blow."""
    holder = _holder(request, OWN)
    if isinstance(holder, Reply):
        return holder
    if holder != int(found[1]):
        return Reply(403, {"error": "Unauthorized - token is not valid for this character"})
    return page_of(_refs(world, "character_id", holder), request, world.page_size)


def corporation_recent(world: World, request: Request, found: re.Match[str]) -> Reply:
    """The same of all its members, for its directors."""
    holder = _holder(request, CORPORATION)
    if isinstance(holder, Reply):
        return holder
    if world.characters[holder].get("corporation_id") != int(found[1]):
        return Reply(403, {"error": "Character is not in the corporation"})
    if "Director" not in world.roles.get(holder, ()):
        return Reply(403, {"error": "Character does not have required role(s)"})
    return page_of(_refs(world, "corporation_id", int(found[1])), request, world.page_size)


def _holder(request: Request, scope: str) -> int | Reply:
    """The character whose token this is; ESI's words where there is none, or one without the scope."""
    if request.holder is None:
        return Reply(401, {"error": "Unauthorized - Invalid token"})
    character_id, scopes = request.holder
    return character_id if scope in scopes else Reply(403, {"error": f"Unauthorized - missing scope {scope}"})


def _refs(world: World, key: str, eve_id: int) -> list[dict[str, Any]]:
    bodies = [body for body in world.killmails.values() if _involves(body, key, eve_id) and _is_recent(world, body)]
    bodies.sort(key=lambda body: -body["killmail_id"])
    return [{"killmail_hash": killmail_hash(body), "killmail_id": body["killmail_id"]} for body in bodies]


def _involves(body: dict[str, Any], key: str, eve_id: int) -> bool:
    final_blows = [attacker for attacker in body["attackers"] if attacker["final_blow"]]
    return any(pilot.get(key) == eve_id for pilot in (body["victim"], *final_blows))


def _is_recent(world: World, body: dict[str, Any]) -> bool:
    return world.now is None or datetime.fromisoformat(body["killmail_time"]) > world.now - KEPT


def page_of(rows: list[Any], request: Request, size: int) -> Reply:
    """One page of a list, or ESI's words for none."""
    pages, page = max(1, -(-len(rows) // size)), request.number("page") or 1
    if page > pages:
        return Reply(404, {"error": "Requested page does not exist!"})
    return Reply(200, rows[(page - 1) * size : page * size], {"X-Pages": str(pages)})
