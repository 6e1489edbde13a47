"""Measures one scenario: on a server of the board, and on the bare server that shows the machine's limit."""

import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from statistics import median

from benchmarks.board import MeasuredBoard
from benchmarks.child import Child, Failure
from benchmarks.limit import DIGITS
from benchmarks.machine import Bystanders, processor_seconds, resident_kb
from benchmarks.profile import Profile
from benchmarks.rows import IDLE, MEMORY, Scenario
from benchmarks.sockets import POSITION

WARM_UP = 2  # events that are not counted
EVENT_SECONDS = 60.0  # in which an event must have come
BURST_SECONDS = 180.0
SECOND, MILLISECOND = 1e9, 1e6

Publish = Callable[[int], tuple[int, list[int]]]  # so many events: the first position, when each began (ns)


@dataclass(slots=True)
class Measured:
    """What one server did in one scenario: for each row, by name, what was measured, in the row's unit."""

    values: dict[str, list[float]] = field(default_factory=dict)
    cpu: float | None = None  # µs of the server's processor time for each delivery
    others: float = 0.0  # processor cores that were busy with what is not ours
    frame: str = ""  # one of those that came


class Scene:
    """One board with its publisher; scenarios are measured one after the other."""

    def __init__(self, board: MeasuredBoard, publisher: Child, idle_seconds: float, profile: Path | None) -> None:
        self._board = board
        self._publisher = publisher
        self._idle_seconds = idle_seconds
        self._profile = profile

    def measure(self, server: str, scenario: Scenario, wanted: set[str]) -> Measured:
        """Raises Failure where events were lost, doubled or out of order, or sockets closed."""
        process = self._board.serve_with(server)
        pid = process.popen.pid
        measured, bystanders = Measured(), Bystanders()
        try:
            self._warm_up()
            before = resident_kb(pid)
            with self._sockets() as sockets:
                sockets.ask("connect", url=self._board.websocket_url, kind=scenario.kind, sockets=scenario.sockets)
                if MEMORY.name in wanted:
                    time.sleep(1)
                    measured.values[MEMORY.name] = [(resident_kb(pid) - before) / scenario.sockets]
                if IDLE.name in wanted:
                    measured.values[IDLE.name] = [self._idle(pid)]
                if wanted - {MEMORY.name, IDLE.name}:
                    with Profile(pid, self._profile, f"{server}-{scenario.name}"):
                        values, measured.cpu = _timed(scenario, sockets, self._publish(scenario.sockets), pid)
                    measured.values[scenario.rows[-1].name] = values
                    measured.frame = sockets.ask("sample")["frame"]
                sockets.ask("finish")
        except Failure:
            sys.stderr.write(process.end_of_log() + "\n")
            raise
        finally:
            self._board.end(process)
        measured.others = bystanders.cores()
        return measured

    def limit(self, scenario: Scenario, frame: str) -> Measured:
        """The same with the bare server: `frame`, as it came, to as many sockets."""
        measured, bystanders = Measured(), Bystanders()
        with Child("benchmarks.limit", self._board.env, self._board.folder) as server, self._sockets() as sockets:
            port = server.ask("listen")["port"]
            sockets.ask("connect", url=f"ws://127.0.0.1:{port}/", kind="bare", sockets=scenario.sockets)
            server.ask("prepare")
            broadcast = self._broadcast(server, frame, scenario.receivers)
            values, measured.cpu = _timed(scenario, sockets, broadcast, server.pid)
            sockets.ask("finish")
        measured.values[scenario.rows[-1].name] = values
        measured.others = bystanders.cores()
        return measured

    def _broadcast(self, server: Child, frame: str, receivers: int) -> Publish:
        before, mark, rest = frame.partition(POSITION.decode())
        token, _, after = rest.partition('"')
        before = f"{before}{mark}{token.partition(':')[0]}:"
        positions = count(10 ** (DIGITS - 2))

        def publish(events: int) -> tuple[int, list[int]]:
            numbers = [next(positions) for _ in range(events)]
            places = {"first": numbers[0], "last": numbers[-1]}
            answer = server.ask("broadcast", before=before, after=f'"{after}', receivers=receivers, **places)
            return numbers[0], answer["began"]

        return publish

    def _sockets(self) -> Child:
        return Child("benchmarks.sockets", self._board.env, self._board.folder)

    def _publish(self, sockets: int) -> Publish:
        def publish(events: int) -> tuple[int, list[int]]:
            # At least ten pilots, so that each killmail has ten different ones.
            answer = self._publisher.ask("publish", events=events, pool=max(sockets, 10))
            return answer["first"], answer["committed"]

        return publish

    def _warm_up(self) -> None:
        """What is only done once in a server must not be counted."""
        with self._sockets() as sockets:
            sockets.ask("connect", url=self._board.websocket_url, kind="same", sockets=1)
            for _ in range(WARM_UP):
                first, _ = self._publish(1)(1)
                sockets.ask("wait", first=first, last=first, receivers=1, seconds=EVENT_SECONDS)
            sockets.ask("finish")

    def _idle(self, pid: int) -> float:
        before, began = processor_seconds(pid), time.monotonic()
        time.sleep(self._idle_seconds)
        return 100 * (processor_seconds(pid) - before) / (time.monotonic() - began)


def _timed(scenario: Scenario, sockets: Child, publish: Publish, pid: int) -> tuple[list[float], float]:
    """The times of all rounds, and the server's processor time for each delivery (µs)."""
    for _ in range(WARM_UP):
        _round(scenario, sockets, publish, 1)
    before = processor_seconds(pid)
    values = _events(scenario, sockets, publish)
    deliveries = scenario.rounds * (scenario.burst or 1) * scenario.receivers
    return values, (processor_seconds(pid) - before) / deliveries * 1e6


def _events(scenario: Scenario, sockets: Child, publish: Publish) -> list[float]:
    """For each event (ms) or each burst (s): how long until the last socket had it."""
    if scenario.burst:
        return [_round(scenario, sockets, publish, scenario.burst) / SECOND for _ in range(scenario.rounds)]
    values = []
    for _ in range(scenario.rounds):
        # Not in step with anything that the board does each second.
        time.sleep(random.uniform(0.01, 0.03))
        values.append(_round(scenario, sockets, publish, 1) / MILLISECOND)
    return values


def _round(scenario: Scenario, sockets: Child, publish: Publish, events: int) -> float:
    """Nanoseconds from the first commit to the arrival of the last of these events at the last socket."""
    first, began = publish(events)
    last = first + events - 1
    seconds = BURST_SECONDS if events > 1 else EVENT_SECONDS
    answer = sockets.ask("wait", first=first, last=last, receivers=scenario.receivers, seconds=seconds)
    return max(arrived[2] for arrived in answer["events"]) - began[0]


def middle(values: list[float]) -> float:
    """The median; raises Failure where nothing was measured."""
    if not values:
        raise Failure("nothing was measured")
    return median(values)
