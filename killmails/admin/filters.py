"""Filters for lists: by an entity that is typed in, id or name, since a list of 8,000 is no filter."""

from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

from killmails.admin.readonly import read_id
from killmails.errors import Reason
from killmails.models import Entity, InventoryType, SolarSystem

MOST = 20  # entities that one text may mean


class EntityFilter(admin.SimpleListFilter):
    """An input box: a number is an id; a text is a name, or else the beginning of names, in any case."""

    template = "killmails/admin/entity_filter.html"
    model: type[Entity]

    def lookups(self, request: HttpRequest, model_admin: Any) -> tuple[()]:
        return ()

    def has_output(self) -> bool:
        return True

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:
        """One entry: what else the list is narrowed by, for the form to keep."""
        others = [one for one in changelist.filter_params.items() if one[0] != self.parameter_name]
        yield {
            "hidden": [(name, value) for name, values in others for value in values],
            "clear": changelist.get_query_string(remove=[self.parameter_name]),
        }

    @cached_property
    def text(self) -> str:
        return (self.value() or "").replace("\x00", "").strip()

    @cached_property
    def found(self) -> list[Entity]:
        """What the text means."""
        number = read_id(self.text)
        if number is not None:
            return list(self.model.objects.filter(pk=number))
        exact = list(self.model.objects.filter(name__iexact=self.text)[:MOST])
        return exact or list(self.model.objects.filter(name__istartswith=self.text).order_by("name")[:MOST])

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        if not self.text:
            return queryset
        return queryset.filter(**{f"{self.parameter_name}__in": [entity.pk for entity in self.found]})


class SystemFilter(EntityFilter):
    title = "solar system"
    parameter_name = "solar_system"
    model = SolarSystem


class ShipTypeFilter(EntityFilter):
    title = "ship type"
    parameter_name = "victim_ship_type"
    model = InventoryType


class FlagFilter(admin.BooleanFieldListFilter):
    """Yes, no or unknown; `is_npc` is called "npc"."""

    def __init__(self, field: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(field, *args, **kwargs)
        self.title = field.name.removeprefix("is_")


class ReasonFilter(admin.SimpleListFilter):
    """Why a package is in quarantine. The reasons are known; asking the table would read all of it."""

    title = "reason"
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(reason.value, reason.value) for reason in Reason]

    def queryset(self, request: HttpRequest, queryset: QuerySet) -> QuerySet:
        return queryset.filter(reason=self.value()) if self.value() else queryset
