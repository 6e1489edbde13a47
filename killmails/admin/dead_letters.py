"""Dead letters: tasks that RabbitMQ gave up on, and what was no task at all."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet

from killmails.admin import columns
from killmails.admin.repair import RepairAdmin, send_each
from killmails.ingest.dead_letters import replay_letter
from killmails.models import DeadLetter
from killmails.tasks import replay_rejected

State = DeadLetter.State


@admin.register(DeadLetter)
class DeadLetterAdmin(RepairAdmin):
    list_display = ("died", "task_name", "arguments", "reason", "deliveries", "state")
    list_filter = (("state", admin.ChoicesFieldListFilter),)
    search_help_text = "The number of a dead letter"
    fields = ("task_name", "arguments", "reason", "queue", "deliveries", "state", "note", "died", "changed")
    readonly_fields = ("task_name", "died", "changed")

    noun = "dead letter"
    file_name = "dead-letter"
    replayable = (State.OPEN.value, State.DISCARDED.value)
    discardable = (State.OPEN.value, State.QUEUED.value)  # its message is a new one, which goes its own way

    @admin.display(description="died at")
    def died(self, letter: DeadLetter) -> str:
        return columns.moment(letter.died_at)

    @admin.display(description="task")
    def task_name(self, letter: DeadLetter) -> str:
        return letter.task or "no task of ours"

    def may_replay(self, row: Any) -> bool:
        return super().may_replay(row) and bool(row.task)

    def narrow(self, queryset: QuerySet) -> QuerySet:
        return queryset.exclude(task="")

    def send(self, ids: list[int]) -> int:
        """What the broker does not take is open again: no sweeper looks for it."""
        sent = send_each(ids, lambda letter_id, connection: replay_letter(replay_rejected.app, letter_id, connection))
        DeadLetter.objects.filter(pk__in=ids[sent:], state=State.QUEUED).update(state=State.OPEN)
        return sent

    def not_sent(self, ids: list[int], sent: int) -> str:
        return f"The queue did not take {len(ids) - sent} of {self._count(len(ids))}; they are open still."
