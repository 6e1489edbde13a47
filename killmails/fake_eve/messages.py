"""What comes to a fake EVE and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs


@dataclass(frozen=True)
class Request:
    """`target` is path and query as they came."""

    method: str
    path: str
    query: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    holder: tuple[int, tuple[str, ...]] | None = None  # character and scopes of the access token that came along

    def number(self, name: str) -> int | None:
        """A whole number of the query."""
        value = parse_qs(self.query).get(name, [""])[0]
        return int(value) if value.isascii() and value.isdigit() else None


@dataclass(frozen=True)
class Reply:
    """An answer in JSON, or an HTML page; without a body where both are None."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
