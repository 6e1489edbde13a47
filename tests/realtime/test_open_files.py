"""The limit of open files, in processes of their own: what is lowered there stays low."""

import subprocess
import sys

import pytest

SCRIPT = """
import logging, resource, sys
logging.basicConfig(format="%(levelname)s %(message)s")
from realtime.open_files import allow_sockets
soft, hard, wanted = map(int, sys.argv[1:])
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
print(allow_sockets(wanted), *resource.getrlimit(resource.RLIMIT_NOFILE))
"""


def _allowed(soft, hard, wanted):
    """What fits, the limits afterwards, and what was said."""
    command = [sys.executable, "-c", SCRIPT, str(soft), str(hard), str(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(map(int, done.stdout.split())), done.stderr


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "expected"),
    [
        (256, 4096, 1000, (1000, 1200, 4096)),
        (1500, 4096, 1000, (1000, 1500, 4096)),
        (256, 4096, 0, (3896, 4096, 4096)),
    ],
    ids=["raised as far as is needed", "enough already", "as many as possible"],
)
def test_limit_is_raised_to_what_is_needed(soft, hard, wanted, expected):
    assert _allowed(soft, hard, wanted) == (expected, "")


def test_system_that_allows_too_few_is_told_of_and_fewer_sockets_are_taken():
    numbers, said = _allowed(256, 1024, 10_000)
    assert numbers == (824, 1024, 1024)
    assert said == (
        "WARNING Only 824 of MAX_SOCKETS=10000 websockets fit: the system allows 1024 open files. Raise its hard limit "
        "(ulimit -Hn, or LimitNOFILE of systemd), or lower MAX_SOCKETS.\n"
    )
