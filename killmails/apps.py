"""Django's entry for this app."""

from django.apps import AppConfig


class KillmailsConfig(AppConfig):
    name = "killmails"
    verbose_name = "Killmails"
