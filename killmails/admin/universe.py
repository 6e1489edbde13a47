"""Entities and the universe: ids and names, to be looked up."""

from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from killmails import models
from killmails.admin.readonly import ReadOnlyAdmin, read_id


@admin.register(
    models.Alliance,
    models.Character,
    models.Corporation,
    models.Faction,
    models.InventoryCategory,
    models.Region,
)
class EntityAdmin(ReadOnlyAdmin):
    list_display: Any = ("id", "name")
    list_display_links = ("id", "name")
    ordering = ("id",)
    search_fields = ("name",)
    search_help_text = "An id, or a part of a name"

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        if not search_term:
            return queryset, False
        by_name = Q(name__icontains=search_term.strip())
        number = read_id(search_term)
        return queryset.filter(by_name if number is None else by_name | Q(pk=number)), False


class _PartAdmin(EntityAdmin):
    """Something that is a part of something else."""

    whole: str

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        return (*self.list_display, self.whole)

    def get_queryset(self, request: HttpRequest) -> QuerySet:
        return super().get_queryset(request).select_related(self.whole)


@admin.register(models.Constellation)
class ConstellationAdmin(_PartAdmin):
    whole = "region"


@admin.register(models.SolarSystem)
class SolarSystemAdmin(_PartAdmin):
    list_display = ("id", "name", "security_status")
    whole = "constellation"


@admin.register(models.InventoryGroup)
class InventoryGroupAdmin(_PartAdmin):
    whole = "category"


@admin.register(models.InventoryType)
class InventoryTypeAdmin(_PartAdmin):
    whole = "group"
