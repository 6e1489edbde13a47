"""A log in memory and a schema of a few fields, so that the hub is tested without a database."""

import threading
from dataclasses import dataclass, field
from itertools import islice

from graphql import GraphQLError, build_schema

from realtime.log import Head
from realtime.operations import Engine

SDL = """
type Query { hello(name: String = "you"): String! bye: String! slow: String! secret: String refused: String }
type Mutation { greet(name: String!): String! }
type Subscription {
  number(over: Int = 0): Number!
  both(after: String): Number!
  evens(after: String): Number!
  tens(of: [Int!]!, after: String): Number!
}
type Number { position: Int! text: String! padding: String! kind: String! }
"""
SECRET = "hunter2"


@dataclass(frozen=True)
class Number:
    """An event: its position is all that it says."""

    position: int
    kind: str = "ADDED"

    @property
    def keys(self):
        return frozenset({("last digit", self.position % 10)})

    @property
    def text(self):
        return f"number {self.position}"

    @property
    def padding(self):
        return "x" * 10_000


@dataclass(frozen=True)
class NumberStream:
    """Wants what is over a number, even, or ends with one of some digits."""

    checkpoints: bool = False
    over: int = 0
    even: bool = False
    digits: frozenset | None = None
    fields: frozenset = frozenset()
    after: str | None = field(default=None, compare=False)

    @property
    def keys(self):
        return None if self.digits is None else frozenset(("last digit", digit) for digit in self.digits)

    def wants(self, event):
        if event.position <= self.over or (self.even and event.position % 2):
            return False
        return self.digits is None or event.position % 10 in self.digits


class MemoryLog:
    """Dense positions from 1; `fault` is raised by the next reads, `reads` counts, `holes` were deleted."""

    def __init__(self, position=0, epoch="e1"):
        self._lock = threading.Lock()
        self.epoch = epoch
        self.position = position
        self.fault = None
        self.reads = 0
        self.heads = 0
        self.holes = set()  # or a range
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
            there = (number for number in range(after.position + 1, self.position + 1) if number not in self.holes)
            return [Number(number) for number in islice(there, limit)]

    def read_new(self, after, limit, fields):
        head = self.head()
        nothing = head.epoch != after.epoch or head.position <= after.position
        return head, [] if nothing else self.read(after, limit, fields)

    def checkpoint(self, head):
        return Number(head.position, "CHECKPOINT")


class CountingEngine(Engine):
    """Counts executions, by selection and event."""

    def __init__(self, schema=None):
        super().__init__(schema or build_numbers_schema())
        self.executed = []
        self.before_execute = lambda: None

    def execute(self, operation, root=None):
        self.before_execute()
        self.executed.append((operation.selection, root))
        return super().execute(operation, root)

    @property
    def executed_on(self):
        """The positions of the events, without checkpoints."""
        return [event.position for _, event in self.executed if event.kind == "ADDED"]


def build_numbers_schema():
    schema = build_schema(SDL)
    streams = {
        "number": lambda root, info, over: NumberStream(over=over),
        "both": lambda root, info, after=None: NumberStream(checkpoints=True, after=after),
        "evens": lambda root, info, after=None: NumberStream(even=True, after=after),
        "tens": lambda root, info, of, after=None: NumberStream(True, digits=frozenset(of), after=after),
    }
    for name, subscribe in streams.items():
        field = schema.subscription_type.fields[name]
        field.subscribe, field.resolve = subscribe, lambda event, info, **_: event
    query = schema.query_type.fields
    query["hello"].resolve = lambda root, info, name: f"hello {name}"
    schema.mutation_type.fields["greet"].resolve = lambda root, info, name: f"greeted {name}"
    query["bye"].resolve = lambda root, info: "bye"
    query["secret"].resolve = _fail
    query["refused"].resolve = _refuse
    return schema


def _fail(root, info):
    raise RuntimeError(f"the password is {SECRET}")


def _refuse(root, info):
    raise GraphQLError("Only on Sundays.", extensions={"code": "BAD_INPUT"})
