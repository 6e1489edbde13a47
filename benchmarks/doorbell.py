"""`python -m benchmarks.doorbell`: how long a ring takes from one process, through a Redis of its own, into another.

Beside it the limit: a bare PUBLISH and a bare subscriber, without any of our code.
"""

import os
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles
from time import monotonic, monotonic_ns, sleep

import redis

from benchmarks.child import Child
from benchmarks.machine import description
from tests.services import Redis

RINGS = 2_000
FIRST, OPEN = 10**9, 20.0  # a ring that is not measured, and seconds until it must have been heard
PAUSE = 0.002  # seconds between two: one at a time, and no queue of them


def main(rings: int) -> int:
    """Prints a line for each of the two ways; 1 when many were lost. A ring that is overtaken by the next is none."""
    with Redis() as server, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ |= _environment(server.url, folder)
        with Child("benchmarks.listener", dict(os.environ), Path(folder)) as listener:
            listener.ask("listen")
            bare, doorbell = _bare(server.url, listener, rings), _doorbell(listener, rings)
    machine = description()
    sys.stdout.write(f"{datetime.now(UTC).date()}: {machine['processor']}, {machine['cores']} cores, ")
    sys.stdout.write(f"load {machine['load']}\n{_line('bare', bare, rings)}{_line('doorbell', doorbell, rings)}")
    return 0 if min(len(bare), len(doorbell)) >= rings * 0.8 else 1


def _environment(url: str, folder: str) -> dict[str, str]:
    services = {"REDIS_URL": url, "USE_REDIS_PUBSUB": "true", "DATABASE_URL": "", "RABBITMQ_URL": ""}
    here = {"DATA_DIR": folder, "FEED": "off", "DEBUG": "true", "DJANGO_SETTINGS_MODULE": "killboard.settings"}
    return services | here


def _bare(url: str, listener: Child, rings: int) -> list[float]:
    from benchmarks.listener import BARE

    with redis.Redis.from_url(url) as client:
        return _measure(listener, "bare", lambda number: client.publish(BARE, number), rings)


def _doorbell(listener: Child, rings: int) -> list[float]:
    from realtime.doorbell import ring  # its settings read the environment, which is ready only now

    until = monotonic() + OPEN
    while str(FIRST) not in listener.ask("heard", way="doorbell") and monotonic() < until:
        ring(FIRST)  # until its connection is open
        sleep(0.05)
    return _measure(listener, "doorbell", ring, rings)


def _measure(listener: Child, way: str, send: Callable[[int], object], rings: int) -> list[float]:
    """Milliseconds of each that arrived."""
    sent = {}
    for number in range(1, rings + 1):
        sent[str(number)] = monotonic_ns()
        send(number)
        sleep(PAUSE)
    sleep(0.5)
    heard = listener.ask("heard", way=way)
    return [(heard[number] - at) / 1e6 for number, at in sent.items() if number in heard]


def _line(way: str, milliseconds: list[float], rings: int) -> str:
    times = ""
    if len(milliseconds) > 1:
        parts = quantiles(milliseconds, n=100, method="inclusive")
        times = f", p50 {parts[49]:.2f} ms, p99 {parts[98]:.2f} ms, longest {max(milliseconds):.2f} ms"
    return f"{way}: {len(milliseconds)} of {rings} arrived{times}\n"


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else RINGS))
