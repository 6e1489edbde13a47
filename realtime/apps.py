"""Django's entry for this app."""

from django.apps import AppConfig


class RealtimeConfig(AppConfig):
    name = "realtime"
