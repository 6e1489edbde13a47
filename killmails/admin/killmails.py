"""Killmails and their attackers, to be looked at: list, page, package."""

from datetime import UTC, datetime
from typing import Any

from django.contrib import admin
from django.core.exceptions import PermissionDenied
from django.forms.models import BaseInlineFormSet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from killmails.admin import columns
from killmails.admin.filters import FlagFilter, ShipTypeFilter, SystemFilter
from killmails.admin.items import item_table
from killmails.admin.raw import as_file, as_json
from killmails.admin.readonly import MAX_ID, NumberSearch, ReadOnlyAdmin
from killmails.models import Attacker, Killmail, KillmailPackage
from killmails.models.killmails import AttackerQuerySet

FIRST_ATTACKERS = 100
FLAGS = (("is_npc", "NPC"), ("is_solo", "solo"), ("is_awox", "awox"))
VALUES = ("fitted_value", "dropped_value", "destroyed_value", "total_value")
ATTACKER_FIELDS = (
    "ordinal", "character", "corporation", "alliance", "faction", "ship_type", "weapon_type",
    "damage_done", "final_blow", "security_status",
)  # fmt: skip


class FirstAttackers(BaseInlineFormSet):
    """The largest killmail has 3,753 attackers; its page shows the first ones, and leads to the others."""

    def get_queryset(self) -> AttackerQuerySet:
        if not hasattr(self, "_queryset"):
            self._queryset = super().get_queryset()[:FIRST_ATTACKERS]
        return self._queryset


class AttackerInline(admin.TabularInline):
    model = Attacker
    formset = FirstAttackers
    fields = readonly_fields = ATTACKER_FIELDS
    ordering = ("ordinal",)
    can_delete = False
    verbose_name_plural = f"attackers (the first {FIRST_ATTACKERS})"

    def get_queryset(self, request: HttpRequest) -> AttackerQuerySet:
        return super().get_queryset(request).with_names()

    def has_view_permission(self, request: HttpRequest, obj: Killmail | None = None) -> bool:
        return _may_see(request)  # they are a part of the killmail

    def has_add_permission(self, request: HttpRequest, obj: Killmail | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Killmail | None = None) -> bool:
        return False


@admin.register(Attacker)
class AttackerAdmin(ReadOnlyAdmin):
    """All attackers of a killmail; reached from its page (`?killmail=…`)."""

    list_display = ("mail", *ATTACKER_FIELDS)
    list_display_links = None
    list_select_related = ("character", "corporation", "alliance", "faction", "ship_type", "weapon_type")
    list_per_page = 200
    linked_by = ("killmail",)
    ordering = ("killmail_id", "ordinal")

    def has_module_permission(self, request: HttpRequest) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Attacker | None = None) -> bool:
        return _may_see(request)

    @admin.display(description="killmail")
    def mail(self, attacker: Attacker) -> SafeString:
        return columns.link(Killmail, attacker.killmail_id, attacker.killmail_id)


def _may_see(request: HttpRequest) -> bool:
    return request.user.has_perm("killmails.view_killmail")


