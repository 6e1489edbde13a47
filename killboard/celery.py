"""The Celery application: queues, schedule, and the feed as a part of each worker that serves the feed's queue."""

import logging
import os
from typing import Any

from celery import Celery
from celery.schedules import schedule
from celery.signals import beat_init, before_task_publish, setup_logging, worker_init, worker_shutting_down
from kombu.transport import TRANSPORT_ALIASES

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "killboard.settings")

from django.conf import settings
from django.db import connections

from killboard.feed_step import FeedStep
from killboard.queues import BULK_QUEUE, DEAD_LETTERS, DELIVERIES, ROUTES, WORK_QUEUES
from killboard.registration import RegistryStep, register_beat
from killboard.services import require_services
from killboard.worker import SOFT_SHUTDOWN, CtrlCStep, DeadLetterStep, WatchStep, end_in_time

SWEEP = 15.0  # seconds; whatever a lost message had asked for is found within this + what the sweeper leaves alone
HOUR = 3600.0  # seconds


def _embedded() -> dict[str, object]:
    """Without RabbitMQ, messages are files: `memory://` cannot be reached from a second terminal."""
    folder = settings.DATA_DIR / "queue"
    for name in ("messages", "control"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    options = {
        "data_folder_in": str(folder / "messages"),
        "data_folder_out": str(folder / "messages"),
        "control_folder": str(folder / "control"),
        "polling_interval": 0.05,
    }
    TRANSPORT_ALIASES["files"] = "killboard.file_queue:Transport"
    return {"broker_url": "files://localhost", "broker_transport_options": options, "worker_pool": "threads"}


def _rabbitmq() -> dict[str, object]:
    # Publishing to a broker that hangs would block without bound.
    limits = {
        "confirm_publish": True,
        "confirm_timeout": 3,
        "connect_timeout": 3,
        "read_timeout": 3,
        "write_timeout": 3,
    }
    return {"broker_url": settings.RABBITMQ_URL, "broker_transport_options": limits}


app = Celery("killboard")
app.conf.update(
    **(_rabbitmq() if settings.RABBITMQ_URL else _embedded()),
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,  # the default gives up after 100
    broker_heartbeat=10,
    task_queues=WORK_QUEUES,
    task_default_queue=BULK_QUEUE,
    task_routes=ROUTES,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_ignore_result=True,
    task_time_limit=600,  # RabbitMQ takes a message back after 30 minutes without an acknowledgement
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_soft_shutdown_timeout=SOFT_SHUTDOWN,
    worker_consumer="killboard.worker:Consumer",
    worker_cancel_long_running_tasks_on_connection_loss=True,
    worker_hijack_root_logger=False,
    timezone="UTC",
    # It keeps no file: what is due is found in the database, and a signal while it writes one ends beat with 1.
    beat_scheduler="celery.beat:Scheduler",
    # What is daily is asked each hour: it counts from the start of beat, and the database knows when a day is over.
    beat_schedule={
        task: {"task": task, "schedule": schedule(seconds), "options": {"expires": seconds}}
        for task, seconds in (
            ("killmails.tasks.sweep_replays", SWEEP),
            ("killmails.tasks.collect_dead_letters", SWEEP),
            ("killmails.tasks.fill_names", SWEEP),
            ("killmails.tasks.work_on_esi", SWEEP),
            ("killmails.tasks.publish_withheld", SWEEP),
            ("killmails.tasks.forget_what_is_public", HOUR),
            ("killmails.tasks.notice_static_data", HOUR),
            ("killmails.tasks.load_newest_prices", HOUR),
            ("killboard.tasks.forget_sessions", HOUR),
        )
    },
    # Ours; a queue of files has none.
    dead_letters=DEAD_LETTERS if settings.RABBITMQ_URL else None,
    most_deliveries=1 + DELIVERIES,
)
app.autodiscover_tasks(["killmails", "killboard"])
app.steps["worker"].update({CtrlCStep, FeedStep, RegistryStep})
app.steps["consumer"].update({DeadLetterStep, WatchStep})
worker_shutting_down.connect(end_in_time)


@setup_logging.connect
def _log_like_the_others(loglevel: int, **_: object) -> None:
    """Celery's own handlers would hide no secrets; `-l` is for its own loggers. What is printed is logged, too."""
    logging.getLogger("celery").setLevel(loglevel)
    app.log.redirect_stdouts()


@before_task_publish.connect
def _leave_expiry_to_rabbitmq(headers: dict[str, Any], properties: dict[str, Any], **_: object) -> None:
    """RabbitMQ drops by its own clock what nobody took in time. A worker whose clock is ahead would drop everything."""
    if settings.RABBITMQ_URL and "expiration" in properties:
        headers["expires"] = None


@worker_init.connect
def _prepare_worker(**_: object) -> None:
    # A pool of connections does not survive the fork of the worker's children.
    connections.settings["default"]["OPTIONS"].pop("pool", None)
    require_services("worker")


@beat_init.connect
def _prepare_beat(**_: object) -> None:
    require_services("beat")
    register_beat()
