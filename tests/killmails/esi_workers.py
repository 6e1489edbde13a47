"""A process of workers that ask ESI; for test_budget_workers.py.

Reads a line from stdin, and begins when there is no more; a JSON object: `url`, `speed`, `threads`, `store` (redis,
database, or own: each thread has a budget of its own and does not look at what ESI says of it, which is wrong), `port`
(of Redis), `database` (name), and `work`, a list of [method of Esi, arguments]. Prints how often each end was met.
"""

import json
import random
import sys
import threading
import time
from collections import Counter, deque
from dataclasses import replace
from typing import Any

from killmails.errors import BudgetSpent, EsiUnknown, UpstreamRefused
from killmails.upstream.budget import Budget, MemoryStore
from killmails.upstream.esi import Esi


class BlindStore(MemoryStore):
    """Known to be wrong, once there are two of them."""

    def settle(self, permit: Any, report: Any) -> None:
        super().settle(permit, replace(report, limit=-1, window=-1, remaining=-1, errors_left=-1, errors_reset=-1))


def shared_store(order: dict[str, Any]) -> Any:
    if order["store"] == "database":
        import django
        from django.conf import settings

        settings.DATABASES["default"]["NAME"] = order["database"]
        settings.DATABASES["default"].get("OPTIONS", {}).pop("pool", None)
        django.setup()
        from killmails.ingest.esi_store import DatabaseStore

        return DatabaseStore(order["speed"])
    import redis

    from killmails.upstream.budget_redis import RedisStore

    return RedisStore(lambda cluster: redis.Redis(port=order["port"]), "test:", order["speed"])


def work(esi: Esi, waiting: deque[Any], speed: float, ends: Counter[str]) -> None:
    while waiting:
        try:
            method, arguments = waiting.popleft()
        except IndexError:
            return
        while True:
            try:
                getattr(esi, method)(*arguments)
                end = "done"
            except EsiUnknown:
                end = "unknown"
            except BudgetSpent as spent:
                time.sleep(max(0.1, min(1.0, spent.retry_after / speed)) * random.uniform(1, 1.2))
                continue
            except UpstreamRefused as refused:
                ends[f"refused {refused.status}"] += 1
                time.sleep(0.1)
                continue
            ends[end] += 1
            break


def main() -> None:
    order = json.loads(sys.stdin.readline())
    store = None if order["store"] == "own" else shared_store(order)
    waiting, ends = deque(order["work"]), Counter()
    print("ready", flush=True)
    sys.stdin.read()  # until we may begin
    threads = []
    for _ in range(order["threads"]):
        esi = Esi(order["url"], "tests", Budget(store or BlindStore(order["speed"])))
        threads.append(threading.Thread(target=work, args=[esi, waiting, order["speed"], ends]))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps(ends))


if __name__ == "__main__":
    main()
