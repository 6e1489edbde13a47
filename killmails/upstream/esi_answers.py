"""What ESI answers, as records, and how they are read from its JSON: what is not as it must be is refused."""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from killmails.errors import Reason, Unacceptable, Unreadable, UpstreamError
from killmails.fields import Fields, bad_field
from killmails.strict_json import BadJson, read_json

LONGEST_NAME = 255
LONGEST_TICKER = 10
# What costs as much, or more, has no price: a thousand times the dearest thing, and about all that EVE's players own.
MOST_ISK = Decimal(10**15)
KEPT = 1000  # bytes of an answer that cannot be accepted
HASH = re.compile(r"[0-9a-f]{40}")
# Attributes of types.
RIG_SIZE, META_LEVEL, HEAT_DAMAGE = 1547, 633, 1211


@dataclass(frozen=True, slots=True)
class Name:
    """`category`: alliance, character, constellation, corporation, inventory_type, region, solar_system, station or
    faction.
    """

    name: str
    category: str


class Partial:
    """Of many ids. `unknown`: those that ESI said it does not know. `cut_short_by`: why the others are not there.
    `refused`: how many questions it took to find the unknown ones; ESI counts them as errors.
    """

    def __init__(self) -> None:
        self.unknown: set[int] = set()
        self.refused = 0
        self.cut_short_by: UpstreamError | None = None


class Names(Partial, dict[int, Name]):
    """Names by id."""


@dataclass(frozen=True, slots=True)
class Affiliation:
    """Where a character is today."""

    character_id: int
    corporation_id: int
    alliance_id: int | None
    faction_id: int | None


class Affiliations(Partial, list[Affiliation]):
    """In ESI's order."""


@dataclass(frozen=True, slots=True)
class CorporationRecord:
    """`ticker`: None for one that is none."""

    name: str
    ticker: str | None
    alliance_id: int | None
    faction_id: int | None


@dataclass(frozen=True, slots=True)
class AllianceRecord:
    """`ticker`: as above."""

    name: str
    ticker: str | None


@dataclass(frozen=True, slots=True)
class TypeRecord:
    """`rig_size` and `meta_level` are None for what has none."""

    name: str
    group_id: int
    market_group_id: int | None
    rig_size: int | None
    meta_level: int | None
    has_heat_damage: bool


@dataclass(frozen=True, slots=True)
class GroupRecord:
    name: str
    category_id: int


@dataclass(frozen=True, slots=True)
class SolarSystemRecord:
    """`security_status` is the true one, -1.0 to 1.0."""

    name: str
    constellation_id: int
    security_status: float


@dataclass(frozen=True, slots=True)
class ConstellationRecord:
    name: str
    region_id: int


@dataclass(frozen=True, slots=True)
class KillmailRef:
    """All that ESI needs to give the killmail."""

    killmail_id: int
    killmail_hash: str


@dataclass(frozen=True, slots=True)
class RecentPage:
    """One of `pages` pages of a list; `changed` False: it is still the one of the etag that was brought, and not told.

    ESI gives the same answer for `expires_in` seconds.
    """

    refs: list[KillmailRef]
    pages: int
    etag: str
    changed: bool
    expires_in: float


@dataclass(frozen=True, slots=True)
class DayPrice:
    """The average of what was paid on a day, in ISK."""

    day: date
    average: Decimal


def read_object(body: bytes, what: str) -> Fields:
    """The object that the body is. Raises Unreadable for what is no JSON, Unacceptable for what is no object."""
    return Fields(_read(body, what), what)


def read_objects(body: bytes, what: str) -> list[dict[str, Any]]:
    """The same for a list of objects; what in it is none is left out."""
    found = _read(body, what)
    if not isinstance(found, list):
        raise bad_field(what, "a list", found)
    return [entry for entry in found if isinstance(entry, dict)]


def _read(body: bytes, what: str) -> Any:
    try:
        return read_json(body)
    except BadJson as error:
        reason = Reason.BAD_JSON if body.lstrip()[:1] in (b"{", b"[") else Reason.NOT_JSON
        raise Unreadable(reason, f"{what}: {error}", body[:KEPT]) from error


def is_id(value: Any) -> bool:
    return type(value) is int and 0 < value < 2**63


def is_name(value: Any) -> bool:
    """A text that a database takes as a name."""
    if not isinstance(value, str) or not 0 < len(value) <= LONGEST_NAME:
        return False
    return not any(sign == "\0" or "\ud800" <= sign <= "\udfff" for sign in value)


