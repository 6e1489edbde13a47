"""The rows of the table, and the scenarios that measure them."""

from dataclasses import dataclass, field
from typing import Any

BURST = 500  # events


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `must` and `aim` are in `unit`, or times the machine's limit where `of_limit`."""

    name: str
    title: str
    unit: str
    must: float
    aim: float
    of_limit: bool = False


@dataclass(frozen=True, slots=True)
class Scenario:
    """A server with so many sockets, of which `receivers` get each event, and the rows that it is good for."""

    name: str
    rows: tuple[Row, ...]
    sockets: int
    receivers: int
    kind: str = "same"
    rounds: int = 9  # events that are measured, one at a time
    burst: int = 0  # events in a row instead


@dataclass(slots=True)
class Result:
    """What came out for one row and one server; `limit` is the machine's own, in the same unit."""

    row: str
    title: str
    server: str
    unit: str
    must: float
    aim: float
    of_limit: bool
    sockets: int
    value: float | None = None
    values: list[float] = field(default_factory=list)
    cpu: float | None = None  # µs of the server's processor time for each delivery
    others: float = 0.0  # processor cores that something else kept busy meanwhile
    limit: float | None = None
    limit_cpu: float | None = None
    limit_others: float = 0.0
    note: str = ""
    failed: str = ""

    @property
    def ratio(self) -> float | None:
        """How many times the machine's limit this is."""
        return self.value / self.limit if self.value is not None and self.limit else None

    @property
    def reached(self) -> str:
        """aim, must, missed, or "" where nothing can be said."""
        compared = self.ratio if self.of_limit else self.value
        if compared is None:
            return "missed" if self.failed else ""
        return "aim" if compared <= self.aim else "must" if compared <= self.must else "missed"

    def as_dict(self) -> dict[str, Any]:
        names = [name for name in self.__slots__ if name != "values"]
        shown = {name: getattr(self, name) for name in names}
        return shown | {"values": self.values, "ratio": self.ratio, "reached": self.reached}


LATENCY = Row("latency", "Commit to one subscriber, p50", "ms", 6, 4)
FANOUT_5000 = Row("fanout5000", "5,000 sockets, one operation: last socket", "ms", 3, 2, of_limit=True)
FANOUT_10000 = Row("fanout10000", "10,000 sockets, one operation: last socket", "ms", 400, 200)
FILTERS = Row("filters", "5,000 sockets, 5,000 different filters, 10 match: last of the ten", "ms", 15, 8)
SELECTIONS = Row("selections", "1,000 sockets, 1,000 different selections, all match: last socket", "ms", 1500, 500)
MEMORY = Row("memory", "Memory for each idle socket, after 10,000", "kB", 32, 20)
IDLE = Row("idle", "10,000 idle sockets, CPU", "% of a core", 5, 2)
BURST_ROW = Row("burst", "Burst of 500 events to 1,000 sockets, all in order, none lost", "s", 15, 7)

SCENARIOS = (
    Scenario("one socket", (LATENCY,), 1, 1, rounds=200),
    Scenario("5,000 sockets", (FANOUT_5000,), 5_000, 5_000),
    Scenario("10,000 sockets", (MEMORY, IDLE, FANOUT_10000), 10_000, 10_000),
    Scenario("5,000 filters", (FILTERS,), 5_000, 10, kind="filters", rounds=25),
    Scenario("1,000 selections", (SELECTIONS,), 1_000, 1_000, kind="selections", rounds=5),
    Scenario("burst", (BURST_ROW,), 1_000, 1_000, burst=BURST),
)
ROWS = (LATENCY, FANOUT_5000, FANOUT_10000, FILTERS, SELECTIONS, MEMORY, IDLE, BURST_ROW)
