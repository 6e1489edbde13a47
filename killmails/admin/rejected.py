"""Quarantine: what could not be read, why, and what to do about it: replay or discard."""

import logging
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from kombu.exceptions import OperationalError

from killmails.admin import columns
from killmails.admin.filters import ReasonFilter
from killmails.admin.raw import as_file, as_text
from killmails.admin.readonly import NumberSearch
from killmails.models import RejectedKillmail
from killmails.tasks import replay_rejected

logger = logging.getLogger(__name__)

State = RejectedKillmail.State
REPLAYABLE = (State.OPEN.value, State.DISCARDED.value)
DISCARDABLE = (State.OPEN.value,)  # what is queued may be in a worker's hands
NAMED = 20  # packages that the page which asks for a reason names
DETAIL = 120  # characters in the list


class DiscardForm(forms.Form):
    """Why nobody needs these packages."""

    note = forms.CharField(label="Reason", max_length=200, widget=forms.TextInput({"size": 80, "autofocus": True}))


@admin.register(RejectedKillmail)
class RejectedKillmailAdmin(NumberSearch):
    """Seeing takes the view permission, repairing the change permission; nobody edits a row."""

    change_form_template = "admin/killmails/rejectedkillmail/change_form.html"
    actions = ("replay_selected", "discard_selected")
    list_display = ("rejected", "sequence", "killmail_id", "reason", "why", "state")
    list_filter = (ReasonFilter, ("state", admin.ChoicesFieldListFilter))
    list_per_page = 100
    ordering = ("-id",)
    number_columns = ("sequence", "killmail_id")
    search_help_text = "A sequence, or the id of a killmail"
    fields = ("reason", "detail", "state", "note", "sequence", "killmail_id", "rejected", "changed")
    readonly_fields = ("rejected", "changed")

    def has_repair_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("killmails.change_rejectedkillmail")

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        # A list of a hundred would fetch a hundred MiB.
        return super().get_queryset(request).defer("raw")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.raw_file)
        return [path("<int:rejected_id>/raw/", view, name="killmails_rejected_raw"), *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        if obj is not None:
            may = self.has_repair_permission(request)
            context |= {
                "raw": as_text(bytes(obj.raw)),
                "may_replay": may and obj.state in REPLAYABLE,
                "may_discard": may and obj.state in DISCARDABLE,
            }
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def raw_file(self, request: HttpRequest, rejected_id: int) -> HttpResponse:
        """The bytes that were kept, as a file."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        rejected = get_object_or_404(RejectedKillmail, pk=rejected_id)
        return as_file(bytes(rejected.raw), f"rejected-{rejected_id}.bin")

    @admin.display(description="rejected at")
    def rejected(self, rejected: RejectedKillmail) -> str:
        return columns.moment(rejected.rejected_at)

    @admin.display(description="changed at")
    def changed(self, rejected: RejectedKillmail) -> str:
        return columns.moment(rejected.changed_at)

    @admin.display(description="detail")
    def why(self, rejected: RejectedKillmail) -> str:
        detail = rejected.detail
        return detail if len(detail) <= DETAIL else f"{detail[:DETAIL]}\N{HORIZONTAL ELLIPSIS}"

    @admin.action(description="Replay selected packages", permissions=["repair"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet) -> None:
        """Has a worker try them again, by today's rules."""
        asked = queryset.count()
        with transaction.atomic():
            values = {"state": State.QUEUED.value, "note": ""}
            ids = change_state(request, queryset, REPLAYABLE, "Queued for replay.", values)
            transaction.on_commit(lambda: self._queue(request, ids))
        self._tell_left_alone(request, asked - len(ids))

    def _queue(self, request: HttpRequest, ids: list[int]) -> None:
        if not ids:
            return
        sent = queue_replays(ids)
        if sent == len(ids):
            self.message_user(request, f"Queued for replay: {packages(sent)}.", "SUCCESS")
        else:
            self.message_user(
                request,
                f"Marked for replay: {packages(len(ids))}. The queue did not take {len(ids) - sent} of them; "
                "the sweeper finds these within two minutes.",
                "WARNING",
            )

    @admin.action(description="Discard selected packages", permissions=["repair"])
    def discard_selected(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        """Asks for a reason first."""
        form = DiscardForm(request.POST if "note" in request.POST else None)
        if not form.is_valid():
            return self._ask_for_reason(request, queryset, form)
        note, asked = form.cleaned_data["note"], queryset.count()
        with transaction.atomic():
            values = {"state": State.DISCARDED.value, "note": note}
            ids = change_state(request, queryset, DISCARDABLE, f"Discarded: {note}", values)
        if ids:
            self.message_user(request, f"Discarded: {packages(len(ids))}.", "SUCCESS")
        self._tell_left_alone(request, asked - len(ids))
        return None

    def _ask_for_reason(self, request: HttpRequest, queryset: QuerySet, form: DiscardForm) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": "Discard packages",
            "opts": self.opts,
            "form": form,
            "count": queryset.count(),
            "packages": queryset[:NAMED],
            "named": NAMED,
            "checkbox": ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
        }
        return TemplateResponse(request, "killmails/admin/discard.html", context)

    def _tell_left_alone(self, request: HttpRequest, count: int) -> None:
        if count > 0:
            text = f"Left alone: {packages(count)}, because of the state."
            self.message_user(request, text, "WARNING")


def packages(count: int) -> str:
    return f"{count:,} package{'' if count == 1 else 's'}"


def change_state(
    request: HttpRequest, queryset: QuerySet, states: tuple[str, ...], message: str, values: dict[str, str]
) -> list[int]:
    """Gives `values` to what is still in one of `states`, each logged with the user.

    The ids of those that changed. To be called in a transaction: the rows are locked first, so that
    exactly what changes is logged.
    """
    rows = list(queryset.filter(state__in=states).order_by("pk").select_for_update())
    ids = [row.pk for row in rows]
    RejectedKillmail.objects.filter(pk__in=ids, state__in=states).update(changed_at=Now(), **values)
    LogEntry.objects.log_actions(request.user.pk, rows, CHANGE, message)
    logger.info("Quarantine: %d packages are %s now, by user %d.", len(ids), values["state"], request.user.pk)
    return ids


def queue_replays(ids: list[int]) -> int:
    """Sends a message for each. How many the broker took: it may be away, and nobody waits for it here.

    One connection and no second attempt; the sweeper replays whatever is left in the state QUEUED.
    """
    sent = 0
    with replay_rejected.app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=3)
            for rejected_id in ids:
                replay_rejected.apply_async((rejected_id,), connection=connection, retry=False)
                sent += 1
        except (
            OperationalError,
            OSError,
            *connection.connection_errors,
            *connection.channel_errors,
        ) as error:
            logger.warning(
                "The broker took %d of %d replays (%s); the sweeper finds the others.", sent, len(ids), error
            )
    return sent
