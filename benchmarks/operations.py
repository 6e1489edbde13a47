"""What the sockets subscribe to: one operation for all, one filter each, or one selection each."""

from typing import Any

FIRST_PILOT = 2_100_000_000  # the pilots of the invented killmails are numbered from here
PILOTS = 5_000
ON_A_KILLMAIL = 10  # the victim and nine attackers, all different

NAMED = "{ id name }"
FIELDS = (
    "id",
    "time",
    "totalValue",
    "attackerCount",
    f"solarSystem {{ id name constellation {{ id name region {NAMED} }} }}",
    f"victim {{ character {NAMED} corporation {NAMED} alliance {NAMED} shipType {{ id name group {NAMED} }} }}",
    f"finalBlow {{ character {NAMED} corporation {NAMED} shipType {NAMED} }}",
)


def payload(kind: str, number: int) -> dict[str, Any]:
    """The payload of the subscribe message of socket `number`, from 0; `kind` is same, filters or selections."""
    if kind == "filters":
        query = f"subscription($filter: KillmailFilter) {_events('(filter: $filter)', FIELDS)}"
        return {"query": query, "variables": {"filter": {"characterIds": [str(FIRST_PILOT + number)]}}}
    fields: tuple[str, ...] = FIELDS
    if kind == "selections":
        # Another order and another name: no two of these are the same operation, and all have the same size.
        turned = number % len(FIELDS)
        fields = (f"a{number:04d}: attackerCount", *FIELDS[turned:], *FIELDS[:turned])
    return {"query": f"subscription {_events('', fields)}"}


def _events(arguments: str, fields: tuple[str, ...]) -> str:
    # The position comes first in every frame: whoever counts frames finds it without parsing them.
    return f"{{ killmailEvents{arguments} {{ position kind killmail {{ {' '.join(fields)} }} }} }}"


def pilots_of(number: int, pool: int) -> list[int]:
    """The ten pilots on the invented killmail of this number, out of the first `pool`."""
    return [FIRST_PILOT + (number * ON_A_KILLMAIL + seat) % pool for seat in range(ON_A_KILLMAIL)]
