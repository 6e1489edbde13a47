"""One question to ESI: paid for from the budget, asked again when ESI itself stumbles, and settled.

Source: https://developers.eveonline.com/docs/services/esi/best-practices/
"""

import logging
import random
import re
import threading
import time
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from typing import Any, Protocol
from urllib.parse import urlencode

from killmails.errors import Unacceptable, UpstreamRefused, UpstreamUnreachable
from killmails.upstream.budget import BANNED, Budget, Limit, Report
from killmails.upstream.esi_answers import read_error
from killmails.upstream.http import Answer, Client, retry_after, without_hash

logger = logging.getLogger(__name__)

# The shapes that this code reads are those of this date; ESI keeps them for a year at least. A new date: read what
# changed (https://developers.eveonline.com/docs/services/esi/changelog/), then move it.
COMPATIBILITY_DATE = "2026-08-18"
USER_AGENT = "killboard/0.1 (EVE Online killboard backend; contact: {contact})"
DEADLINE = 15.0  # seconds for a question with all its repetitions
TRIES = 5
PAUSE = 0.25  # seconds before the first repetition, about; each is twice the one before
MOST_PAGES = 100
LONGEST_ETAG = 200
LONGEST_KEPT = 31 * 86_400.0  # seconds
MAX_AGE = re.compile(r"(?:^|[,\s])max-age=([0-9]{1,10})(?:[,\s]|$)", re.IGNORECASE)
DOCUMENTED = {
    "/characters/{}/killmails": Limit("char-killmail", 30, 900),
    "/corporations/{}/killmails": Limit("corp-killmail", 30, 900),
    "/killmails": Limit("killmail", 3600, 900),
    "/wars": Limit("killmail", 3600, 900),
    "/status": Limit("status", 600, 900),
}


@dataclass(frozen=True, slots=True)
class Question:
    """`route` is the path with {} where ids stand; `body` makes it a POST.

    `kept`: an answer is not asked for again before it expires. `token` and `user`: in the name of a character, which
    ESI counts apart.
    """

    route: str
    ids: tuple[int | str, ...] = ()
    query: tuple[tuple[str, int | str], ...] = ()
    body: bytes | None = None
    kept: bool = False
    token: str = field(default="", repr=False)
    user: str = ""

    @property
    def path(self) -> str:
        return self.route.format(*self.ids) + (f"?{urlencode(self.query)}" if self.query else "")


@dataclass(frozen=True, slots=True)
class Kept:
    """An answer that holds for so many seconds more; none or fewer than none: ESI is asked whether it changed."""

    etag: str
    body: bytes
    seconds: float


class Answers(Protocol):
    """Where answers are kept by path, for all workers."""

    def find(self, path: str) -> Kept | None:
        """None where there is none."""

    def keep(self, path: str, kept: Kept) -> None:
        """In the place of the one that was there."""


