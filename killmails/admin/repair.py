"""Lists of what failed and was kept: look at the bytes, queue again, or discard with a reason; each logged."""

import logging
from collections.abc import Callable
from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import CHANGE, LogEntry
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import Model, QuerySet
from django.db.models.functions import Now
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from kombu.exceptions import OperationalError

from killmails.admin import columns
from killmails.admin.raw import as_file, as_text
from killmails.admin.readonly import NumberSearch
from killmails.tasks import replay_rejected

logger = logging.getLogger(__name__)

NAMED = 20  # rows that the page which asks for a reason names
DETAIL = 120  # characters in the list


class DiscardForm(forms.Form):
    """Why nobody needs these."""

    note = forms.CharField(label="Reason", max_length=200, widget=forms.TextInput({"size": 80, "autofocus": True}))


class RepairAdmin(NumberSearch):
    """Seeing takes the view permission, repairing the change permission; nobody edits a row."""

    change_form_template = "admin/killmails/rejectedkillmail/change_form.html"
    actions = ("replay_selected", "discard_selected")
    list_per_page = 100
    ordering = ("-id",)

    noun = ""  # what people call one of them
    file_name = ""  # of the kept bytes
    replayable: tuple[str, ...] = ()  # states
    discardable: tuple[str, ...] = ()

    def send(self, ids: list[int]) -> int:
        """Queues them again. How many the broker took."""
        raise NotImplementedError

    def has_repair_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm(f"killmails.change_{self.opts.model_name}")

    def may_replay(self, row: Any) -> bool:
        return row.state in self.replayable

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        # A list of a hundred would fetch a hundred MiB.
        return super().get_queryset(request).defer("raw")

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.raw_file)
        name = f"killmails_{self.opts.model_name}_raw"
        return [path("<int:row_id>/raw/", view, name=name), *super().get_urls()]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        if obj is not None:
            may = self.has_repair_permission(request)
            context |= {
                "raw": as_text(bytes(obj.raw)),
                "raw_url": f"admin:killmails_{self.opts.model_name}_raw",
                "may_replay": may and self.may_replay(obj),
                "may_discard": may and obj.state in self.discardable,
            }
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def raw_file(self, request: HttpRequest, row_id: int) -> HttpResponse:
        """The bytes that were kept, as a file."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = get_object_or_404(self.model, pk=row_id)
        return as_file(bytes(row.raw), f"{self.file_name}-{row_id}.bin")

    @admin.display(description="changed at")
    def changed(self, row: Any) -> str:
        return columns.moment(row.changed_at)

    @admin.action(description="Queue selected ones again", permissions=["repair"])
    def replay_selected(self, request: HttpRequest, queryset: QuerySet) -> None:
        """Has a worker try them again, by today's rules."""
        asked = queryset.count()
        with transaction.atomic():
            values = {"state": "QUEUED", "note": ""}
            ids = change_state(request, self.narrow(queryset), self.replayable, "Queued for replay.", values)
            transaction.on_commit(lambda: self._queue(request, ids))
        self._tell_left_alone(request, asked - len(ids))

    def narrow(self, queryset: QuerySet) -> QuerySet:
        """Those that can be queued again at all."""
        return queryset

    def _queue(self, request: HttpRequest, ids: list[int]) -> None:
        if not ids:
            return
        sent = self.send(ids)
        if sent == len(ids):
            self.message_user(request, f"Queued for replay: {self._count(sent)}.", "SUCCESS")
        else:
            self.message_user(request, self.not_sent(ids, sent), "WARNING")

    def not_sent(self, ids: list[int], sent: int) -> str:
        """What becomes of those that the broker did not take."""
        raise NotImplementedError

    @admin.action(description="Discard selected ones", permissions=["repair"])
    def discard_selected(self, request: HttpRequest, queryset: QuerySet) -> HttpResponse | None:
        """Asks for a reason first."""
        form = DiscardForm(request.POST if "note" in request.POST else None)
        if not form.is_valid():
            return self._ask_for_reason(request, queryset, form)
        note, asked = form.cleaned_data["note"], queryset.count()
        with transaction.atomic():
            values = {"state": "DISCARDED", "note": note}
            ids = change_state(request, queryset, self.discardable, f"Discarded: {note}", values)
        if ids:
            self.message_user(request, f"Discarded: {self._count(len(ids))}.", "SUCCESS")
        self._tell_left_alone(request, asked - len(ids))
        return None

    def _ask_for_reason(self, request: HttpRequest, queryset: QuerySet, form: DiscardForm) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "title": f"Discard {self.noun}s",
            "opts": self.opts,
            "form": form,
            "counted": self._count(queryset.count()),
            "more": queryset.count() > NAMED,
            "rows": [self.in_short(row) for row in queryset[:NAMED]],
            "checkbox": ACTION_CHECKBOX_NAME,
            "selected": request.POST.getlist(ACTION_CHECKBOX_NAME),
            "select_across": request.POST.get("select_across", "0"),
        }
        return TemplateResponse(request, "killmails/admin/discard.html", context)

    def in_short(self, row: Any) -> str:
        """One line, for the page that asks for a reason."""
        return str(row)

    def _tell_left_alone(self, request: HttpRequest, count: int) -> None:
        if count > 0:
            text = f"Left alone: {self._count(count)}, because of the state."
            self.message_user(request, text, "WARNING")

    def _count(self, count: int) -> str:
        return f"{count:,} {self.noun}{'' if count == 1 else 's'}"


def change_state(
    request: HttpRequest, queryset: QuerySet, states: tuple[str, ...], message: str, values: dict[str, str]
) -> list[int]:
    """Gives `values` to what is still in one of `states`, each logged with the user.

    The ids of those that changed. To be called in a transaction: the rows are locked first, so that
    exactly what changes is logged.
    """
    model: type[Model] = queryset.model
    rows = list(queryset.filter(state__in=states).order_by("pk").select_for_update())
    ids = [row.pk for row in rows]
    model.objects.filter(pk__in=ids, state__in=states).update(changed_at=Now(), **values)
    LogEntry.objects.log_actions(request.user.pk, rows, CHANGE, message)
    logger.info("%s: %d are %s now, by user %d.", model.__name__, len(ids), values["state"], request.user.pk)
    return ids


def send_each(ids: list[int], send: Callable[[int, Any], None]) -> int:
    """Calls `send` with each id and a connection to the broker. How many it took: nobody waits for one that is away.

    One connection and no second attempt.
    """
    sent = 0
    with replay_rejected.app.connection_for_write() as connection:
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0, timeout=3)
            for row_id in ids:
                send(row_id, connection)
                sent += 1
        except (OperationalError, OSError, *connection.connection_errors, *connection.channel_errors) as error:
            logger.warning("The broker took %d of %d messages (%s).", sent, len(ids), error)
    return sent
