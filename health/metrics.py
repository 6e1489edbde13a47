"""`/metrics`: what there is to be drawn and to be warned of, in the text form of Prometheus."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from health.part import Part, State

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_PLAIN_1_0_0
MOST_GROUPS = 50  # of ESI's limits; it has a dozen
ESI_REQUESTS = "Questions of all workers to ESI, by what was answered; 0: no answer came."
ESI_BANNED = "Seconds until ESI, which has blocked this board, is asked again; 0: it has not."
ESI_LEFT = "What may still be asked of ESI: tokens by group, and errors in this minute."
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0)

prometheus_client.disable_created_metrics()
# Of this process. Not the library's own registry, which tells the versions of what we run on.
_own = CollectorRegistry()
ProcessCollector(registry=_own)
_latency = Histogram(
    "killboard_publish_to_socket_seconds",
    "From the commit of an event to when its frames were handed to the sockets that want it; by two machines' clocks.",
    buckets=BUCKETS,
    registry=_own,
)


def delivered(event: Any) -> None:
    """The hub has given this event (of the log) to every socket that wants it."""
    if event.created_at is not None:
        _latency.observe(max(0.0, (datetime.now(UTC) - event.created_at).total_seconds()))


def render(parts: dict[str, Part]) -> bytes:
    """Values that are not known at the moment are left out."""
    registry = CollectorRegistry()
    registry.register(_Parts({name: part.facts for name, part in parts.items()}, parts))
    return prometheus_client.generate_latest(registry) + prometheus_client.generate_latest(_own)


class _Parts:
    """The parts of the board as the library wants to collect them."""

    def __init__(self, facts: dict[str, dict[str, Any]], parts: dict[str, Part]) -> None:
        self._facts = facts
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        states = [([name], float(part.status is State.OK)) for name, part in self._parts.items()]
        yield _gauge(
            "part_ok", "1 where the part of the board is ok, 0 where it is degraded or down.", states, ["part"]
        )
        for name, text, part, fact in SINGLE:
            yield _gauge(name, text, [([], self._facts.get(part, {}).get(fact))])
        yield from self._queues()
        yield from self._workers()

    def _queues(self) -> Iterator[Metric]:
        queues = self._facts.get("rabbitmq", {}).get("queues", {})
        for fact, text in (("messages", "Messages in line."), ("consumers", "Workers that serve the queue.")):
            values = [([name], told[fact]) for name, told in queues.items()]
            yield _gauge(f"queue_{fact}", text, values, ["queue"])

    def _workers(self) -> Iterator[Metric]:
        workers = [one for one in self._facts.get("workers", {}).get("workers", []) if one["alive"]]
        if "workers" in self._facts.get("workers", {}):
            yield _gauge("workers_alive", "Workers that told lately that they live.", [([], len(workers))])
        for name, told, labels, text in COUNTED:
            metric = CounterMetricFamily(f"killboard_{name}", text, labels=["worker", *labels])
            counts: Counter[tuple[str, ...]] = Counter()  # two of one name are one
            for worker in workers:
                for values, count in told(worker["counted"]).items():
                    counts[worker["name"], *values] += count
            for values, count in sorted(counts.items()):
                metric.add_metric(values, count)
            yield metric
        yield from _esi([worker["counted"].get("esi") or {} for worker in workers])


def _asked(counted: dict[str, Any]) -> dict[tuple[str, ...], int]:
    """By upstream and answer."""
    upstreams = {"zkillboard": counted.get("upstream", {}), **counted.get("others", {})}
    return {(name, answer): count for name, told in upstreams.items() for answer, count in told.items()}


def _stored(counted: dict[str, Any]) -> dict[tuple[str, ...], int]:
    return {(outcome,): count for outcome, count in counted.get("stored", {}).items()}


def _esi(told: list[dict[str, Any]]) -> Iterator[Metric]:
    """All workers tell of the same counts, each as it last saw them: the least is left, the most were asked."""
    answers, left = CounterMetricFamily("killboard_esi_requests", ESI_REQUESTS, labels=["answer"]), {}
    most: dict[str, int] = {}
    for one in told:
        for name, count in one.get("answers", {}).items():
            most[name] = max(count, most.get(name, 0))
        for name, count in one.get("left", {}).items():
            left[name] = min(count, left.get(name, count))
    for name, count in sorted(most.items()):
        answers.add_metric([name], count)
    yield answers
    bans = [one["banned_for"] for one in told if "banned_for" in one]
    yield _gauge("esi_banned_seconds", ESI_BANNED, [([], max(bans, default=None))])
    yield _gauge("esi_budget_left", ESI_LEFT, [([name], left[name]) for name in sorted(left)[:MOST_GROUPS]], ["group"])


def _gauge(name: str, text: str, values: list[tuple[list[str], Any]], labels: list[str] | None = None) -> Metric:
    metric = GaugeMetricFamily(f"killboard_{name}", text, labels=labels or [])
    for label, value in values:
        if value is not None:
            metric.add_metric(label, value)
    return metric


# Name, description, part, and what the part calls it.
SINGLE = [
    (
        "feed_lag_sequences",
        "Packages that the feed has and we have not; by the newest pointer.",
        "feed",
        "lag_sequences",
    ),
    (
        "feed_lag_seconds",
        "Age of what was stored last, by its upload; 0 while there is no more.",
        "feed",
        "lag_seconds",
    ),
    ("feed_cursor", "The next sequence to take.", "feed", "cursor"),
    ("feed_open_holes", "Sequences that never came and are still asked for.", "feed", "open_holes"),
    ("quarantine", "Packages that could not be accepted, and that nobody has looked at.", "feed", "quarantine"),
    ("lists_overdue_seconds", "How long the first list of users' killmails has been due.", "lists", "overdue_seconds"),
    ("lists_up_to_date", "Lists of users' killmails that were read to their end.", "lists", "up_to_date"),
    ("lists_retrying", "Those of which the last run came to nothing.", "lists", "retrying"),
    ("lists_off", "Those that nobody may read until somebody logs in again.", "lists", "off"),
    ("log_head", "The position of the newest event.", "hub", "head"),
    ("hub_position", "The position up to which this server has told everybody.", "hub", "position"),
    ("sockets", "Open websockets of this server.", "hub", "sockets"),
    ("subscriptions", "Subscriptions of this server.", "hub", "subscriptions"),
    ("groups", "Different subscriptions of this server; each event is executed once for each.", "hub", "groups"),
    ("servers_alive", "Servers that told lately that they live.", "hub", "servers_alive"),
    ("beats_alive", "Beats that told lately that they live.", "beat", "running"),
]
ASKED = "Questions of a worker and its pool, but to ESI, by what was answered; zkillboard: of the feed."
STORED = "Killmails that a worker and its pool stored, by what became of them."
# Name, what finds it among a worker's facts, labels, description.
COUNTED = [
    ("upstream_requests", _asked, ["upstream", "answer"], ASKED),
    ("killmails_stored", _stored, ["outcome"], STORED),
]
