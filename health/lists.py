"""The lists of users' killmails: is somebody reading them, and how many cannot be read."""

from collections import Counter

from django.conf import settings
from django.db.models.functions import Now

from health.database import asking
from health.part import Part, State, ok, started_by
from killmails.models import KillmailSync

LATE = 300.0  # seconds; what waits for ESI's limits is not due

NOBODY = (
    "Lists of users' killmails are due and nobody reads them: start a worker, "
    f"{started_by('celery -A killboard worker -Q esi')}, or read its log."
)
NO_KEY = (
    "TOKEN_KEYS lacks the key that EVE's tokens were encrypted with: put it back beside the first one, and restart the "
    "workers; nobody has to log in again."
)
NOT_ANSWERING = "No list of users' killmails can be read: run `python manage.py sync_status`, which says why."


def check() -> Part:
    if not settings.EVE_CLIENT_ID:
        return ok(note="off: EVE_CLIENT_ID is not set")
    with asking():
        states = Counter(KillmailSync.objects.values_list("state", flat=True))
        due = KillmailSync.objects.filter(due_at__lte=Now()).order_by("due_at").values_list("due_at", Now()).first()
        locked = KillmailSync.objects.filter(reason__startswith=KillmailSync.NO_KEY).exists()
    overdue = (due[1] - due[0]).total_seconds() if due else 0.0
    facts: dict[str, float] = {state.lower(): states[state] for state in KillmailSync.State.values}
    facts["overdue_seconds"] = round(overdue, 1)
    hint = NO_KEY if locked else NOBODY if overdue > LATE else ""
    working = states[KillmailSync.State.UP_TO_DATE] + states[KillmailSync.State.READING]
    if states[KillmailSync.State.RETRYING] and not working:
        hint = hint or NOT_ANSWERING
    return Part(State.DEGRADED if hint else State.OK, hint, False, facts)
