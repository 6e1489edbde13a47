"""Reading single fields out of JSON that was just received; what is wrong is named by its path."""

from decimal import Decimal
from typing import Any

from killmails.errors import Reason, Unacceptable


class Fields:
    """An object of the package and the path to it; each method reads one field, or says where it is wrong."""

    def __init__(self, value: Any, path: str) -> None:
        if not isinstance(value, dict):
            raise bad_field(path or "the package", "an object", value)
        self._values: dict[str, Any] = value
        self._path = path

    def at(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key

    def has(self, key: str) -> bool:
        """Whether there is a value. ESI leaves keys out; null is taken as the same."""
        return self._values.get(key) is not None

    def value(self, key: str) -> Any:
        if key not in self._values:
            raise Unacceptable(Reason.BAD_FIELD, f"{self.at(key)}: is missing")
        return self._values[key]

    def integer(self, key: str, least: int = 0, most: int = 2**63 - 1) -> int:
        value = self.value(key)
        if type(value) is not int or not least <= value <= most:
            raise bad_field(self.at(key), f"a whole number from {least} to {most}", value)
        return value

    def id(self, key: str) -> int:
        return self.integer(key, least=1)

    def id_or_none(self, key: str) -> int | None:
        return self.id(key) if self.has(key) else None

    def real(self, key: str) -> float:
        value = self.value(key)
        if type(value) not in (int, float):
            raise bad_field(self.at(key), "a number", value)
        return float(value)

    def isk(self, key: str) -> Decimal | None:
        """ISK, to a hundredth; at most 10^15, a thousand times the largest loss ever."""
        if not self.has(key):
            return None
        value = self.real(key)
        if not 0 <= value <= 1e15:
            raise bad_field(self.at(key), "ISK from 0 to 10^15", value)
        return round(Decimal(repr(value)), 2)

    def boolean(self, key: str) -> bool:
        value = self.value(key)
        if type(value) is not bool:
            raise bad_field(self.at(key), "true or false", value)
        return value

    def text(self, key: str) -> str:
        value = self.value(key)
        if type(value) is not str:
            raise bad_field(self.at(key), "a text", value)
        return value

    def objects(self, key: str) -> "list[Fields]":
        value = self.value(key)
        if type(value) is not list:
            raise bad_field(self.at(key), "a list", value)
        return [Fields(entry, f"{self.at(key)}[{index}]") for index, entry in enumerate(value)]

    def object(self, key: str) -> "Fields":
        return Fields(self.value(key), self.at(key))


def bad_field(path: str, expected: str, value: Any) -> Unacceptable:
    return Unacceptable(Reason.BAD_FIELD, f"{path}: is {repr(value)[:60]}, not {expected}")
