"""Django's entry for this app."""

from django.apps import AppConfig


class HealthConfig(AppConfig):
    name = "health"
