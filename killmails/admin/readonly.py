"""What all pages of the admin share: they change nothing, and they count no further than they must."""

from typing import Any

from django.contrib import admin
from django.core.paginator import Paginator
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.functional import cached_property

MAX_ID = 2**63 - 1
LOOKUPS = {"", "exact", "isnull", "gte", "lt"}  # what the filters' own links use


class CappedPaginator(Paginator):
    """Pages through the first 10,000 rows: to count all of a large table takes longer than a page."""

    limit = 10_000

    @cached_property
    def count(self) -> int:
        return self.object_list.order_by()[: self.limit].count()


class ReadOnlyAdmin(admin.ModelAdmin):
    """Nobody adds, changes or deletes, superusers included; whoever has the view permission sees."""

    actions: Any = None
    paginator = CappedPaginator
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER  # they count, too
    list_per_page = 50
    list_max_show_all = 500
    sortable_by: Any = ()  # the one order that an index serves

    linked_by: tuple[str, ...] = ()  # columns that links of other pages narrow the list by

    class Media:
        css = {"all": ["killmails/admin.css"]}

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def lookup_allowed(self, lookup: str, value: str, request: HttpRequest | None = None) -> bool:
        """The list's own filters and nothing else: a regular expression in an address could keep a database busy."""
        column, _, kind = lookup.partition("__")
        names = {entry[0] if isinstance(entry, tuple) else entry.parameter_name for entry in self.list_filter}
        if column in self.linked_by:
            return not kind and read_id(str(value)) is not None
        return column in names and kind in LOOKUPS


class NumberSearch(ReadOnlyAdmin):
    """A search box that takes a number, found in the columns of `number_columns`."""

    number_columns: tuple[str, ...] = ("pk",)
    search_fields: Any = ("pk",)  # so that there is a box; what it does is below

    def get_search_results(self, request: HttpRequest, queryset: QuerySet, search_term: str) -> tuple[QuerySet, bool]:
        if not search_term:
            return queryset, False
        number = read_id(search_term)
        if number is None:
            self.message_user(request, "Nothing was found: the search takes a number.", "WARNING")
            return queryset.none(), False
        found = queryset.none()
        for column in self.number_columns:
            found = found | queryset.filter(**{column: number})
        return found, False


def read_id(text: str) -> int | None:
    """The number that was typed; None where it is none, or none that a column of 64 bits could hold."""
    text = text.strip()
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_ID))):
        return None
    return int(text) if int(text) <= MAX_ID else None
