"""The processes of the board in the admin: to be looked at. They write their rows themselves."""

from django.contrib import admin
from django.http import HttpRequest

from health.models import Process


@admin.register(Process)
class ProcessAdmin(admin.ModelAdmin):
    list_display = ("name", "kind", "worker_id", "queues", "redis", "started_at", "seen_at")
    list_filter = ("kind",)
    ordering = ("kind", "name")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Process | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Process | None = None) -> bool:
        return False
