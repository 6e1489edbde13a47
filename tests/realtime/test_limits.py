"""Limits of sockets, messages and addresses, with a clock that is a number."""

import sys
from dataclasses import FrozenInstanceError, asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realtime.limits import Limits, Rate, Rates, Sockets, client_address


def test_limits_are_those_of_the_documentation():
    assert asdict(Limits()) == {
        "sockets": 10_000,
        "sockets_per_address": 20,
        "unacknowledged": 200,
        "operations_per_socket": 20,
        "messages_per_10_s": 100,
        "frame_size": 65_536,
    }


def test_limits_do_not_change():
    with pytest.raises(FrozenInstanceError):
        Limits().sockets = 1


# Rate


def test_hundred_messages_pass_and_the_next_does_not_until_the_first_is_ten_seconds_old():
    rate = Rate(100, 10.0)
    assert [rate.allow(5.0) for _ in range(101)] == [True] * 100 + [False]
    assert rate.allow(14.9) is False
    assert rate.allow(15.0) is True


def test_steady_client_below_the_limit_is_never_refused():
    rate = Rate(80, 10.0)
    assert all(rate.allow(number / 8) for number in range(10_000))


def test_client_slightly_above_the_limit_is_refused():
    rate = Rate(100, 10.0)
    assert not all(rate.allow(number * 0.099) for number in range(200))


class Buckets:
    """Known wrong: counts from full ten seconds to full ten seconds, and so lets twice as many through."""

    def __init__(self, count, seconds):
        self.count, self.seconds, self.bucket, self.used = count, seconds, 0, 0

    def allow(self, now):
        if (bucket := now // self.seconds) != self.bucket:
            self.bucket, self.used = bucket, 0
        self.used += 1
        return self.used <= self.count


def _most_in_a_window(times, seconds):
    return max((sum(start <= time < start + seconds for time in times) for start in times), default=0)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(0, 8), max_size=60))
def test_no_window_holds_more_than_the_count_and_no_message_is_refused_without_need(count, pauses):
    rate, now, allowed = Rate(count, 10), 0, []
    for pause in pauses:
        now += pause
        before = sum(now - 10 < time for time in allowed)
        assert rate.allow(now) is (before < count)
        if before < count:
            allowed.append(now)
    assert _most_in_a_window(allowed, 10) <= count


def test_counting_from_full_ten_seconds_would_let_twice_as_many_through():
    times = [*[9.0] * 100, *[10.0] * 100]
    wrong, right = Buckets(100, 10), Rate(100, 10)
    assert _most_in_a_window([time for time in times if wrong.allow(time)], 10) == 200
    assert _most_in_a_window([time for time in times if right.allow(time)], 10) == 100


def test_rate_of_an_idle_socket_takes_next_to_no_memory():
    rate = Rate(100, 10.0)
    for second in range(10_000):
        assert rate.allow(second * 12.0)
    assert sys.getsizeof(rate) + sys.getsizeof(rate._times) < 300


# Rates


def test_each_address_has_a_rate_of_its_own_and_this_machine_none():
    rates = Rates(2, 10.0)
    assert [rates.allow("192.0.2.1", now) for now in (0.0, 1.0, 2.0)] == [True, True, False]
    assert rates.allow("192.0.2.2", 2.0)
    assert rates.allow("192.0.2.1", 10.5)
    assert all(rates.allow("127.0.0.1", 0.0) for _ in range(10))
    assert all(Rates(0, 10.0).allow("192.0.2.1", 0.0) for _ in range(10))


def test_addresses_of_one_ipv6_network_share_a_rate():
    rates = Rates(1, 10.0)
    assert [rates.allow(f"2001:db8::{host}", 0.0) for host in (1, 2)] == [True, False]
    assert rates.allow("2001:db8:1::1", 0.0)


def test_nothing_is_kept_of_addresses_that_are_silent():
    rates = Rates(2, 10.0)
    for number in range(10_000):
        rates.allow(f"10.0.{number >> 8}.{number & 255}", number * 0.1)
    assert len(rates._rates) == 100


# Sockets


def _sockets(**limits):
    return Sockets(Limits(**limits))


def test_process_takes_as_many_sockets_as_the_limit_and_more_when_one_leaves():
    sockets = _sockets(sockets=2)
    first, second = sockets.enter("192.0.2.1", 0.0), sockets.enter("192.0.2.2", 0.0)
    assert (first is None, second is None) == (False, False)
    assert sockets.enter("192.0.2.3", 0.0) is None
    sockets.leave(first)
    assert sockets.enter("192.0.2.3", 0.0) is not None


