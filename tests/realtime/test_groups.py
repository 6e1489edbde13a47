"""Who is told of which event: groups, the index from keys to them, and what is loaded for all."""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.groups import Fields, Groups, State, Subscription, grouped, offer_all
from tests.realtime.memory_log import CountingEngine, NumberStream

ENGINE = CountingEngine()
OPERATIONS = [ENGINE.prepare(f"subscription {{ a{n}: number {{ text }} }}", None, None) for n in range(3)]


def _subscription(stream=NumberStream(), operation=OPERATIONS[0], offer=None):  # noqa: B008  (it is frozen)
    return Subscription(operation, stream, offer or (lambda *_: True), lambda errors: None, 0)


@dataclass(frozen=True)
class Thing:
    """An event with keys of its own."""

    position: int
    keys: frozenset


@dataclass(frozen=True)
class Wants:
    """A stream that wants events with all of these keys, and is found by any of them."""

    every: frozenset | None
    checkpoints: bool = False
    fields: frozenset = frozenset()
    after: str | None = None

    @property
    def keys(self):
        return self.every

    def wants(self, event):
        return self.every is None or (bool(self.every) and self.every <= event.keys)


KEYS = st.frozensets(
    st.sampled_from([("character", n) for n in range(4)] + [("system", n) for n in range(4)]), max_size=4
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.none() | KEYS, st.integers(0, 2)), max_size=12), st.lists(KEYS, max_size=8), st.data())
def test_index_finds_the_same_as_trying_all_while_subscribers_come_and_go(wanted, events, data):
    subscriptions = [_subscription(Wants(keys), OPERATIONS[number]) for keys, number in wanted]
    groups, live = Groups(), []
    for subscription in subscriptions:
        groups.add(subscription)
        live.append(subscription)
        if data.draw(st.booleans()):
            leaving = live.pop(data.draw(st.integers(0, len(live) - 1)))
            groups.remove(leaving)
            groups.remove(leaving)
    for keys in events:
        event = Thing(1, keys)
        found = [group for group in groups.candidates(event) if group.stream.wants(event)]
        told = [id(one) for group in found for one in group.members]
        assert sorted(told) == sorted(id(one) for one in live if one.stream.wants(event))
    assert sorted(map(id, groups)) == sorted(map(id, live))
    for subscription in live:
        groups.remove(subscription)
    assert (groups._groups, groups._by_key, groups._without_keys) == ({}, {}, set())


def test_event_that_shares_no_key_has_no_candidates():
    groups = Groups()
    for number in range(1000):
        groups.add(_subscription(Wants(frozenset({("character", number)}))))
    assert groups.candidates(Thing(1, frozenset({("character", 1000)}))) == []
    assert len(groups.candidates(Thing(1, frozenset({("character", 7), ("system", 7)})))) == 1


def test_equal_streams_and_selections_are_one_group_wherever_they_begin():
    first, other = NumberStream(after="e1:1"), NumberStream(after="e1:2")
    groups = grouped([_subscription(first), _subscription(other), _subscription(NumberStream(over=3))])
    assert sorted(len(group.members) for group in groups) == [1, 2]


def test_equal_streams_with_other_selections_are_apart():
    assert len(grouped([_subscription(operation=operation) for operation in OPERATIONS])) == 3


# Offers


def test_offers_leave_out_what_was_offered_before():
    had = []
    subscription = _subscription(offer=lambda one, position, result: had.append((position, result)) or True)
    subscription.position = 5
    assert offer_all(subscription, [(4, "d"), (5, "e"), (6, "f"), (9, "i")])
    assert had == [(6, "f"), (9, "i")]
    assert subscription.position == 9


def test_subscriber_without_room_is_blocked_before_what_was_not_taken():
    room = [True, False]
    subscription = _subscription(offer=lambda *_: room.pop(0))
    subscription.state = State.LIVE
    assert not offer_all(subscription, [(3, "c"), (7, "g"), (8, "h")])
    assert (subscription.position, subscription.state) == (6, State.BLOCKED)  # 4 to 6 were not for it
    assert room == []


# Fields


@given(st.lists(st.frozensets(st.sampled_from("abcdef")), max_size=10))
def test_fields_are_those_of_all_who_are_there(sets):
    fields = Fields()
    for number, one in enumerate(sets):
        fields.add(one)
        assert fields.union() == frozenset().union(*sets[: number + 1])
    for number, one in enumerate(sets):
        fields.remove(one)
        assert fields.union() == frozenset().union(*sets[number + 1 :])
    assert not fields._counts
