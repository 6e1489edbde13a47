"""What is said of one part of the board."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from django.conf import settings


class State(StrEnum):
    OK = "ok"
    DEGRADED = "degraded"  # the board works, and somebody should look
    DOWN = "down"


def started_by(command: str) -> str:
    """What starts a part: where everything is one process, that is `./run`, whatever is missing."""
    return f"`{command}`" if settings.RABBITMQ_URL else "`./run`"


@dataclass(frozen=True)
class Part:
    """`hint`: one sentence on what to do, empty when there is nothing. `needed`: without it the board does not work."""

    status: State
    hint: str = ""
    needed: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"status": self.status, "needed": self.needed, "hint": self.hint, **self.facts}


def ok(needed: bool = False, **facts: Any) -> Part:
    return Part(State.OK, "", needed, facts)


def overall(parts: dict[str, Part]) -> State:
    """Down when something is down that is needed."""
    if any(part.needed and part.status is State.DOWN for part in parts.values()):
        return State.DOWN
    return State.OK if all(part.status is State.OK for part in parts.values()) else State.DEGRADED
