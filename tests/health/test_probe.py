"""Asking a part that hangs, fails, or is asked a thousand times."""

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from health import probe as probe_module
from health.part import Part, State, ok, overall
from health.probe import KEPT, InThread, Probe, silent

AWAY = silent("Start it.", needed=True)


class Asked:
    """A part that can be frozen. Counts the threads that it holds, and how often it was asked.

    And the clock by which answers grow old: it goes on when the test says so.
    """

    def __init__(self) -> None:
        self.going = threading.Event()
        self.going.set()
        self.count = self.inside = self.most_inside = 0
        self.now = 1000.0

    def __call__(self) -> Part:
        self.count += 1
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        self.going.wait(60)
        self.inside -= 1
        return ok(number=self.count)

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def asked(monkeypatch):
    asked = Asked()
    monkeypatch.setattr(probe_module, "time", asked)
    yield asked
    asked.going.set()


def probe_of(ask: Callable[[], Part], limit: float = 60.0, kind: type[InThread] = InThread) -> Probe:
    return Probe("part", kind("part", ask, AWAY, limit))


async def ask_for_a_while(asked: Asked, probe: Probe, rounds: int, apart: float = KEPT) -> list[Part]:
    answers = []
    for _ in range(rounds):
        answers += await asyncio.gather(*(probe.answer() for _ in range(1000)))
        asked.now += apart
    return answers


async def until(holds: Callable[[], bool]) -> None:
    """It is a thread that we wait for."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_an_answer_holds_for_everybody_who_asks_meanwhile(asked) -> None:
    answers = asyncio.run(ask_for_a_while(asked, probe_of(asked), 3, apart=KEPT * 0.49))
    assert answers == [ok(number=1)] * 3000


def test_after_a_while_it_is_asked_again(asked) -> None:
    answers = asyncio.run(ask_for_a_while(asked, probe_of(asked), 3))
    assert [answer.facts["number"] for answer in answers[::1000]] == [1, 2, 3]


def test_a_frozen_part_costs_one_thread_however_often_it_is_asked(asked) -> None:
    asked.going.clear()
    begun = time.monotonic()
    answers = asyncio.run(ask_for_a_while(asked, probe_of(asked, limit=0.05), 5))
    assert answers == [AWAY] * 5000
    assert time.monotonic() - begun < 50  # and not until it goes on
    assert (asked.count, asked.most_inside) == (1, 1)


def test_one_that_begins_a_thread_for_each_question_would_be_found(asked) -> None:
    class Forgetful(InThread):
        async def __call__(self) -> Part:
            self._asked = None
            return await super().__call__()

    async def ask() -> None:
        await ask_for_a_while(asked, probe_of(asked, limit=0.05, kind=Forgetful), 5)
        await until(lambda: asked.most_inside == 5)

    asked.going.clear()
    asyncio.run(ask())


def test_a_part_that_goes_on_is_asked_anew(asked) -> None:
    async def freeze_and_thaw() -> list[Part]:
        probe = probe_of(asked, limit=0.05)
        asked.going.clear()
        frozen = await probe.answer()
        asked.going.set()
        await until(probe._ask._asked.done)
        asked.now += KEPT
        probe._ask._limit = 60.0
        return [frozen, await probe.answer()]

    assert asyncio.run(freeze_and_thaw()) == [AWAY, ok(number=2)]


def test_an_error_is_told_once_by_its_kind_and_its_text_nowhere(caplog) -> None:
    def broken() -> Part:
        raise ValueError("hunter2")

    async def ask() -> list[Part]:
        probe = probe_of(broken)
        first = await probe.answer()
        probe._last = None
        return [first, await probe.answer()]

    assert asyncio.run(ask()) == [AWAY, AWAY]
    assert [record.getMessage() for record in caplog.records] == ["Health of part: ValueError."]


def test_who_gives_up_waiting_takes_the_answer_from_nobody(asked) -> None:
    async def ask() -> Part:
        probe = probe_of(asked)
        asked.going.clear()
        impatient = asyncio.create_task(probe.answer())
        patient = asyncio.create_task(probe.answer())
        await asyncio.sleep(0.02)
        impatient.cancel()
        asked.going.set()
        return await patient

    assert asyncio.run(ask()) == ok(number=1)


@pytest.mark.parametrize(
    ("needed", "other", "whole"),
    [
        (State.OK, State.OK, State.OK),
        (State.OK, State.DEGRADED, State.DEGRADED),
        (State.OK, State.DOWN, State.DEGRADED),
        (State.DEGRADED, State.OK, State.DEGRADED),
        (State.DOWN, State.OK, State.DOWN),
    ],
)
def test_the_whole_is_down_when_a_needed_part_is(needed, other, whole) -> None:
    assert overall({"a": Part(needed, needed=True), "b": Part(other)}) is whole