class Questions:
    """Asks ESI. Threads may share it."""

    def __init__(self, base_url: str, contact: str, budget: Budget, answers: Answers | None = None) -> None:
        self.budget = budget
        self._answers = answers
        self._base_url = base_url.rstrip("/")
        self._user_agent = USER_AGENT.format(contact=contact or "not given")
        self._of_thread = threading.local()
        self._limits = dict(DOCUMENTED)  # and what ESI's own headers told of other routes

    def ask(self, question: Question, within: float | None = None) -> Answer:
        """An answer with status 200, or with one of 400, 404 and 422, which say that there is no such thing.

        Raises BudgetSpent, UpstreamUnreachable, UpstreamRefused, Unacceptable (too large), Unreadable.
        """
        ends_at = time.monotonic() + (DEADLINE if within is None else min(within, DEADLINE))
        if self._answers is None or not question.kept:
            return self._ask_again(question, "", ends_at)
        kept = self._answers.find(question.path)
        if kept and kept.seconds > 0:
            return Answer(200, kept.body)
        answer = self._ask_again(question, kept.etag if kept else "", ends_at)
        body = kept.body if kept and answer.status == 304 else answer.body
        etag, seconds = answer.headers.get("ETag", kept.etag if kept else ""), holds_for(answer)
        if answer.status in (200, 304) and seconds > 0 and len(etag) <= LONGEST_ETAG:
            self._answers.keep(question.path, Kept(etag, body, seconds))
        return Answer(200, body, answer.headers) if answer.status == 304 else answer

    def ask_for(self, question: Question, etag: str) -> Answer:
        """As `ask`, but nothing is kept: 304 where the answer is still that of `etag`; 401 and 403 with a token."""
        return self._ask_again(question, etag, time.monotonic() + DEADLINE)

    def ask_all_pages(self, question: Question) -> list[bytes]:
        """The bodies of all pages, of a hundred at most; all or none: raises as `ask`. Empty: ESI has no such."""
        first = self.ask(question)
        if first.status != 200:
            return []
        pages = page_count(first, question.path)
        bodies = [first.body]
        for page in range(2, pages + 1):
            answer = self.ask(replace(question, query=(*question.query, ("page", page))))
            if answer.status != 200:  # there are fewer by now
                break
            bodies.append(answer.body)
        return bodies

    def _ask_again(self, question: Question, etag: str, ends_at: float) -> Answer:
        """Until there is an answer, while it is ESI's own fault that there is none; never beyond the end."""
        for repetition in range(TRIES):
            try:
                return self._ask_once(question, etag, ends_at - time.monotonic())
            except (UpstreamUnreachable, UpstreamRefused) as error:
                pause = PAUSE * 2**repetition * random.uniform(0.5, 1.5)  # not all workers at once
                if isinstance(error, UpstreamRefused):
                    if error.status < 500:
                        raise
                    pause = max(pause, error.retry_after or 0.0)
                if repetition == TRIES - 1 or time.monotonic() + pause >= ends_at:
                    raise
                time.sleep(pause)
        raise AssertionError("unreachable")

    def _ask_once(self, question: Question, etag: str, seconds: float) -> Answer:
        if seconds <= 0:
            raise UpstreamUnreachable(f"{without_hash(question.path)}: no time left to ask")
        permit = self.budget.reserve(question.route, self._limits.get(_family(question.route)), question.user)
        report = Report(0)
        try:
            answer = self._send(question, etag, seconds)
            report = self._report(question, answer)
        except Unacceptable:  # it was answered, and is paid for
            report = Report(200)
            raise
        finally:
            self.budget.settle(permit, report)
        told = (401, 403) if question.token else ()
        if answer.status in (200, 400, 404, 422, *told) or (answer.status == 304 and etag):
            return answer
        raise _refusal(question, answer, report)

    def _send(self, question: Question, etag: str, seconds: float) -> Answer:
        headers = {"X-Compatibility-Date": COMPATIBILITY_DATE, "Accept": "application/json", "Accept-Language": "en"}
        if etag:
            headers["If-None-Match"] = etag
        if question.token:
            headers["Authorization"] = f"Bearer {question.token}"
        if question.body is not None:
            headers["Content-Type"] = "application/json"
        url = f"{self._base_url}{question.path}"
        method = "GET" if question.body is None else "POST"
        return self._client().ask(method, url, headers=headers, body=question.body, within=seconds)

    def _client(self) -> Client:
        """Each thread has a connection of its own."""
        if not hasattr(self._of_thread, "client"):
            self._of_thread.client = Client(self._user_agent, DEADLINE, upstream="esi")
        client: Client = self._of_thread.client
        return client

    def _report(self, question: Question, answer: Answer) -> Report:
        """What the headers tell; a route that has a token bucket now is remembered to have one."""
        told: dict[str, Any] = {"status": answer.status}
        limit = _limit(answer)
        if limit:
            self._limits[_family(question.route)] = limit
            bucket = f"{limit.group}:{question.user}" if question.user else limit.group
            told |= {"bucket": bucket, "limit": limit.tokens, "window": limit.window * 1000}
            told["remaining"] = whole(answer, "X-Ratelimit-Remaining")
        for name, header, unit in (
            ("errors_left", "X-Esi-Error-Limit-Remain", 1),
            ("errors_reset", "X-Esi-Error-Limit-Reset", 1000),
        ):
            value = whole(answer, header)
            told[name] = value * unit if value >= 0 else -1
        seconds = retry_after(answer.headers.get("Retry-After"))
        told["retry_after"] = -1 if seconds is None else int(seconds * 1000)
        # With a token it is what this character may not see; nobody else may be silenced by that.
        told["banned"] = answer.status == 403 and not question.token
        return Report(**told)


