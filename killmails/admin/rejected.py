"""Quarantine: packages that could not be read, why, and what to do about it: replay or discard."""

from typing import Any

from django.contrib import admin

from killmails.admin import columns
from killmails.admin.filters import ReasonFilter
from killmails.admin.repair import DETAIL, RepairAdmin, send_each
from killmails.models import RejectedKillmail
from killmails.tasks import replay_rejected

State = RejectedKillmail.State


@admin.register(RejectedKillmail)
class RejectedKillmailAdmin(RepairAdmin):
    list_display = ("rejected", "sequence", "killmail_id", "reason", "why", "state")
    list_filter = (ReasonFilter, ("state", admin.ChoicesFieldListFilter))
    number_columns = ("sequence", "killmail_id")
    search_help_text = "A sequence, or the id of a killmail"
    fields = ("reason", "detail", "state", "note", "sequence", "killmail_id", "rejected", "changed")
    readonly_fields = ("rejected", "changed")

    noun = "package"
    file_name = "rejected"
    replayable = (State.OPEN.value, State.DISCARDED.value)
    discardable = (State.OPEN.value,)  # what is queued may be in a worker's hands

    @admin.display(description="rejected at")
    def rejected(self, rejected: RejectedKillmail) -> str:
        return columns.moment(rejected.rejected_at)

    @admin.display(description="detail")
    def why(self, rejected: RejectedKillmail) -> str:
        detail = rejected.detail
        return detail if len(detail) <= DETAIL else f"{detail[:DETAIL]}\N{HORIZONTAL ELLIPSIS}"

    def in_short(self, row: Any) -> str:
        sequence = "-" if row.sequence is None else row.sequence
        return f"Sequence {sequence}: {row.reason}, {self.why(row)}"

    def send(self, ids: list[int]) -> int:
        return send_each(ids, queue_replay)

    def not_sent(self, ids: list[int], sent: int) -> str:
        """The sweeper replays whatever is left in the state QUEUED."""
        return (
            f"Marked for replay: {self._count(len(ids))}. The queue did not take {len(ids) - sent} of them; "
            "the sweeper finds these within a minute."
        )


def queue_replay(rejected_id: int, connection: Any) -> None:
    replay_rejected.apply_async((rejected_id,), connection=connection, retry=False)
