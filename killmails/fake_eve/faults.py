"""How a fake ESI misbehaves."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """One answer in the place of the right one. By default: a 502 with the page that a proxy sends."""

    status: int = 502
    body: bytes = b"<html><head><title>502 Bad Gateway</title></head></html>"
    headers: Mapping[str, str] = field(default_factory=dict)
    silent_for: float = 0.0  # seconds before the first byte of the status line
    drip: float = 0.0  # seconds before each byte of the body
    stream: Callable[[], Iterator[bytes]] | None = None  # instead of `body`, without a declared length
    hang_up: bool = False  # end the connection without a byte
    free: bool = False  # leaves ESI's counts alone, as an answer of a proxy before it does


class Faults:
    """What is to go wrong: the first script whose pattern the path matches gives the answer."""

    def __init__(self) -> None:
        self._scripts: list[tuple[re.Pattern[str], Fault, int]] = []

    def add(self, pattern: str, fault: Fault, times: int) -> None:
        self._scripts.append((re.compile(pattern), fault, times))

    def clear(self) -> None:
        self._scripts.clear()

    def take(self, path: str) -> Fault | None:
        for index, (pattern, fault, times) in enumerate(self._scripts):
            if pattern.match(path):
                if times == 1:
                    del self._scripts[index]
                elif times > 1:
                    self._scripts[index] = (pattern, fault, times - 1)
                return fault
        return None
