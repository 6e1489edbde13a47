"""A log in memory and a schema of three fields, so that the hub is tested without a database."""

import threading
from dataclasses import dataclass

from graphql import GraphQLError, build_schema

from realtime.log import Head
from realtime.operations import Engine

SDL = """
type Query { hello(name: String = "you"): String! bye: String! slow: String! secret: String refused: String }
type Subscription { number(over: Int = 0): Number! both: Number! evens: Number! }
type Number { position: Int! text: String! padding: String! kind: String! }
"""
SECRET = "hunter2"


@dataclass(frozen=True)
class Number:
    """An event: its position is all that it says."""

    position: int
    kind: str = "ADDED"

    @property
    def text(self):
        return f"number {self.position}"

    @property
    def padding(self):
        return "x" * 10_000


@dataclass(frozen=True)
class NumberStream:
    checkpoints: bool = False
    over: int = 0
    even: bool = False

    def wants(self, event):
        return event.position > self.over and (not self.even or event.position % 2 == 0)


class MemoryLog:
    """Dense positions from 1; `fault` is raised by the next reads, `reads` counts, `holes` are left out."""

    def __init__(self, position=0, epoch="e1"):
        self._lock = threading.Lock()
        self.epoch = epoch
        self.position = position
        self.fault = None
        self.reads = 0
        self.heads = 0
        self.holes = set()
        self.before_read = lambda: None

    def append(self, count=1):
        with self._lock:
            self.position += count

    def reset(self, epoch, position=0):
        with self._lock:
            self.epoch, self.position = epoch, position

    def head(self):
        self.heads += 1
        if self.fault:
            raise self.fault
        with self._lock:
            return Head(self.epoch, self.position)

    def read(self, after, limit, fields):
        self.reads += 1
        self.before_read()
        if self.fault:
            raise self.fault
        with self._lock:
            last = min(self.position, after.position + limit)
        return [Number(number) for number in range(after.position + 1, last + 1) if number not in self.holes]

    def checkpoint(self, head):
        return Number(head.position, "CHECKPOINT")


class CountingEngine(Engine):
    """Counts executions, by operation and position."""

    def __init__(self, schema=None):
        super().__init__(schema or build_numbers_schema())
        self.executed = []
        self.before_execute = lambda: None

    def execute(self, operation, root=None):
        self.before_execute()
        self.executed.append((operation.text, getattr(root, "position", None)))
        return super().execute(operation, root)


def build_numbers_schema():
    schema = build_schema(SDL)
    streams = {
        "number": lambda root, info, over: NumberStream(over=over),
        "both": lambda root, info: NumberStream(checkpoints=True),
        "evens": lambda root, info: NumberStream(even=True),
    }
    for name, subscribe in streams.items():
        field = schema.subscription_type.fields[name]
        field.subscribe, field.resolve = subscribe, lambda event, info, **_: event
    query = schema.query_type.fields
    query["hello"].resolve = lambda root, info, name: f"hello {name}"
    query["bye"].resolve = lambda root, info: "bye"
    query["secret"].resolve = _fail
    query["refused"].resolve = _refuse
    return schema


def _fail(root, info):
    raise RuntimeError(f"the password is {SECRET}")


def _refuse(root, info):
    raise GraphQLError("Only on Sundays.", extensions={"code": "BAD_INPUT"})
