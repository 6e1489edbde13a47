"""The budget in Redis, for all workers of a board: one script for each question, so that no two of them interleave."""

import json
import secrets
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import redis

from killmails.upstream import budget_rules as rules
from killmails.upstream.budget import StoreAway
from killmails.upstream.budget_rules import Ask, Board, Permit, Report, Verdict

KEPT = 7200  # seconds until a bucket that nobody asks from is forgotten; longer than its window
NUMBERS = ("WORST", "MARGIN", "ERRORS", "MINUTE", "SLOTS", "HELD", "FAILURES", "FIRST_PAUSE", "LONGEST_PAUSE")

Connect = Callable[[bool], Any]


class RedisStore:
    """`connect` makes a client whose steps are bounded to a part of a second; given True, one for a cluster.

    `prefix` begins the names of keys. `speed`: ESI's seconds in one of ours, for tests.
    """

    def __init__(self, connect: Connect, prefix: str, speed: float = 1.0) -> None:
        self._connect = connect
        # In braces: on a cluster all of them are on one node, as a script needs them.
        self._prefix = f"{prefix}{{esi}}:"
        self._speed = speed
        self._lock = threading.Lock()
        self._client: Any = None
        self._script: Any = None

    def reserve(self, ask: Ask) -> Verdict:
        name = secrets.token_hex(8)
        keys = [self._key(ask.bucket)] if ask.bucket else []
        granted, number, told = self._run(keys, {"ask": asdict(ask), "name": name})
        if not granted:
            return Verdict(None, int(number), told.decode())
        return Verdict(Permit(ask.route, ask.bucket, int(number), "" if ask.bucket else name, bool(told)))

    def settle(self, permit: Permit, report: Report) -> None:
        buckets = dict.fromkeys(name for name in (permit.bucket, report.bucket) if name)
        held = asdict(permit) | {"slot": str(permit.slot)}  # Lua would write it as 1.7e+12
        self._run([self._key(name) for name in buckets], {"permit": held, "report": asdict(report)})

    def told(self) -> dict[str, Any]:
        def ask(client: Any) -> dict[str, Any]:
            seconds, micro = client.time()
            now = int((seconds * 1000 + micro // 1000) * self._speed)
            board = Board(_counts(client.hgetall(self._key("all"))))
            for field in [field for field in board.all if field.startswith("bucket:")]:
                name = field.partition(":")[2]
                board.buckets[name] = _counts(client.hgetall(self._key(name)))
            return rules.told(board, now)

        told: dict[str, Any] = self._with_client(ask)
        return told

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}" if name == "all" else f"{self._prefix}bucket:{name}"

    def _run(self, keys: list[str], asked: dict[str, Any]) -> Any:
        text = json.dumps(asked | {"speed": self._speed})
        return self._with_client(lambda client: self._script([self._key("all"), *keys], [text], client))

    def _with_client(self, ask: Callable[[Any], Any]) -> Any:
        try:
            try:
                return ask(self._connected(cluster=False))
            except redis.exceptions.MovedError:  # a cluster behind one address, as managed ones are
                self._client = None
                return ask(self._connected(cluster=True))
        except (redis.RedisError, OSError) as error:
            raise StoreAway(type(error).__name__) from error

    def _connected(self, *, cluster: bool) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._connect(cluster)
                self._script = self._client.register_script(_script())
            return self._client


def _counts(found: dict[bytes, bytes]) -> dict[str, int]:
    return {name.decode(): int(value) for name, value in found.items()}


def _script() -> str:
    numbers = {name: getattr(rules, name) for name in (*NUMBERS, "SOON", "STOP", "BANNED")} | {"KEPT": KEPT}
    prices = ", ".join(f"[{digit}] = {tokens}" for digit, tokens in rules.PRICES.items())
    lines = [f"local {name} = {number}" for name, number in numbers.items()]
    text = Path(__file__).with_name("budget.lua").read_text(encoding="utf-8")
    return "\n".join([*lines, f"local PRICES = {{{prices}}}", text])
