"""JSON as RFC 8259 has it, and no more: what Python's reader lets through beyond that is refused."""

import json
from typing import Any

MAX_DEPTH = 32
MAX_DIGITS = 20


class BadJson(ValueError):
    """The text is not JSON that we accept; `str()` says why."""


def _no_constant(name: str) -> None:
    raise BadJson(f"{name} is not JSON")


def _integer(text: str) -> int:
    # Before int(): it is quadratic, and Python itself refuses more than 4,300 digits.
    if len(text) > MAX_DIGITS:
        raise BadJson(f"a whole number of {len(text)} digits")
    return int(text)


def _real(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise BadJson(f"the number {text[:20]} is beyond what a double holds")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise BadJson("an object with the same key twice")
    return result


def _depth(value: Any) -> int:
    """How deep `value` nests; stops counting past the limit."""
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
    return depth


def read_json(raw: bytes) -> Any:
    """The value that `raw` (UTF-8) holds. Raises BadJson for anything else, also for depths beyond 32."""
    try:
        value = json.loads(
            raw.decode("utf-8"),
            parse_constant=_no_constant,
            parse_int=_integer,
            parse_float=_real,
            object_pairs_hook=_object,
        )
    except UnicodeDecodeError as error:
        raise BadJson(f"not UTF-8 at byte {error.start}") from error
    except json.JSONDecodeError as error:
        raise BadJson(f"{error.msg} at character {error.pos} of {len(error.doc)}") from error
    except RecursionError as error:
        raise BadJson("nested too deep") from error
    if _depth(value) > MAX_DEPTH:
        raise BadJson(f"nested deeper than {MAX_DEPTH}")
    return value
