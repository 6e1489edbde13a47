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
for number in range(125):
    one.closed(still_open=100)
closed = full() - before - grown
one.look()
print(grown > 0, closed, full() - before - grown - closed)
"""


def _collections(tame):
    """Whether growth alone brought full collections; how many 125 closed connections brought, and a look."""
    command = [sys.executable, "-c", SCRIPT.replace("{tame}", tame)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def test_growth_brings_no_full_collection_and_closed_connections_do():
    assert _collections("one.tame()") == ["False", "2", "1"]


def test_python_left_alone_would_look_through_everything_as_it_grows():
    assert _collections("")[0] == "True"
