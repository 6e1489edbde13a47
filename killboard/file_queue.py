"""Celery's queue of files, for the embedded way: nobody sees half a message, and a damaged one is dropped."""

import json
import logging
import time
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import filesystem

logger = logging.getLogger(__name__)


class Channel(filesystem.Channel):
    """kombu's own reads a message while it is written, and lets the error end the worker.

    (mypy: its two bases name the arguments of `_put` differently.)
    """

    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]
        name = f"{round(time.monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        file = Path(self.data_folder_out, name)
        unfinished = file.with_name(f"{name}.unfinished")
        unfinished.write_text(json.dumps(payload))
        unfinished.replace(file)

    def _get(self, queue: str, timeout: Any = None) -> Any:
        while True:
            try:
                return super()._get(queue)
            except ValueError:  # the file is gone from the queue by now
                logger.warning("A damaged message of %s was dropped; the sweeper finds what it was for.", queue)


class Transport(filesystem.Transport):
    """As kombu's, with our channel."""

    Channel = Channel
