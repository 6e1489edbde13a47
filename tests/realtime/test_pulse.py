"""The word for each of the doorbell's two connections, and what makes it that."""

import time

from realtime.pulse import Connection, Pulse, Status


def test_a_connection_has_the_word_for_what_was_proven_of_it_and_when():
    connection = Connection()
    before = time.monotonic()
    assert connection.state(before) == "not-initialized"
    connection.begin()
    assert connection.state(before) == "connecting"
    connection.prove()
    assert connection.state(before) == "ready"
    assert connection.state(time.monotonic() + 1) == "reconnecting"
    connection.begin()
    assert connection.state(time.monotonic() + 1) == "reconnecting"  # the next one: it was there before
    connection.end()
    assert connection.state(before) == "end"


def test_connected_takes_both_connections_and_a_heartbeat_that_came_back():
    pulse, before = Pulse(), time.monotonic()
    pulse.publishing.prove(), pulse.subscription.prove()
    assert pulse.status(before) == Status("ready", "ready", None)
    assert not pulse.status(before).connected
    pulse.come_back(before)
    assert pulse.status(before).connected
    assert not pulse.status(time.monotonic() + 1).connected
    pulse.end()
    assert not pulse.status(before).connected
