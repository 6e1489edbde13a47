"""Wiring: settings, Celery, ASGI, URLs, the GraphQL schema. Behaviour lives in the other apps."""

from killboard.celery import app as celery_app

__all__ = ["celery_app"]
