"""Who calls: known to this app as an address, and by what whoever runs it makes of a token."""

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

LONGEST = 1000  # letters of a header

# What a token comes to, or None where it is none (any more). Asks the database: never in the event loop.
Authenticate = Callable[[str], Hashable | None]


class NotAuthenticated(Exception):
    """A token that is not valid, or what should be one and is none."""

    code = "UNAUTHENTICATED"

    def __init__(self) -> None:
        super().__init__("The token is not valid, or not any more; send `Bearer` and a valid one, or none.")


class CannotAuthenticate(Exception):
    """Whether a token is valid cannot be told at the moment."""

    code = "UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("The token could not be looked up; try again later.")


@dataclass(frozen=True, slots=True)
class Caller:
    """`viewer` None: nobody in particular. Events of the log are the same for all: nothing in them may ask for it."""

    viewer: Hashable | None = None
    address: str = ""


NOBODY = Caller()


def bearer_of(header: object) -> str | None:
    """The token in "Bearer …"; None where there is no header. Raises NotAuthenticated for anything else."""
    if header is None:
        return None
    if not isinstance(header, str) or len(header) > LONGEST:
        raise NotAuthenticated
    scheme, _, token = header.strip().partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated
    return token.strip()


def bearer_in(payload: Mapping[str, Any] | None) -> str | None:
    """The same of a websocket's connection_init."""
    values = payload or {}
    return bearer_of(values.get("authorization", values.get("Authorization")))