def _refusal(question: Question, answer: Answer, report: Report) -> UpstreamRefused:
    """With the seconds after which asking again is right, where ESI or its rules say so."""
    wait = report.retry_after / 1000 if report.retry_after >= 0 else None
    if report.banned:
        wait = max(wait or 0.0, BANNED / 1000)
        logger.error(
            "ESI blocks us (403 for %s: %s); nobody asks it for %.0f s. Is CONTACT set? Does another program ask from "
            "this address? Else write to EVE's support.",
            without_hash(question.path),
            read_error(answer.body),
            wait,
        )
    elif answer.status == 420:
        wait = max(wait or 0.0, report.errors_reset / 1000) or 60.0
    elif answer.status == 429 and wait is None:
        wait = 60.0
    if answer.status in (420, 429):
        path = without_hash(question.path)
        logger.warning("ESI has stopped us: status %d for %s, for %.0f s.", answer.status, path, wait)
    return UpstreamRefused(answer.status, wait)


def _family(route: str) -> str:
    """Routes that ESI counts together begin alike: /killmails/{}/{}, /universe/types/{}."""
    own = route.removesuffix("/recent")
    return own if own in DOCUMENTED else "/".join(route.split("/{}")[0].split("/")[:3])


def _limit(answer: Answer) -> Limit | None:
    """ "3600/15m" of the group; None where the headers do not tell."""
    group = answer.headers.get("X-Ratelimit-Group", "")
    tokens, _, window = answer.headers.get("X-Ratelimit-Limit", "").partition("/")
    number, unit = window[:-1], {"s": 1, "m": 60, "h": 3600}.get(window[-1:])
    if not (group.isascii() and group.replace("-", "").isalnum() and len(group) <= 40 and unit):
        return None
    if not (tokens.isdigit() and number.isdigit() and len(tokens + number) < 12 and int(tokens) and int(number)):
        return None
    return Limit(group, int(tokens), int(number) * unit)


def page_count(answer: Answer, what: str) -> int:
    """As ESI says, a hundred at most."""
    told = answer.headers.get("X-Pages", "1")
    pages = max(1, whole(answer, "X-Pages"))
    if str(pages) != told or pages > MOST_PAGES:
        pages = min(pages, MOST_PAGES)
        logger.warning("%s has %s pages, as ESI says; %d are read.", what, told[:20], pages)
    return pages


def holds_for(answer: Answer) -> float:
    """Seconds until the answer expires, by ESI's clock alone; 0 where it does not say.

    By Expires or by Cache-Control, whichever is later: ESI's specification names the one, its guide the other, and who
    asks too early may be banned.
    """
    told = MAX_AGE.search(answer.headers.get("Cache-Control", ""))
    seconds = float(told[1]) - max(0, whole(answer, "Age")) if told else 0.0
    try:
        expires, date = (parsedate_to_datetime(answer.headers[name]) for name in ("Expires", "Date"))
        seconds = max(seconds, (expires - date).total_seconds())
    except (KeyError, ValueError, TypeError):
        pass
    return min(LONGEST_KEPT, seconds)


def whole(answer: Answer, header: str) -> int:
    """A number that a header tells, a billion at most; -1 where it tells none."""
    value = answer.headers.get(header, "")
    return min(10**9, int(value[:10])) if value.isascii() and value.isdigit() else -1
