"""The last events in memory: no holes, each executed once for each selection."""

import pytest

from realtime import recent as recent_module
from realtime.groups import Group
from realtime.log import Head
from realtime.recent import Recent, Taken, check_dense, results_for
from tests.realtime.memory_log import CountingEngine, MemoryLog, Number, NumberStream

POSITION = "subscription { number { position } }"
TEXT = "subscription { number { text } }"


def _recent(*positions, fields=frozenset({"number", "position"})):
    recent = Recent()
    for position in positions:
        recent.append(Taken(Number(position), fields))
    return recent


def _kept(recent):
    return [taken.event.position for taken in recent.after(-1)]


def test_part_of_the_log_without_holes_is_kept():
    recent = _recent(1, 2, 3)
    assert _kept(recent) == [1, 2, 3]
    recent.append(Taken(Number(7), frozenset()))
    assert _kept(recent) == [7]


def test_only_the_last_are_kept(monkeypatch):
    monkeypatch.setattr(recent_module, "KEPT", 3)
    assert _kept(_recent(1, 2, 3, 4, 5)) == [3, 4, 5]


@pytest.mark.parametrize(
    ("position", "head", "reached"),
    [(9, 13, True), (8, 13, False), (12, 13, True), (13, 13, True), (14, 13, True), (11, 14, False), (11, 12, False)],
)
def test_place_is_reached_when_all_up_to_the_head_is_here(position, head, reached):
    assert _recent(10, 11, 12, 13).reaches(position, head) is reached


def test_nothing_reaches_only_the_head():
    assert Recent().reaches(5, 5)
    assert not Recent().reaches(4, 5)


def test_what_comes_after_a_position_is_given_in_order():
    assert [taken.event.position for taken in _recent(1, 2, 3, 4).after(2)] == [3, 4]


def test_result_is_executed_once_for_each_selection():
    engine = CountingEngine()
    taken = [Taken(Number(number), frozenset()) for number in (1, 2, 3)]
    groups = [Group(NumberStream(even=even), engine.prepare(POSITION, None, None)) for even in (True, False, True)]
    results = [results_for(engine, taken, group) for group in groups]
    assert results[0] == results[2] == [(2, '{"data":{"number":{"position":2}}}')]
    assert [position for position, _ in results[1]] == [1, 2, 3]
    assert sorted(engine.executed_on) == [1, 2, 3]
    results_for(engine, taken, Group(NumberStream(), engine.prepare(TEXT, None, None)))
    assert sorted(engine.executed_on) == [1, 1, 2, 2, 3, 3]


def test_events_that_lack_fields_are_read_again_and_the_others_are_not():
    recent, log, asked = _recent(*range(1, 6)), MemoryLog(5), []
    read = log.read
    log.read = lambda after, limit, fields: asked.append((after, limit, fields)) or read(after, limit, fields)
    recent.append(Taken(Number(6), frozenset({"number", "text"})))
    log.append()
    recent.load(log, "e1", 2, frozenset({"number", "text"}))
    ((after, limit, fields),) = asked
    assert (after, limit) == (Head("e1", 2), 4)
    assert fields >= {"number", "text"}
    recent.load(log, "e1", 2, frozenset({"text"}))
    recent.load(log, "e1", 6, frozenset({"padding"}))
    assert len(asked) == 1
    assert [taken.fields for taken in recent.after(0)] == [{"number", "position"}] * 2 + [fields] * 3 + [
        {"number", "text"}
    ]


def test_loading_again_does_not_take_away_what_was_loaded():
    """Else two selections that take turns have the log read for each of them, each time."""
    recent, log = _recent(*range(1, 6)), MemoryLog(5)
    for fields in (frozenset({"text"}), frozenset({"number", "position"}), frozenset({"text"})):
        recent.load(log, "e1", 0, fields)
    assert log.reads == 1


def test_results_are_kept_when_the_event_is_loaded_again():
    engine, recent = CountingEngine(), _recent(1, 2)
    group = Group(NumberStream(), engine.prepare(POSITION, None, None))
    results_for(engine, recent.after(0), group)
    recent.load(MemoryLog(2), "e1", 0, frozenset({"text"}))
    assert len(results_for(engine, recent.after(0), group)) == 2
    assert engine.executed_on == [1, 2]


@pytest.mark.parametrize(
    ("positions", "after", "head", "message"),
    [
        ([1, 3], 0, 3, "the log has a hole: position 3 follows 1"),
        ([2], 0, 2, "the log has a hole: position 2 follows 0"),
        ([5, 5], 4, 6, "the log has a hole: position 5 follows 5"),
        ([], 4, 6, "the log has a head at 6 and no events after 4"),
    ],
)
def test_hole_is_an_error(positions, after, head, message):
    with pytest.raises(RuntimeError, match=message):
        check_dense([Number(position) for position in positions], after, head)


@pytest.mark.parametrize(("positions", "after", "head"), [([], 4, 4), ([5, 6], 4, 9), ([1], 0, 1)])
def test_page_without_holes_is_none(positions, after, head):
    check_dense([Number(position) for position in positions], after, head)


def test_large_results_are_not_kept_for_those_who_join_later():
    engine, recent = CountingEngine(), Recent()
    taken = Taken(Number(1), frozenset())
    for number in range(12):  # of 10 kB each
        operation = engine.prepare(f"subscription {{ n{number}: number {{ padding }} }}", None, None)
        taken.result(engine, operation)
    recent.append(taken)
    assert sum(map(len, taken.results.values())) <= 65_536
    assert 0 < len(taken.results) < 12
