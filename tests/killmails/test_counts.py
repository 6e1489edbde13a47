"""Counts of a worker and of its pool."""

import os
from collections import Counter

from killmails.counts import SharedCounts


def in_a_child(work) -> None:
    pid = os.fork()
    if pid == 0:
        work()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


def test_what_children_count_is_told_by_their_parent():
    counts = SharedCounts(["added", "updated", "known"])
    assert counts.told() == {}
    counts.add("added")
    for _ in range(3):
        in_a_child(lambda: [counts.add(name) for name in ("added", "known", "known")])
    assert counts.told() == {"added": 4, "known": 6}


def test_a_counter_of_pythons_own_would_not_know():
    """Known to be wrong."""
    counts = Counter()
    in_a_child(lambda: counts.update(["added"]))
    assert counts == {}
