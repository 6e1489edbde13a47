"""What a fake ESI knows: everything by EVE's ids, in ESI's own shapes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

Records = dict[int, dict[str, Any]]
CATEGORIES = {
    "characters": "character",
    "corporations": "corporation",
    "alliances": "alliance",
    "factions": "faction",
    "types": "inventory_type",
    "systems": "solar_system",
    "constellations": "constellation",
    "regions": "region",
    "stations": "station",
}


@dataclass
class World:
    """Bodies as ESI gives them, without the id; each of CATEGORIES has a `name`, which `/universe/names` finds, too."""

    characters: Records = field(default_factory=dict)
    corporations: Records = field(default_factory=dict)
    alliances: Records = field(default_factory=dict)
    factions: Records = field(default_factory=dict)
    types: Records = field(default_factory=dict)
    groups: Records = field(default_factory=dict)
    categories: Records = field(default_factory=dict)
    systems: Records = field(default_factory=dict)
    constellations: Records = field(default_factory=dict)
    regions: Records = field(default_factory=dict)
    stations: Records = field(default_factory=dict)
    killmails: Records = field(default_factory=dict)
    history: dict[tuple[int, int], list[dict[str, Any]]] = field(default_factory=dict)  # by region and type
    prices: list[dict[str, Any]] = field(default_factory=list)
    owners: dict[int, str] = field(default_factory=dict)  # hashes by character, where they were sold
    roles: dict[int, tuple[str, ...]] = field(default_factory=dict)  # in their corporations: ("Director",)
    now: datetime | None = None  # from which recent killmails are counted back; None: all are recent
    page_size: int = 1_000  # of the lists of recent killmails

    def owner(self, character_id: int) -> str:
        """Another one once the character was sold."""
        return self.owners.get(character_id, f"owner-of-{character_id}=")

    def sell(self, character_id: int) -> None:
        """To somebody else; all its grants are over."""
        self.owners[character_id] = f"{self.owner(character_id)[:-1]}-sold="

    def pilots(self) -> list[tuple[int, str, str]]:
        """Those who can log in: id, name, and what they are."""
        return [(id_, record["name"], self._what(id_, record)) for id_, record in sorted(self.characters.items())]

    def _what(self, character_id: int, record: dict[str, Any]) -> str:
        corporation = self.corporations.get(record.get("corporation_id", 0), {}).get("name", "")
        return f"{', '.join(self.roles.get(character_id, ())) or 'member'} of {corporation}"

    def name(self, number: int) -> dict[str, Any] | None:
        """The entry of `/universe/names`, None for an id that is none."""
        for place, category in CATEGORIES.items():
            if record := getattr(self, place).get(number):
                return {"category": category, "id": number, "name": record["name"]}
        return None

    def add_killmails(self, bodies: Iterable[dict[str, Any]]) -> None:
        """These killmails, and whoever is on them, invented where unknown: "Character 90000001", ticker "C0001"."""
        for body in bodies:
            self.killmails[body["killmail_id"]] = body
            for pilot in (body["victim"], *body["attackers"]):
                self._add_pilot(pilot)

    def _add_pilot(self, pilot: dict[str, Any]) -> None:
        character, corporation, alliance, faction = (
            pilot.get(f"{kind}_id") for kind in ("character", "corporation", "alliance", "faction")
        )
        if alliance:
            self.alliances.setdefault(alliance, {"name": f"Alliance {alliance}", "ticker": f"A{alliance % 10**4:04}"})
        if faction:
            self.factions.setdefault(faction, {"name": f"Faction {faction}"})
        membership = {"alliance_id": alliance, "faction_id": faction}
        membership = {key: value for key, value in membership.items() if value}
        if corporation:
            record = {"name": f"Corporation {corporation}", "ticker": f"C{corporation % 10**4:04}"}
            self.corporations.setdefault(corporation, record | membership)
        if character and corporation:
            record = {"name": f"Character {character}", "corporation_id": corporation}
            self.characters.setdefault(character, record | membership)
