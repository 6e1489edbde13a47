"""Sending tasks that get into trouble, and what became of them: see fault_tasks.py."""

import os
import signal
from typing import Any

from kombu import Connection, Producer

from killboard.celery import app
from killboard.queues import EXCHANGE
from tests.e2e.processes import BIN, Board, Process
from tests.e2e.sockets import wait_until

LIMITS = {"confirm_publish": True, "connect_timeout": 20, "read_timeout": 20, "write_timeout": 20}


class Work:
    """Of one board and its broker."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._number = 0

    def worker(self, name: str, *options: str) -> Process:
        return self._board.start(
            name,
            str(BIN / "celery"),
            "-A",
            "tests.e2e.fault_tasks",
            "worker",
            "-n",
            f"{name}@%h",
            "-l",
            "info",
            *options,
        )

    def connection(self) -> Connection:
        return Connection(self._board.env["RABBITMQ_URL"], transport_options=LIMITS)

    def send(self, task: str, *more: object, queue: str = "killboard.bulk") -> int:
        """A task with a number of its own, which is given back. Raises what the client of the broker raises."""
        self._number += 1
        self.send_task(f"tests.e2e.fault_tasks.{task}", self._number, *more, queue=queue)
        return self._number

    def send_task(self, name: str, *arguments: object, queue: str = "killboard.bulk") -> None:
        with self.connection() as connection:
            app.send_task(
                name,
                arguments,
                connection=connection,
                exchange=EXCHANGE,
                routing_key=queue,
                retry=False,
                ignore_result=True,
            )

    def send_raw(self, body: bytes, content_type: str, **headers: Any) -> None:
        with self.connection() as connection:
            Producer(connection, EXCHANGE, "killboard.bulk").publish(
                body, content_type=content_type, content_encoding="utf-8", headers=headers
            )

    def waiting(self) -> list[tuple[str, int]]:
        """Takes the tasks that wait in `bulk` out of it: their names, and their numbers."""
        found = []
        with self.connection() as connection:
            queue = app.amqp.queues["bulk"](connection.default_channel)
            queue.declare()
            while message := queue.get(no_ack=True):
                task = message.headers["task"].rpartition(".")[2]
                found += [(task, *message.payload[0][:1])]
        return found

    def notes(self, what: str, number: int) -> list[int]:
        """The processes that have noted it."""
        file = self._board.folder / "notes"
        lines = [line.split() for line in file.read_text().splitlines()] if file.exists() else []
        return [int(pid) for noted, of, pid in lines if (noted, int(of)) == (what, number)]

    def wait_for(self, what: str, number: int, times: int = 1, seconds: float = 90) -> None:
        wait_until(lambda: len(self.notes(what, number)) >= times, seconds)

    def release(self) -> None:
        """Let each `held_work` end."""
        (self._board.folder / "released").touch()

    def kill(self, number: int) -> None:
        """The process that has begun it last."""
        self.wait_for("begun", number)
        os.kill(self.notes("begun", number)[-1], signal.SIGKILL)

    def times(self, number: int) -> tuple[int, int]:
        """How often it has begun, and was done."""
        return len(self.notes("begun", number)), len(self.notes("done", number))
