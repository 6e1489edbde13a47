"""ESI, EVE's own interface: names, membership, places, things, killmails and prices.

Source: https://esi.evetech.net/meta/openapi.json
"""

import json
import logging
import time
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import TypeVar

from killmails.errors import (
    EsiForbidden,
    EsiUnknown,
    TokenRefused,
    Unacceptable,
    UpstreamError,
    UpstreamRefused,
    UpstreamUnreachable,
)
from killmails.fields import bad_field
from killmails.upstream import esi_answers as answers
from killmails.upstream.budget import Budget
from killmails.upstream.esi_answers import (
    Affiliation,
    Affiliations,
    AllianceRecord,
    ConstellationRecord,
    CorporationRecord,
    DayPrice,
    GroupRecord,
    KillmailRef,
    Name,
    Names,
    RecentPage,
    SolarSystemRecord,
    TypeRecord,
)
from killmails.upstream.esi_questions import (
    DEADLINE,
    LONGEST_ETAG,
    Answers,
    Question,
    Questions,
    holds_for,
    page_count,
)
from killmails.upstream.http import Answer

__all__ = [
    "Affiliation",
    "Affiliations",
    "AllianceRecord",
    "ConstellationRecord",
    "CorporationRecord",
    "DayPrice",
    "Esi",
    "GroupRecord",
    "KillmailRef",
    "Name",
    "Names",
    "RecentPage",
    "SolarSystemRecord",
    "TypeRecord",
]

logger = logging.getLogger(__name__)

AT_ONCE = 1_000  # ids in a question
THE_FORGE = 10000002

Found = TypeVar("Found")