@admin.register(Killmail)
class KillmailAdmin(NumberSearch):
    """Newest first. Searching takes an id; everything else is a filter."""

    change_form_template = "admin/killmails/killmail/change_form.html"
    list_display = ("when", "ship", "victim", "system", "value", "attackers", "flags")
    list_filter = (
        SystemFilter,
        ShipTypeFilter,
        ("time", admin.DateFieldListFilter),
        ("is_npc", FlagFilter),
        ("is_solo", FlagFilter),
        ("is_awox", FlagFilter),
    )
    list_select_related = (
        "solar_system__constellation__region",
        "victim_ship_type",
        "victim_character",
        "victim_corporation",
        "victim_alliance",
        "victim_faction",
    )
    ordering = ("-time", "-id")
    search_help_text = "The id of a killmail"
    inlines = (AttackerInline,)
    fieldsets = (
        (None, {"fields": ("id", "hash", "when", "place", "security_band", "location_id", "moon_id", "war_id")}),
        ("Victim", {"fields": (
            "victim_character", "victim_corporation", "victim_alliance", "victim_faction", "victim_ship_type",
            "damage_taken", "position",
        )}),
        ("Attackers", {"fields": ("attacker_count", "final_blow_by")}),
        ("Values", {"fields": ("values_by", "values", "points", "is_npc", "is_solo", "is_awox", "label_names")}),
        ("How it came", {"fields": ("sequence", "uploaded", "stored")}),
    )  # fmt: skip
    readonly_fields = (
        "when", "place", "position", "final_blow_by", "values", "label_names", "uploaded", "stored",
    )  # fmt: skip

    def get_queryset(self, request: HttpRequest) -> Any:
        return super().get_queryset(request).select_related(*self.list_select_related)

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view
        return [
            path("<int:killmail_id>/package/", view(self.package), name="killmails_killmail_package"),
            path("<int:killmail_id>/package/file/", view(self.package_file), name="killmails_killmail_file"),
            *super().get_urls(),
        ]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, obj: Any = None, **kwargs: Any
    ) -> HttpResponse:
        if obj is not None:
            context |= {"items": item_table(obj), "more_attackers": obj.attacker_count > FIRST_ATTACKERS}
        return super().render_change_form(request, context, *args, obj=obj, **kwargs)

    def package(self, request: HttpRequest, killmail_id: int) -> HttpResponse:
        """The package as it was received, to be read."""
        package = self._package(request, killmail_id)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Package of killmail {killmail_id}",
            "opts": self.opts,
            "killmail_id": killmail_id,
            "raw": as_json(package.raw()),
        }
        return TemplateResponse(request, "killmails/admin/package.html", context)

    def package_file(self, request: HttpRequest, killmail_id: int) -> HttpResponse:
        """The same, byte for byte, as a file."""
        return as_file(self._package(request, killmail_id).raw(), f"killmail-{killmail_id}.json")

    def _package(self, request: HttpRequest, killmail_id: int) -> KillmailPackage:
        if not self.has_view_permission(request):
            raise PermissionDenied
        # Databases refuse numbers beyond 64 bits, and Django lets them through where the key is a reference.
        return get_object_or_404(KillmailPackage, pk=min(killmail_id, MAX_ID))

    @admin.display(description="time")
    def when(self, killmail: Killmail) -> str:
        return columns.moment(killmail.time)

    @admin.display(description="ship")
    def ship(self, killmail: Killmail) -> str:
        return str(killmail.victim_ship_type)

    @admin.display(description="victim")
    def victim(self, killmail: Killmail) -> SafeString:
        whose = killmail.victim_alliance or killmail.victim_corporation or killmail.victim_faction
        if killmail.victim_character is None:
            return format_html("<bdi>{}</bdi>", killmail.victim_corporation or whose or columns.NOTHING)
        who = killmail.victim_character
        return format_html('<bdi>{}</bdi> <bdi class="quiet">{}</bdi>', who, whose or "")

    @admin.display(description="system")
    def system(self, killmail: Killmail) -> SafeString:
        system = killmail.solar_system
        region = system.constellation.region if system.constellation else None
        return format_html('{} <span class="quiet">{}</span>', system, region or "")

    @admin.display(description="value (ISK)")
    def value(self, killmail: Killmail) -> SafeString | str:
        return columns.isk(killmail.total_value)

    @admin.display(description="attackers")
    def attackers(self, killmail: Killmail) -> int:
        return killmail.attacker_count

    @admin.display(description="flags", empty_value="")
    def flags(self, killmail: Killmail) -> SafeString:
        names = [(name,) for column, name in FLAGS if getattr(killmail, column)]
        return format_html_join(" ", '<span class="flag">{}</span>', names)

    @admin.display(description="solar system")
    def place(self, killmail: Killmail) -> SafeString:
        system, constellation = killmail.solar_system, killmail.solar_system.constellation
        rows = [row for row in (system, constellation, constellation and constellation.region) if row]
        links = ((columns.link(type(row), row.pk, row),) for row in rows)
        return format_html_join(" \N{SINGLE LEFT-POINTING ANGLE QUOTATION MARK} ", "{}", links)

    @admin.display(description="position (m)")
    def position(self, killmail: Killmail) -> str:
        if killmail.position_x is None:
            return columns.NOTHING
        return f"x {killmail.position_x:,.0f}   y {killmail.position_y:,.0f}   z {killmail.position_z:,.0f}"

    @admin.display(description="final blow")
    def final_blow_by(self, killmail: Killmail) -> str:
        attacker = Attacker.objects.with_names().filter(killmail=killmail, final_blow=True).first()
        if attacker is None:
            return columns.NOTHING
        who = attacker.character or attacker.corporation or attacker.faction or "nobody named"
        return f"{who}, in {attacker.ship_type}" if attacker.ship_type else str(who)

    @admin.display(description="values (ISK)")
    def values(self, killmail: Killmail) -> SafeString:
        rows = ((name.removesuffix("_value"), columns.isk(getattr(killmail, name))) for name in VALUES)
        return format_html_join(" \N{MIDDLE DOT} ", "{} {}", rows)

    @admin.display(description="labels")
    def label_names(self, killmail: Killmail) -> str:
        return ", ".join(str(label) for label in killmail.labels) or columns.NOTHING

    @admin.display(description="uploaded at")
    def uploaded(self, killmail: Killmail) -> str:
        if killmail.uploaded_at is None:
            return columns.NOTHING
        return f"{killmail.uploaded_at} ({_unix(killmail.uploaded_at)}, by zKillboard's clock)"

    @admin.display(description="stored at")
    def stored(self, killmail: Killmail) -> str:
        return columns.moment(killmail.stored_at)


def _unix(seconds: int) -> str:
    try:
        return columns.moment(datetime.fromtimestamp(seconds, UTC))
    except (ValueError, OverflowError, OSError):
        return "no time that there is"
