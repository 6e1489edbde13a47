"""The routes of a fake ESI: what a right answer is.

Source: https://esi.evetech.net/meta/openapi.json
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from killmails.fake_eve.messages import Reply, Request
from killmails.fake_eve.recent import character_recent, corporation_recent, page_of
from killmails.fake_eve.world import World
from killmails.recording.tape import killmail_hash

AT_ONCE = 1_000  # ids in one question
DAY = 86_400


Found = re.Match[str]


@dataclass(frozen=True)
class Route:
    """`expires`: seconds for which an answer holds; 0: it is not to be kept."""

    method: str
    pattern: re.Pattern[str]
    answer: Callable[[World, Request, Found], Reply]
    expires: int = 0
    group: str = ""


def route_of(request: Request) -> tuple[Route, Found] | None:
    path = request.path.rstrip("/")
    for route in ROUTES:
        found = route.pattern.fullmatch(path)
        if found and route.method == request.method:
            return route, found
    return None


def _names(world: World, request: Request, found: Found) -> Reply:
    ids = _ids(request)
    if ids is None:
        return WRONG_IDS
    names = [world.name(number) for number in ids]
    return Reply(404, {"error": "Ensure all IDs are valid before resolving."}) if None in names else Reply(200, names)


def _affiliation(world: World, request: Request, found: Found) -> Reply:
    ids = _ids(request)
    if ids is None:
        return WRONG_IDS
    if not all(number in world.characters for number in ids):
        return Reply(404, {"error": "Invalid character ID"})
    kept = ("corporation_id", "alliance_id", "faction_id")
    rows = [{"character_id": number} | world.characters[number] for number in ids]
    return Reply(200, [{key: row[key] for key in ("character_id", *kept) if key in row} for row in rows])


def _ids(request: Request) -> list[int] | None:
    """The ids of a POST: 1 to 1,000 different ones, else None."""
    try:
        ids = json.loads(request.body)
    except ValueError:
        return None
    right = isinstance(ids, list) and 0 < len(ids) <= AT_ONCE and all(type(one) is int and one > 0 for one in ids)
    return ids if right and len(set(ids)) == len(ids) else None


def _one(place: str, key: str = "") -> Callable[[World, Request, Found], Reply]:
    """A record of the world by its id, which stands in it under `key` where ESI has it so."""

    def answer(world: World, request: Request, found: Found) -> Reply:
        record = getattr(world, place).get(int(found[1]))
        if record is None:
            return Reply(404, {"error": "Not found"})
        return Reply(200, {key: int(found[1])} | record if key else record)

    return answer


def _killmail(world: World, request: Request, found: Found) -> Reply:
    body = world.killmails.get(int(found[1]))
    if body is None or killmail_hash(body) != found[2]:
        return Reply(422, {"error": "Invalid killmail_id and/or killmail_hash"})
    return Reply(200, body)


def _war_killmails(world: World, request: Request, found: Found) -> Reply:
    mine = [body for body in world.killmails.values() if body.get("war_id") == int(found[1])]
    rows = [{"killmail_id": body["killmail_id"], "killmail_hash": killmail_hash(body)} for body in mine]
    return page_of(rows, request, 2_000)


def _history(world: World, request: Request, found: Found) -> Reply:
    type_id = request.number("type_id")
    if type_id is None:
        return Reply(400, {"error": "type_id is missing"})
    rows = world.history.get((int(found[1]), type_id))
    return Reply(404, {"error": "Type not found!"}) if rows is None else Reply(200, rows)


def _prices(world: World, request: Request, found: Found) -> Reply:
    return Reply(200, world.prices)


def _status(world: World, request: Request, found: Found) -> Reply:
    return Reply(200, {"players": 23456, "server_version": "1", "start_time": "2026-11-25T11:02:00Z"})


def _route(
    method: str, path: str, answer: Callable[[World, Request, Found], Reply], expires: int = 0, group: str = ""
) -> Route:
    return Route(method, re.compile(path.replace("{id}", "([0-9]{1,18})")), answer, expires, group)


WRONG_IDS = Reply(400, {"error": "the body must be an array of 1 to 1000 different ids"})
ROUTES = [
    _route("POST", "/universe/names", _names),
    _route("POST", "/characters/affiliation", _affiliation, 3_600),
    _route("GET", "/characters/{id}", _one("characters"), DAY),
    _route("GET", "/corporations/{id}", _one("corporations"), 3_600),
    _route("GET", "/alliances/{id}", _one("alliances"), 3_600),
    _route("GET", "/universe/types/{id}", _one("types", "type_id"), DAY),
    _route("GET", "/universe/groups/{id}", _one("groups", "group_id"), DAY),
    _route("GET", "/universe/categories/{id}", _one("categories", "category_id"), DAY),
    _route("GET", "/universe/systems/{id}", _one("systems", "system_id"), DAY),
    _route("GET", "/universe/constellations/{id}", _one("constellations", "constellation_id"), DAY),
    _route("GET", "/universe/regions/{id}", _one("regions", "region_id"), DAY),
    _route("GET", "/markets/{id}/history", _history, DAY),
    _route("GET", "/markets/prices", _prices, 3_600),
    _route("GET", "/killmails/{id}/([0-9a-zA-Z]+)", _killmail, 30 * DAY, "killmail"),
    _route("GET", "/characters/{id}/killmails/recent", character_recent, 300, "char-killmail"),
    _route("GET", "/corporations/{id}/killmails/recent", corporation_recent, 300, "corp-killmail"),
    _route("GET", "/wars/{id}/killmails", _war_killmails, 3_600, "killmail"),
    _route("GET", "/status", _status, 30, "status"),
]
