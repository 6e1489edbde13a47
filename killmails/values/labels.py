"""zKillboard's labels, in its order. `ganked` is not among them: a later job of its own adds that."""

from datetime import datetime
from decimal import Decimal

from killmails.values.facts import Esi, Facts, PlaceFacts
from killmails.values.flags import is_awox, is_npc, is_solo

HOURS = {"tz:au": range(8, 14), "tz:ru": range(14, 17), "tz:eu": range(17, 22), "tz:usw": range(4, 8)}
CROWDS = (1000, 100, 50, 25, 10, 5, 2, 1)
BILLION = 10**9
ISK = {"isk:1t+": 1000, "isk:100b+": 100, "isk:10b+": 10, "isk:5b+": 5, "isk:1b+": 1}  # billions
CAPITALS = {1381, 2288}  # market groups
DRIFTER, POCHVEN, HIDDEN = 11_000_033, 10_000_070, 10_001_000  # regions
WARS = {  # the label of each side, and of the war, by the factions of the two
    (500001, 500004): ("fw:caldari", "fw:gallente", "fw:calgal"),
    (500003, 500002): ("fw:amarr", "fw:minmatar", "fw:amamin"),
}


def labels(esi: Esi, facts: Facts, place: PlaceFacts, total: Decimal | None, padding: bool = False) -> list[str]:
    """`total` in ISK, None where nothing has a price. `padding`: the same was lost again and again."""
    ship = facts[esi["victim"]["ship_type_id"]]
    npc = is_npc(esi)
    found = [_hours(datetime.fromisoformat(esi["killmail_time"]).hour), "padding" if padding else None]
    found += [f"cat:{ship.category_id}" if ship.category_id is not None else None]
    found += ["solo" if is_solo(esi, facts) else _crowd(len(esi["attackers"]))]
    found += ["npc" if npc else None if padding else "pvp"]
    found += ["awox" if is_awox(esi, facts) else None, _space(place), _isk(total)]
    found += ["capital" if ship.market_groups & CAPITALS else None, *_war(esi)]
    return [label for label in found if label]


def _hours(hour: int) -> str:
    return next((label for label, hours in HOURS.items() if hour in hours), "tz:use")


def _crowd(attackers: int) -> str | None:
    least = next((least for least in CROWDS if attackers >= least), None)
    return None if least is None else "#:1" if least == 1 else f"#:{least}+"


def _space(place: PlaceFacts) -> str | None:
    region = place.region_id
    if region is None:
        return None
    if region == DRIFTER:
        return "loc:drifter"
    if 11_000_000 <= region < 12_000_000:
        return "loc:w-space"
    if 12_000_000 <= region < 13_000_000:
        return "loc:abyssal"
    known_space = 10_000_000 <= region < 11_000_000 and region not in (POCHVEN, HIDDEN)
    if not known_space or place.security is None:
        return None
    # zKillboard counts exactly 0.0 as low security; EVE does not.
    return "loc:highsec" if place.security >= 0.45 else "loc:lowsec" if place.security >= 0 else "loc:nullsec"


def _isk(total: Decimal | None) -> str | None:
    if total is None:
        return None
    return next((label for label, billions in ISK.items() if total >= billions * BILLION), None)


def _war(esi: Esi) -> list[str]:
    """Where both sides of a war of factions are on the mail: the winner, and the war."""
    lost = esi["victim"].get("faction_id")
    attacking = {attacker.get("faction_id") for attacker in esi["attackers"]}
    for (first, second), (first_won, second_won, war) in WARS.items():
        if lost == second and first in attacking:
            return [first_won, war]
        if lost == first and second in attacking:
            return [second_won, war]
    return []
