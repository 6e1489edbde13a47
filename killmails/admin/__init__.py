"""The admin: shows everything, and repairs what lies in quarantine. Nothing else can be changed here."""

from django.contrib import admin

from killmails.admin import feed, killmails, rejected, universe

__all__ = ["feed", "killmails", "rejected", "universe"]

admin.site.site_header = "Killboard"
admin.site.site_title = "Killboard"
admin.site.index_title = "What the board holds"
