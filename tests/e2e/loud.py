"""Says secrets in every way that a process has; `celery -A tests.e2e.loud …`, `uvicorn tests.e2e.loud:application`."""

import logging
import os
import sys
import threading
import warnings
from typing import Any

from celery.signals import beat_init, worker_ready

from killboard.celery import app

LOGGERS = (
    "",
    "killboard.x",
    "celery",
    "celery.task",
    "celery.worker",
    "kombu",
    "amqp",
    "redis",
    "django.request",
    "asyncio",
)
MORE = ("django.server", "uvicorn", "uvicorn.error", "uvicorn.access", "multiprocessing", "py.warnings")


def shout(*_: object, **__: object) -> None:
    """Each secret through each logger, as a warning, as an uncaught error of a thread, and printed."""
    address = os.environ["DATABASE_URL"]
    for text in (address, os.environ["SECRET_KEY"], os.environ["METRICS_TOKEN"], "redis://u:p@/#?s@elsewhere/0"):
        said = f"shout\n2026-01-01 00:00:00,000 INFO    killboard: {text}"
        for name in (*LOGGERS, *MORE):
            logging.getLogger(name).error("%s", said)
            try:
                raise ValueError(said)
            except ValueError:
                logging.getLogger(name).exception("Caught.")
        warnings.warn(said, stacklevel=1)
        thread = threading.Thread(target=fail, args=[said])
        thread.start()
        thread.join()
        if not sys.stdout.isatty() and type(sys.stdout).__name__ == "LoggingProxy":  # in Celery
            print(said)


def fail(said: str) -> None:
    raise OSError(said)


@app.task
def shout_and_fail() -> None:
    shout()
    fail(os.environ["DATABASE_URL"])


@worker_ready.connect
def shout_in_the_worker(**_: object) -> None:
    shout()
    shout_and_fail.apply_async(queue="bulk")


beat_init.connect(shout)


def __getattr__(name: str) -> Any:
    """Only uvicorn asks for it."""
    if name != "application":
        raise AttributeError(name)
    from killboard.asgi import application

    shout()
    return application
