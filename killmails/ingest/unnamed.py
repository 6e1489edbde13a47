"""Who on a killmail has no name yet, written down with it."""

from django.conf import settings
from django.db import connection

from killmails.models import UnfilledKillmail
from killmails.records import KillmailRecord

UNNAMED = {
    kind: f"SELECT '{kind}', id FROM killmails_{kind} WHERE name IS NULL AND id IN ({{marks}})"  # noqa: S608
    for kind in ("character", "corporation", "alliance")
}


def note_unnamed(record: KillmailRecord, replaces: bool) -> None:
    """In the storing transaction: the killmail is published again when they are named. Not for a recording: its pilots
    are invented.

    `replaces`: whether another package of this killmail was stored before, which may have named others.
    """
    if replaces:
        UnfilledKillmail.objects.filter(pk=record.killmail_id).delete()
    if settings.FEED == "recorded":
        return
    everybody = [record.victim, *record.attackers]
    ids = {kind: sorted({getattr(one, f"{kind}_id") for one in everybody} - {None}) for kind in UNNAMED}
    parts = [UNNAMED[kind].format(marks=", ".join(["%s"] * len(its))) for kind, its in ids.items() if its]
    if not parts:
        return
    missing: dict[str, list[int]] = {}
    with connection.cursor() as cursor:
        cursor.execute(" UNION ALL ".join(parts), [id_ for its in ids.values() for id_ in its])
        for kind, id_ in cursor.fetchall():
            missing.setdefault(kind, []).append(id_)
    if missing:
        UnfilledKillmail(killmail_id=record.killmail_id, missing=missing).save(force_insert=True)
