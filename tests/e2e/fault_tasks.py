"""Tasks that get into trouble, for a worker of the board: `celery -A tests.e2e.fault_tasks worker`.

Each writes a line into a file of its folder as it begins, and one as it is done.
"""

import os
import signal
import time
from pathlib import Path

from kombu import Queue

from killboard.celery import app
from killboard.queues import EXCHANGE

# Known to be wrong: without a limit to deliveries.
ENDLESS = Queue("endless", EXCHANGE, "endless", queue_arguments={"x-queue-type": "quorum"})
app.conf.task_queues = [*app.conf.task_queues, ENDLESS]


def note(folder: str, line: str) -> None:
    with Path(folder, "notes").open("a") as notes:
        notes.write(f"{time.time():.3f} {os.getpid()} {line}\n")


@app.task
def work(folder: str, name: str, seconds: float) -> None:
    note(folder, f"begun {name}")
    time.sleep(seconds)
    note(folder, f"done {name}")


@app.task(acks_late=False)
def frail_work(folder: str, name: str, seconds: float) -> None:
    """Known to be wrong: acknowledged before it is done."""
    work(folder, name, seconds)


@app.task
def poison(folder_number: int) -> None:
    """Kills its process each time. Only ids travel in messages, so the folder is in the environment."""
    note(os.environ["DATA_DIR"], f"poison {folder_number}")
    os.kill(os.getpid(), signal.SIGKILL)
