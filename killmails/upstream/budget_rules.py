"""ESI's limits as rules on counts, pure: `budget.lua` has the same ones for Redis, and the same tests.

Times and spans are whole milliseconds by the clock of whoever keeps the counts, which are flat tables of whole numbers:

    all        stop               nobody asks anything before this
               banned             the same, since ESI blocks us
               stop:{route}       nobody asks this route before this
               errors, end        errors in this minute of ESI's, and when it ends
               held:{permit}      a question to a route without a bucket, under way; until when it counts as an error
               failures, probe    answers in a row that are ESI's own fault, and when one may try again
               answers:{status}   how many there were; 0 for no answer
               bucket:{name}      1 for each bucket that is not a user's
    a bucket   limit, window      as ESI announced them
               spent:{end}        tokens spent in the slot of time that ends then; they come back one window later
               held:{end}         the same for questions under way, at their worst price
               others, others_at  tokens that somebody else has spent, as ESI's own count told then
               stop               nobody asks before this
"""

from dataclasses import dataclass, field
from typing import Any

WORST = 5  # tokens
PRICES = {2: 2, 3: 1, 4: WORST, 5: 0}  # by the first digit of the status; 429 is free
MARGIN = 10  # percent of a limit that we leave alone
ERRORS = 100  # answers that are neither 2xx nor 3xx, in each minute
MINUTE = 60_000
SLOTS = 180  # of a window: so long do tokens come back later for us than for ESI
HELD = 60_000  # a worker that died with a question under way; the longest question takes 15 s
FAILURES = 5  # in a row; then one question at a time finds out whether ESI is back
# Between such questions; each is twice the one before. Names are there half a minute after a return.
FIRST_PAUSE, LONGEST_PAUSE = 1_000, 12_000
SOON = 1_000  # until questions under way are answered, and most of what they hold is given back
STOP = 60_000  # after 420 and 429 that do not say how long
BANNED = 600_000  # at least; who goes on asking is banned for longer, or for good

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to `route`; `bucket` "" where it has none, with the limit that is documented."""

    route: str
    bucket: str = ""
    limit: int = 0
    window: int = 0


@dataclass(frozen=True, slots=True)
class Permit:
    """Paid for: the slot of its bucket that holds the worst price, or the name under which it is held as an error."""

    route: str
    bucket: str = ""
    slot: int = 0
    name: str = ""
    probe: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A permit, or how long to wait and why."""

    permit: Permit | None
    wait: int = 0
    why: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What came: `status` 0 for no answer, and what its headers told; -1 for what they did not.

    `banned`: ESI blocks the address that asks; a user's own refusal, which is a 403 as well, is not that.
    """

    status: int
    bucket: str = ""
    limit: int = -1
    window: int = -1
    remaining: int = -1  # with a limit only
    errors_left: int = -1
    errors_reset: int = -1
    retry_after: int = -1
    banned: bool = False


@dataclass(slots=True)
class Board:
    """The counts: of all, and of the buckets that matter now."""

    all: Counts = field(default_factory=dict)
    buckets: dict[str, Counts] = field(default_factory=dict)

    def bucket(self, name: str) -> Counts:
        return self.buckets.setdefault(name, {})


def reserve(board: Board, ask: Ask, name: str, now: int) -> Verdict:
    """`name`: one that no other permit has."""
    bucket = board.bucket(ask.bucket) if ask.bucket else None
    wait, why = _stopped(board.all, ask.route, now)
    if not wait and bucket is not None:
        wait, why = _bucket_wait(bucket, ask, now)
    elif not wait:
        wait, why = _errors_wait(board.all, now)
    if wait:
        return Verdict(None, wait, why)
    probe = board.all.get("failures", 0) >= FAILURES
    if probe:
        board.all["probe"] = now + _pause(board.all["failures"])
    if bucket is None:
        board.all[f"held:{name}"] = now + HELD
        return Verdict(Permit(ask.route, name=name, probe=probe))
    bucket.setdefault("limit", ask.limit)
    bucket.setdefault("window", ask.window)
    slot = _slot(now, bucket["window"])
    _add(bucket, f"held:{slot}", WORST)
    return Verdict(Permit(ask.route, ask.bucket, slot, probe=probe))


def settle(board: Board, permit: Permit, report: Report, now: int) -> None:
    """Whatever the permit holds is given back, and what the answer cost is booked."""
    _add(board.all, f"answers:{report.status}", 1)
    _count_failures(board.all, permit, report, now)
    if permit.bucket:
        _add(board.bucket(permit.bucket), f"held:{permit.slot}", -WORST)
    else:
        board.all.pop(f"held:{permit.name}", None)
    name = report.bucket or (permit.bucket if report.errors_left < 0 else "")
    if name:
        _settle_bucket(board.bucket(name), report, now)
        if ":" not in name:  # not a line for each user
            board.all[f"bucket:{name}"] = 1
    else:
        _settle_errors(board.all, report, now)
    _stop(board, permit, name, report, now)


def told(board: Board, now: int) -> dict[str, Any]:
    """What is left of each limit, how many answers there were by status, and for how many seconds a ban is kept."""
    left = {"errors": max(0, ERRORS - (board.all.get("errors", 0) if now < board.all.get("end", 0) else 0))}
    for name, bucket in board.buckets.items():
        if f"bucket:{name}" in board.all:
            _forget(bucket, bucket["window"], now)
            left[name] = max(0, bucket["limit"] - _sum(bucket, "spent:") - _others(bucket, now))
    found = {name.partition(":")[2]: count for name, count in board.all.items() if name.startswith("answers:")}
    return {"left": left, "answers": found, "banned_for": -(-max(0, board.all.get("banned", 0) - now) // 1000)}


def _stopped(all_: Counts, route: str, now: int) -> tuple[int, str]:
    if all_.get("banned", 0) > now:
        return all_["banned"] - now, "ESI blocks us"
    if all_.get("stop", 0) > now:
        return all_["stop"] - now, "ESI has stopped us"
    if all_.get(f"stop:{route}", 0) > now:
        return all_[f"stop:{route}"] - now, f"ESI has stopped {route}"
    if all_.get("failures", 0) >= FAILURES and all_.get("probe", 0) > now:
        return all_["probe"] - now, "ESI is down"
    return 0, ""


def _bucket_wait(bucket: Counts, ask: Ask, now: int) -> tuple[int, str]:
    if bucket.get("stop", 0) > now:
        return bucket["stop"] - now, f"ESI has stopped {ask.bucket}"
    limit, window = bucket.get("limit", ask.limit), bucket.get("window", ask.window)
    _forget(bucket, window, now)
    others, held = _others(bucket, now), _sum(bucket, "held:")
    short = _sum(bucket, "spent:") + held + others + WORST - (limit - _margin(limit))
    if short <= 0:
        return 0, ""
    wait = SOON if short <= held else window + window // SLOTS
    if others:
        wait = min(wait, short * window // others + 1)
    back = 0
    for end in sorted(int(name.partition(":")[2]) for name in bucket if name.startswith("spent:")):
        back += bucket[f"spent:{end}"]
        if back >= short:
            wait = min(wait, end + window - now)
            break
    return max(1, wait), f"the budget of {ask.bucket} is spent"


def _errors_wait(all_: Counts, now: int) -> tuple[int, str]:
    _turn_minute(all_, now)
    for name in [name for name, until in all_.items() if name.startswith("held:") and until <= now]:
        del all_[name]
    allowed = ERRORS - _margin(ERRORS)
    if all_.get("errors", 0) >= allowed:
        return max(1, all_["end"] - now), "the errors of this minute are spent"
    held = sum(1 for name in all_ if name.startswith("held:"))
    if all_.get("errors", 0) + held >= allowed:
        return SOON, "as many questions are under way as there may be errors"
    return 0, ""


def _settle_bucket(bucket: Counts, report: Report, now: int) -> None:
    if report.limit > 0:
        bucket["limit"], bucket["window"] = report.limit, report.window
    _add(bucket, f"spent:{_slot(now, bucket.get('window', MINUTE))}", _price(report.status))
    if report.remaining >= 0:
        _forget(bucket, bucket["window"], now)
        bucket["others"] = max(0, bucket["limit"] - _sum(bucket, "spent:") - report.remaining)
        bucket["others_at"] = now


def _settle_errors(all_: Counts, report: Report, now: int) -> None:
    _turn_minute(all_, now)
    known = report.errors_left >= 0 and report.errors_reset >= 0
    end = now + (report.errors_reset + 1_000 if known else MINUTE)  # it is told in whole seconds
    if not 200 <= report.status < 400:
        _add(all_, "errors", 1)
    if known or all_.get("errors"):
        all_.setdefault("end", end)
    if not known or end < all_["end"] - MINUTE // 2:
        return  # … or of the minute before: it was long on its way
    if end > all_["end"] + MINUTE // 2:
        all_["errors"] = 0
    all_["errors"] = max(all_.get("errors", 0), ERRORS - report.errors_left)
    all_["end"] = end


def _turn_minute(all_: Counts, now: int) -> None:
    if all_.get("end", now + 1) <= now:
        all_["end"] += (now - all_["end"]) // MINUTE * MINUTE + MINUTE
        all_["errors"] = 0


def _count_failures(all_: Counts, permit: Permit, report: Report, now: int) -> None:
    failures = all_.get("failures", 0)
    if 0 < report.status < 500:
        all_["failures"] = 0
    elif failures < FAILURES or permit.probe:  # else one that was under way already
        all_["failures"] = failures + 1
        all_["probe"] = now + _pause(failures + 1)


def _stop(board: Board, permit: Permit, bucket: str, report: Report, now: int) -> None:
    if report.banned:
        _extend(board.all, "banned", now + max(BANNED, report.retry_after))
    elif report.status == 420:
        known = [span for span in (report.errors_reset, report.retry_after) if span >= 0]
        _extend(board.all, "stop", now + (max(known) + 1_000 if known else STOP))
    elif report.status == 429:
        until = now + (report.retry_after if report.retry_after >= 0 else STOP)
        _extend(board.bucket(bucket) if bucket else board.all, "stop" if bucket else f"stop:{permit.route}", until)


def _extend(counts: Counts, name: str, until: int) -> None:
    counts[name] = max(counts.get(name, 0), until)


def _pause(failures: int) -> int:
    return min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** max(0, min(failures, 30) - FAILURES))


def _price(status: int) -> int:
    return 0 if status == 429 else PRICES.get(status // 100, WORST)


def _margin(limit: int) -> int:
    return -(-limit * MARGIN // 100)


def _slot(now: int, window: int) -> int:
    """The end of the slot of time that `now` is in."""
    width = max(1, window // SLOTS)
    return (now // width + 1) * width


def _sum(bucket: Counts, kind: str) -> int:
    return sum(tokens for name, tokens in bucket.items() if name.startswith(kind))


def _others(bucket: Counts, now: int) -> int:
    """What others have spent comes back evenly over a window, for all we know; the next answer tells better."""
    since, window = now - bucket.get("others_at", 0), bucket.get("window", 0)
    return -(-bucket.get("others", 0) * (window - since) // window) if 0 <= since < window else 0


def _forget(bucket: Counts, window: int, now: int) -> None:
    for name in [name for name in bucket if name.startswith(("spent:", "held:"))]:
        if int(name.partition(":")[2]) + window <= now:
            del bucket[name]


def _add(counts: Counts, name: str, tokens: int) -> None:
    counts[name] = counts.get(name, 0) + tokens
    if counts[name] <= 0:
        del counts[name]