def read_name(fields: Fields, key: str = "name") -> str:
    value = fields.text(key)
    if not is_name(value):
        raise bad_field(fields.at(key), f"a name of 1 to {LONGEST_NAME} letters", value)
    return value


def read_names(body: bytes) -> dict[int, Name]:
    """Entries that are no names are left out."""
    return {
        entry["id"]: Name(entry["name"], entry["category"])
        for entry in read_objects(body, "names")
        if is_id(entry.get("id")) and is_name(entry.get("name")) and isinstance(entry.get("category"), str)
    }


def read_affiliations(body: bytes) -> list[Affiliation]:
    rows = [Fields(entry, "affiliation") for entry in read_objects(body, "affiliations")]
    return [
        Affiliation(
            row.id("character_id"),
            row.id("corporation_id"),
            row.id_or_none("alliance_id"),
            row.id_or_none("faction_id"),
        )
        for row in rows
    ]


def _ticker(found: Fields) -> str | None:
    """A corporation is no worse for a ticker that is empty, or longer than EVE's five letters by far."""
    ticker = found.value("ticker") if found.has("ticker") else None
    return ticker if isinstance(ticker, str) and 0 < len(ticker) <= LONGEST_TICKER and ticker.isprintable() else None


def read_corporation(body: bytes) -> CorporationRecord:
    found = read_object(body, "corporation")
    alliance_id, faction_id = found.id_or_none("alliance_id"), found.id_or_none("faction_id")
    return CorporationRecord(read_name(found), _ticker(found), alliance_id, faction_id)


def read_alliance(body: bytes) -> AllianceRecord:
    found = read_object(body, "alliance")
    return AllianceRecord(read_name(found), _ticker(found))


def read_type(body: bytes) -> TypeRecord:
    found = read_object(body, "type")
    rows = found.objects("dogma_attributes") if found.has("dogma_attributes") else []
    values = {row.id("attribute_id"): row.real("value") for row in rows}
    return TypeRecord(
        read_name(found),
        found.integer("group_id"),
        found.id_or_none("market_group_id"),
        _small(values.get(RIG_SIZE)),
        _small(values.get(META_LEVEL)),
        HEAT_DAMAGE in values,
    )


def read_group(body: bytes) -> GroupRecord:
    found = read_object(body, "group")
    return GroupRecord(read_name(found), found.integer("category_id"))


def read_solar_system(body: bytes) -> SolarSystemRecord:
    found = read_object(body, "solar system")
    return SolarSystemRecord(read_name(found), found.id("constellation_id"), found.real("security_status"))


def read_constellation(body: bytes) -> ConstellationRecord:
    found = read_object(body, "constellation")
    return ConstellationRecord(read_name(found), found.id("region_id"))


def read_killmail_refs(body: bytes) -> list[KillmailRef]:
    rows = [Fields(entry, "killmail") for entry in read_objects(body, "killmails")]
    refs = [KillmailRef(row.id("killmail_id"), row.text("killmail_hash")) for row in rows]
    if wrong := next((ref for ref in refs if not HASH.fullmatch(ref.killmail_hash)), None):
        raise bad_field("killmail_hash", "40 hex digits in lower case", wrong.killmail_hash[:80])
    return refs


def read_error(body: bytes) -> str:
    """ESI's own words."""
    try:
        text = read_object(body, "error").text("error")
    except Unacceptable:
        text = ""
    return text[:200] if text.isprintable() and text else "ESI refuses it"


def read_history(body: bytes) -> list[DayPrice]:
    """Days whose price cannot be one are left out."""
    days = {}
    for entry in read_objects(body, "history"):
        price = _isk(entry.get("average"))
        try:
            day = date.fromisoformat(entry.get("date", ""))
        except (TypeError, ValueError):
            continue
        if price is not None:
            days[day] = price
    return [DayPrice(day, price) for day, price in sorted(days.items())]


def read_average_prices(body: bytes) -> dict[int, Decimal]:
    """Types without a price, or with one that cannot be one, are left out."""
    entries = [entry for entry in read_objects(body, "prices") if is_id(entry.get("type_id"))]
    prices = {entry["type_id"]: _isk(entry.get("average_price")) for entry in entries}
    return {number: price for number, price in prices.items() if price is not None}


def _small(value: float | None) -> int | None:
    return int(value) if value is not None and 0 <= value < 2**15 else None


def _isk(value: Any) -> Decimal | None:
    if type(value) not in (int, float):
        return None
    price = Decimal(repr(value))
    return round(price, 2) if 0 <= price < MOST_ISK else None
