"""The feed: where it stands, how far behind that is, and what it could not read."""

from datetime import UTC, datetime
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now

from health.database import asking
from health.part import Part, State, ok, started_by
from killmails.models import FeedCursor, FeedGap, KillmailEvent, RejectedKillmail

R2Z2 = "r2z2"
NOT_YET = "404"  # the last answer, when everything that is there has been taken
FRESH = 60.0  # seconds for which that is believed; the feed asks each 6 s
BEHIND = 300.0  # seconds
POINTER_HOLDS = 150.0  # seconds; it is read each minute

WORKER = "celery -A killboard worker -Q feed"
NOT_BEGUN = f"The feed has not begun: start a worker, {started_by(WORKER)}, and read its log."
NO_HOLDER = f"No worker holds the feed's lease: start one, {started_by(WORKER)}."
TROUBLE = "zKillboard does not answer as it should: read the log of the worker that holds the lease."
LATE = "The feed is behind, and catches up at up to ten killmails a second: read the worker's log if it does not."
LOOK = "Packages could not be accepted: look at them in the admin, and replay or discard them."


def check() -> Part:
    if settings.FEED == "off":
        return ok(note="off: FEED=off")
    with asking():
        rows = FeedCursor.objects.filter(name=R2Z2).annotate(now=Now())
        facts = _facts(rows.values().first() or {}) | _owed()
    hint = _hint(facts)
    return Part(State.DEGRADED if hint else State.OK, hint, False, facts)


def _facts(cursor: dict[str, Any]) -> dict[str, Any]:
    """All by the database's clock but `uploaded_at`, which is by zKillboard's."""
    now: datetime = cursor.get("now") or datetime.now(UTC)
    last = _last_killmail()
    caught_up = _has_caught_up(cursor, now)
    held = bool(cursor) and cursor["lease_expires_at"] is not None and cursor["lease_expires_at"] > now
    return {
        "source": settings.FEED,
        "cursor": cursor.get("next_sequence"),
        "held_by": cursor["lease_holder"] if held else None,
        "held_since": _text(cursor["lease_since"]) if held else None,
        "upstream": _upstream(cursor),
        "lag_sequences": 0 if caught_up else _behind(cursor, now),
        "lag_seconds": 0.0 if caught_up else _age(last, now),
        "last_killmail": last and {"id": last["killmail_id"], "time": _text(last["killmail__time"])},
        "last_stored": last and _text(last["created_at"]),
    }


def _last_killmail() -> dict[str, Any] | None:
    columns = ("killmail_id", "created_at", "killmail__time", "killmail__uploaded_at")
    return KillmailEvent.objects.order_by("-position").values(*columns).first()


def _has_caught_up(cursor: dict[str, Any], now: datetime) -> bool:
    """Lately asked, and there was no more."""
    asked = cursor.get("not_before")
    return bool(cursor.get("last_answer") == NOT_YET and asked and (now - asked).total_seconds() < FRESH)


def _behind(cursor: dict[str, Any], now: datetime) -> int | None:
    """By the pointer, which the feed reads each minute while it is behind, and which may be some fifty behind itself.

    None: not known, since we are behind for less than a minute, or nobody asks.
    """
    if cursor.get("pointer") is None or (now - cursor["pointer_at"]).total_seconds() > POINTER_HOLDS:
        return None
    return max(0, cursor["pointer"] - cursor["next_sequence"] + 1)


def _age(last: dict[str, Any] | None, now: datetime) -> float | None:
    """How long ago what we stored last was uploaded to zKillboard; where it did not say, how long ago we stored it."""
    if last is None:
        return None
    uploaded = last["killmail__uploaded_at"]
    since = datetime.fromtimestamp(uploaded, UTC) if uploaded else last["created_at"]
    return max(0.0, round((now - since).total_seconds(), 1))


def _upstream(cursor: dict[str, Any]) -> str:
    """The kind of the last answer; its text is for the log."""
    return {"200": "answers", NOT_YET: "answers", "": "not asked"}.get(cursor.get("last_answer", ""), "in trouble")


def _owed() -> dict[str, int]:
    holes = Q(reason__in=(FeedGap.Reason.MISSING, FeedGap.Reason.EXPIRED))
    unsettled = (RejectedKillmail.State.OPEN, RejectedKillmail.State.QUEUED)
    return {
        "open_holes": FeedGap.objects.filter(holes, outcome="").count(),
        "to_be_read_again": FeedGap.objects.filter(~holes, outcome="").count(),
        "quarantine": RejectedKillmail.objects.filter(state__in=unsettled).count(),
    }


def _hint(facts: dict[str, Any]) -> str:
    if facts["held_by"] is None:
        return NO_HOLDER
    if facts["upstream"] == "in trouble":
        return TROUBLE
    if facts["cursor"] is None:
        return NOT_BEGUN
    if (facts["lag_seconds"] or 0.0) > BEHIND:
        return LATE
    return LOOK if facts["quarantine"] else ""


def _text(time: datetime | None) -> str | None:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if time else None
