"""Django's entry for the board as a whole: its system checks."""

from django.apps import AppConfig


class KillboardConfig(AppConfig):
    name = "killboard"

    def ready(self) -> None:
        from killboard import checks  # noqa: F401  (registers them)