class Esi:
    """Questions to ESI, within the budget that all workers share. Threads may share it.

    Each method raises UpstreamError (later is right; BudgetSpent says when), Unacceptable for an answer that is not
    what it must be, and takes 15 s at most for a question. None of them may be called within a transaction.
    """

    def __init__(self, base_url: str, contact: str, budget: Budget, kept: Answers | None = None) -> None:
        """`kept`: where answers are kept until they expire."""
        self.budget = budget
        self._questions = Questions(base_url, contact, budget, kept)

    def fetch_names(self, ids: Iterable[int], within: float | None = None, most_unknown: int | None = None) -> Names:
        """Names of characters, corporations, alliances, types, places, by id.

        Never more than the ids asked for. What came within so many seconds is returned; `Names` tells of the rest.
        `most_unknown`: how many refusals it may cost to find ids that ESI does not know; they count for all workers.
        Raises UpstreamError only where nothing came at all.
        """
        names = Names()

        def take(body: bytes, portion: list[int]) -> None:
            found = answers.read_names(body)
            if not found.keys() <= set(portion):
                logger.warning("ESI named %d ids that nobody asked for.", len(found.keys() - set(portion)))
            names.update((number, found[number]) for number in portion if number in found)
            names.unknown.update(number for number in portion if number not in found)

        self._ask_in_portions("/universe/names", ids, names, take, within, most_unknown)
        return names

    def fetch_affiliations(
        self, ids: Iterable[int], within: float | None = None, most_unknown: int | None = None
    ) -> Affiliations:
        """Where these characters are today; who was not asked for is left out. What came is returned, as with names."""
        found = Affiliations()

        def take(body: bytes, portion: list[int]) -> None:
            wanted = set(portion)
            told = [one for one in answers.read_affiliations(body) if one.character_id in wanted]
            found.extend(told)
            found.unknown.update(wanted - {one.character_id for one in told})

        self._ask_in_portions("/characters/affiliation", ids, found, take, within, most_unknown)
        return found

    def fetch_corporation(self, corporation_id: int) -> CorporationRecord | None:
        """None where ESI knows no such corporation; the same with all that follow."""
        return self._fetch("/corporations/{}", corporation_id, answers.read_corporation)

    def fetch_alliance(self, alliance_id: int) -> AllianceRecord | None:
        return self._fetch("/alliances/{}", alliance_id, answers.read_alliance)

    def fetch_type(self, type_id: int) -> TypeRecord | None:
        return self._fetch("/universe/types/{}", type_id, answers.read_type)

    def fetch_group(self, group_id: int) -> GroupRecord | None:
        return self._fetch("/universe/groups/{}", group_id, answers.read_group)

    def fetch_category_name(self, category_id: int) -> str | None:
        return self._fetch("/universe/categories/{}", category_id, _name_of("category"))

    def fetch_solar_system(self, solar_system_id: int) -> SolarSystemRecord | None:
        return self._fetch("/universe/systems/{}", solar_system_id, answers.read_solar_system)

    def fetch_constellation(self, constellation_id: int) -> ConstellationRecord | None:
        return self._fetch("/universe/constellations/{}", constellation_id, answers.read_constellation)

    def fetch_region_name(self, region_id: int) -> str | None:
        return self._fetch("/universe/regions/{}", region_id, _name_of("region"))

    def fetch_killmail(self, killmail_id: int, killmail_hash: str) -> bytes:
        """The body as it came. Raises EsiUnknown for a pair of id and hash that is none, Unacceptable with the body."""
        if not (killmail_hash.isascii() and killmail_hash.isalnum()):  # two that CCP made by hand have such a one
            raise EsiUnknown(0, f"killmail {killmail_id}: its hash is none")
        answer = self._questions.ask(Question("/killmails/{}/{}", (killmail_id, killmail_hash)))
        if answer.status != 200:
            raise EsiUnknown(answer.status, f"killmail {killmail_id} with the hash {killmail_hash}")
        try:
            told = answers.read_object(answer.body, f"killmail {killmail_id}").id("killmail_id")
            if told != killmail_id:
                raise bad_field("killmail_id", str(killmail_id), told)
        except Unacceptable as error:
            error.raw = answer.body  # for the quarantine
            raise
        return answer.body

    def fetch_recent_killmails(
        self, kind: str, eve_id: int, holder_id: int, access_token: str, *, page: int = 1, etag: str = ""
    ) -> RecentPage:
        """A page of the recent killmails of a `kind`, character or corporation, newest first; empty beyond the last.

        In the name of the character `holder_id`, whose own limit pays for it. Raises TokenRefused and EsiForbidden
        beside the usual.
        """
        route = f"/{kind}s/{{}}/killmails/recent"
        question = Question(route, (eve_id,), (("page", page),), token=access_token, user=str(holder_id))
        answer = self._questions.ask_for(question, etag)
        if answer.status == 401:
            raise TokenRefused(f"ESI does not take the token of character {holder_id}")
        if answer.status == 403:
            raise EsiForbidden(answers.read_error(answer.body))
        expires_in = max(0.0, holds_for(answer))
        if answer.status == 304:
            return RecentPage([], 1, etag, changed=False, expires_in=expires_in)
        if answer.status not in (200, 404):  # an empty list it is not
            raise UpstreamRefused(answer.status, None)
        refs = answers.read_killmail_refs(answer.body) if answer.status == 200 else []
        told = answer.headers.get("ETag", "")
        etag = told if len(told) <= LONGEST_ETAG else ""
        return RecentPage(refs, page_count(answer, question.path), etag, changed=True, expires_in=expires_in)

    def fetch_war_killmails(self, war_id: int) -> list[KillmailRef]:
        """All of them, or an error. Empty where ESI knows no such war."""
        bodies = self._questions.ask_all_pages(Question("/wars/{}/killmails", (war_id,)))
        return [ref for body in bodies for ref in answers.read_killmail_refs(body)]

    def fetch_price_history(self, type_id: int, region_id: int = THE_FORGE) -> list[DayPrice]:
        """What was paid, by day; a year and more, oldest first. Empty for what no market knows."""
        question = Question("/markets/{}/history", (region_id,), (("type_id", type_id),), kept=True)
        answer = self._questions.ask(question)
        return answers.read_history(answer.body) if answer.status == 200 else []

    def fetch_average_prices(self) -> dict[int, Decimal]:
        """ESI's own averages, by type: an estimate where a market knows no price."""
        answer = self._questions.ask(Question("/markets/prices", kept=True))
        return answers.read_average_prices(answer.body) if answer.status == 200 else {}

    def _fetch(self, route: str, number: int, read: Callable[[bytes], Found]) -> Found | None:
        answer = self._questions.ask(Question(route, (number,), kept=True))
        return read(answer.body) if answer.status == 200 else None

    def _ask_in_portions(
        self,
        route: str,
        ids: Iterable[int],
        found: Names | Affiliations,
        take: Callable[[bytes, list[int]], None],
        within: float | None,
        most_unknown: int | None,
    ) -> None:
        """Each portion as one question. A single unknown id fails all of its portion, which is halved then."""
        ends_at = float("inf") if within is None else time.monotonic() + within
        wanted = sorted({number for number in ids if answers.is_id(number)})
        waiting = [wanted[first : first + AT_ONCE] for first in range(0, len(wanted), AT_ONCE)]
        try:
            while waiting:
                if most_unknown is not None and found.refused >= most_unknown:
                    raise UpstreamUnreachable(f"{route}: too many ids that ESI does not know, for one turn")
                portion = waiting.pop()
                answer = self._ask_for(route, portion, ends_at)
                found.refused += answer.status != 200
                if answer.status == 200:
                    take(answer.body, portion)
                elif len(portion) == 1:
                    found.unknown.update(portion)
                else:
                    middle = len(portion) // 2
                    waiting += [portion[middle:], portion[:middle]]
        except UpstreamError as error:
            if not found and not found.unknown:
                raise
            found.cut_short_by = error

    def _ask_for(self, route: str, portion: list[int], ends_at: float) -> Answer:
        seconds = ends_at - time.monotonic()
        if seconds <= 0:
            raise UpstreamUnreachable(f"{route}: no time left to ask")
        return self._questions.ask(Question(route, body=json.dumps(portion).encode()), min(seconds, DEADLINE))


def _name_of(what: str) -> Callable[[bytes], str]:
    return lambda body: answers.read_name(answers.read_object(body, what))
