"""The part that watches: what each process and each service is doing, for operators and for machines."""

from django.apps import AppConfig


class HealthConfig(AppConfig):
    name = "health"