def test_address_takes_as_many_sockets_as_the_limit_and_others_are_not_touched():
    sockets = _sockets(sockets_per_address=2)
    tickets = [sockets.enter("192.0.2.1", 0.0) for _ in range(3)]
    assert [ticket is None for ticket in tickets] == [False, False, True]
    assert sockets.enter("192.0.2.2", 0.0) is not None
    sockets.leave(tickets[0])
    assert sockets.enter("192.0.2.1", 0.0) is not None
    assert sockets.enter("192.0.2.1", 0.0) is None


def test_socket_that_was_refused_takes_no_place():
    sockets = _sockets(sockets=3, sockets_per_address=1)
    assert [sockets.enter("192.0.2.1", 0.0) is None for _ in range(10)] == [False] + [True] * 9
    assert [sockets.enter(f"192.0.2.{host}", 0.0) is None for host in (2, 3, 4)] == [False, False, True]
    assert [sockets.enter(f"192.0.2.{host}", 0.0) is None for host in range(5, 15)] == [True] * 10


def test_leaving_twice_frees_one_place():
    sockets = _sockets(sockets=2, sockets_per_address=2)
    first, _ = sockets.enter("192.0.2.1", 0.0), sockets.enter("192.0.2.1", 0.0)
    sockets.leave(first)
    sockets.leave(first)
    assert [sockets.enter("192.0.2.1", 0.0) is None for _ in range(2)] == [False, True]


@pytest.mark.parametrize("limits", [{"sockets": 0}, {"sockets_per_address": 0}])
def test_limit_of_zero_is_none(limits):
    sockets = Sockets(Limits(**({"sockets": 0, "sockets_per_address": 0} | limits)))
    assert all(sockets.enter("192.0.2.1", 0.0) for _ in range(1_000))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", True),
        ("2001:db8:0:1::1", "2001:0DB8:0:1::1", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False),
    ],
)
def test_ipv6_addresses_count_by_network_and_others_one_by_one(one, other, same):
    sockets = _sockets(sockets_per_address=1)
    assert sockets.enter(one, 0.0) is not None
    assert (sockets.enter(other, 0.0) is None) is same


