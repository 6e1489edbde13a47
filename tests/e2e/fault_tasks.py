"""Tasks that get into trouble, for a worker of the board: `celery -A tests.e2e.fault_tasks worker`.

Each writes a line into the file `notes` of DATA_DIR as it begins, and one as it is done. SOFT: seconds that tasks in
hand have at the end.
"""

import os
import signal
import time
from pathlib import Path

from kombu import Queue

from killboard import worker
from killboard.celery import app
from killboard.queues import EXCHANGE

NOTES = Path(os.environ["DATA_DIR"], "notes")
worker.SOFT_SHUTDOWN = float(os.environ.get("SOFT", worker.SOFT_SHUTDOWN))
# Known to be wrong: without a limit to deliveries.
ENDLESS = Queue("endless", EXCHANGE, "endless", queue_arguments={"x-queue-type": "quorum"})
app.conf.task_queues = [*app.conf.task_queues, ENDLESS]


def note(what: str, number: int) -> None:
    with NOTES.open("a") as notes:
        notes.write(f"{what} {number} {os.getpid()}\n")


@app.task
def work(number: int, seconds: float) -> None:
    """`seconds`: of the first run. Whoever is killed in it has begun it; the next one is done at once."""
    first = f"begun {number} " not in (NOTES.read_text() if NOTES.exists() else "")
    note("begun", number)
    time.sleep(seconds if first else 0)
    note("done", number)


@app.task
def held_work(number: int) -> None:
    """Goes on until Work.release()."""
    note("begun", number)
    while not (NOTES.parent / "released").exists():
        time.sleep(0.1)
    note("done", number)


@app.task(acks_late=False)
def frail_work(number: int, seconds: float) -> None:
    """Known to be wrong: acknowledged before it is done."""
    work(number, seconds)


@app.task
def poison(number: int, lives: int) -> None:
    """Kills its process each time, so many times."""
    note("poison", number)
    if NOTES.read_text().count(f"poison {number} ") < lives:
        os.kill(os.getpid(), signal.SIGKILL)
