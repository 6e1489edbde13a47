"""The admin shows everything, and repairs what is in quarantine or among the dead letters; it changes nothing else."""

from django.contrib import admin

from killmails.admin import dead_letters, feed, killmails, rejected, universe, users

__all__ = ["dead_letters", "feed", "killmails", "rejected", "universe", "users"]

admin.site.site_header = "Killboard"
admin.site.site_title = "Killboard"
admin.site.index_title = "What the board holds"
