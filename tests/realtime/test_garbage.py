"""When dead cycles are looked for, in processes of their own: the collector is the whole process's."""

import subprocess
import sys

SCRIPT = """
import gc, sys
from realtime import garbage
garbage.CLOSED = 50
full = lambda: gc.get_stats()[2]["collections"]
one = garbage.Garbage()
{tame}
before, kept = full(), []
for number in range(300_000):  # lists that stay: their number grows by far more than a quarter
    kept.append([])
grown = full() - before
dues = []
for number in range(50):
    dues.append(one.is_due(still_open=100))
    one.closed()
dues += [one.is_due(still_open=100), one.is_due(still_open=1000)]
before = full()
one.look()
print(grown > 0, any(dues[:50]), *dues[50:], full() - before, one.is_due(still_open=100))
"""


def _collections(tame):
    """Whether growth alone brought full collections; whether it was time to look before 50 connections were closed,
    and then with 100 and with 1,000 open; how many collections a look brought, and whether it was time still.
    """
    command = [sys.executable, "-c", SCRIPT.replace("{tame}", tame)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_growth_brings_no_full_collection_and_closed_connections_do():
    assert _collections("one.tame()") == ["False", "False", "True", "False", "1", "False"]


def test_python_left_alone_would_look_through_everything_as_it_grows():
    assert _collections("")[0] == "True"