@pytest.mark.parametrize("address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "", "testclient"])
def test_this_machine_is_not_counted_as_an_address_since_a_proxy_may_run_there(address):
    sockets = _sockets(sockets_per_address=1, sockets=50)
    assert sum(sockets.enter(address, 0.0) is not None for _ in range(100)) == 50


def test_addresses_that_left_take_no_memory():
    sockets = _sockets()
    for ticket in [sockets.enter(f"10.0.{host // 256}.{host % 256}", 0.0) for host in range(1_000)]:
        sockets.leave(ticket)
    assert (len(sockets._by_address), len(sockets._waiting)) == (0, 0)


# Sockets that do not initialise


def test_nobody_is_overdue_while_few_enough_wait():
    sockets = _sockets(unacknowledged=3)
    for _ in range(3):
        sockets.enter("192.0.2.1", 0.0)
    assert sockets.overdue(1_000.0) is None


def test_longest_waiting_of_too_many_is_overdue_each_once():
    sockets = _sockets(unacknowledged=2)
    tickets = [sockets.enter("192.0.2.1", second) for second in (0.0, 1.0, 2.0, 3.0)]
    assert [sockets.overdue(10.0) for _ in range(3)] == [tickets[0], tickets[1], None]


def test_socket_is_not_overdue_within_a_second_however_many_wait():
    sockets = _sockets(unacknowledged=0)
    ticket = sockets.enter("192.0.2.1", 5.0)
    assert sockets.overdue(6.0) is None
    assert sockets.overdue(6.01) is ticket


def test_acknowledged_and_closed_sockets_do_not_wait():
    sockets = _sockets(unacknowledged=0)
    acknowledged, closed, waiting = [sockets.enter("192.0.2.1", 0.0) for _ in range(3)]
    sockets.acknowledged(acknowledged)
    sockets.acknowledged(acknowledged)
    sockets.leave(closed)
    sockets.acknowledged(closed)
    assert [sockets.overdue(10.0), sockets.overdue(10.0)] == [waiting, None]


def test_overdue_socket_keeps_its_place_until_it_leaves():
    sockets = _sockets(unacknowledged=0, sockets=1)
    ticket = sockets.enter("192.0.2.1", 0.0)
    assert sockets.overdue(10.0) is ticket
    assert sockets.enter("192.0.2.2", 10.0) is None
    sockets.acknowledged(ticket)
    sockets.leave(ticket)
    assert sockets.enter("192.0.2.2", 10.0) is not None


def test_newcomer_that_initialises_at_once_gets_in_while_thousands_sit_there():
    sockets = _sockets(sockets=0, sockets_per_address=0)
    now = 0.0
    for number in range(5_000):
        now += 0.01
        sitting = sockets.enter("192.0.2.1", now)
        newcomer = sockets.enter("192.0.2.2", now)
        sockets.acknowledged(newcomer)
        overdue = sockets.overdue(now)
        assert newcomer is not None
        assert overdue not in (newcomer, sitting)
        if overdue is not None:
            sockets.leave(overdue)
        assert (overdue is None) is (number < 200)


OPERATIONS = st.lists(st.tuples(st.sampled_from(["enter", "ack", "leave", "overdue"]), st.integers(0, 9)), max_size=80)


@settings(max_examples=200, deadline=None)
@given(OPERATIONS)
def test_registry_counts_as_a_list_of_sockets_would(operations):
    sockets = _sockets(sockets=6, sockets_per_address=2, unacknowledged=2)
    tickets, inside, waiting = [], {}, []  # inside: ticket → address
    for now, (operation, number) in enumerate(operations):
        if operation == "enter":
            address = f"192.0.2.{number % 4}"
            ticket = sockets.enter(address, float(now))
            full = len(inside) >= 6 or list(inside.values()).count(address) >= 2
            assert (ticket is None) is full
            if ticket is not None:
                tickets.append(ticket)
                inside[ticket] = address
                waiting.append((now, ticket))
        elif operation == "overdue":
            late = len(waiting) > 2 and now - waiting[0][0] > 1
            assert sockets.overdue(float(now)) is (waiting.pop(0)[1] if late else None)
        elif tickets:
            ticket = tickets[number % len(tickets)]
            (sockets.acknowledged if operation == "ack" else sockets.leave)(ticket)
            waiting = [(since, other) for since, other in waiting if other is not ticket]
            if operation == "leave":
                inside.pop(ticket, None)


# The client's address


@pytest.mark.parametrize(
    ("forwarded_for", "trusted_proxies", "address"),
    [
        ([], 0, "10.0.0.1"),
        (["192.0.2.1"], 0, "10.0.0.1"),
        ([], 1, "10.0.0.1"),
        (["192.0.2.1"], 1, "192.0.2.1"),
        (["198.51.100.7, 192.0.2.1"], 1, "192.0.2.1"),
        (["198.51.100.7, 192.0.2.1"], 2, "198.51.100.7"),
        (["192.0.2.1"], 2, "10.0.0.1"),
        (["198.51.100.7", "192.0.2.1"], 1, "192.0.2.1"),
        (["198.51.100.7", "192.0.2.1"], 2, "198.51.100.7"),
        (["198.51.100.7,192.0.2.1 ", " 203.0.113.9"], 2, "192.0.2.1"),
        (["2001:DB8::1"], 1, "2001:db8::1"),
        (["[2001:db8::1]"], 1, "2001:db8::1"),
        (["[2001:db8::1]:4711"], 1, "2001:db8::1"),
        (["192.0.2.1:4711"], 1, "192.0.2.1"),
        (["::ffff:192.0.2.1"], 1, "192.0.2.1"),
        (["192.0.2.1"], -1, "10.0.0.1"),
        (["unknown"], 1, "10.0.0.1"),
        ([""], 1, "10.0.0.1"),
        (["192.0.2.1,"], 1, "10.0.0.1"),
        (["192.0.2.1, _hidden"], 1, "10.0.0.1"),
        (["999.0.2.1"], 1, "10.0.0.1"),
        (["192.0.2.1\n198.51.100.7"], 1, "10.0.0.1"),
        (["[::1"], 1, "10.0.0.1"),
        (["192.0.2.1/24"], 1, "10.0.0.1"),
        (["3232235777"], 1, "10.0.0.1"),
    ],
)
def test_client_address_is_what_the_outermost_trusted_proxy_saw(forwarded_for, trusted_proxies, address):
    assert client_address("10.0.0.1", forwarded_for, trusted_proxies) == address


def test_thousand_invented_addresses_are_one_client():
    invented = [[f"203.0.{number // 256}.{number % 256}, 192.0.2.1"] for number in range(1_000)]
    assert {client_address("10.0.0.1", values, 1) for values in invented} == {"192.0.2.1"}
    assert {client_address("192.0.2.1", values, 0) for values in invented} == {"192.0.2.1"}
    left_end = {values[0].split(",")[0] for values in invented}
    assert len(left_end) == 1_000, "who believes the left end sees a thousand clients"


@given(st.lists(st.text(max_size=20), max_size=3), st.integers(-1, 4))
def test_any_header_gives_an_address(forwarded_for, trusted_proxies):
    assert client_address("10.0.0.1", forwarded_for, trusted_proxies)
