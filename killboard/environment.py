"""Reads settings from environment variables: typed, and with a loud refusal for nonsense.

Nothing here looks at the process itself: `settings.py` hands the variables in.
A message names the variable and never repeats the value of an address, which may hold a password.
"""

import difflib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from dotenv.parser import parse_stream

TRUE = {"true", "1", "yes", "on"}
FALSE = {"false", "0", "no", "off"}
ESCAPED = "(an '@', ':', '/', '?' or '#' in a password as %40, %3A, %2F, %3F, %23)"
HIDDEN = "****"
SCHEME = re.compile(r"[a-z][a-z+]{1,20}")
PLACE = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")  # of a host's name; what is none, no resolver takes
PATH = re.compile(r"[A-Za-z0-9._/-]*")


class SettingError(Exception):
    """A variable that cannot be used. `str()` of it is one line for the operator."""


def read_dotenv(path: Path) -> dict[str, str]:
    """The variables of a `.env` file; quotes, CRLF, a BOM and doubled lines (the last one counts) are fine."""
    if not path.is_file():
        return {}
    try:
        bindings = list(parse_stream(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{path.name}: cannot be read as UTF-8 text ({type(error).__name__}).") from error
    for binding in bindings:
        if binding.error or (binding.key and binding.value is None):
            raise SettingError(f"{path.name}, line {binding.original.line}: cannot be read; write NAME=value.")
    return {binding.key: (binding.value or "").strip() for binding in bindings if binding.key}


class Environment:
    """One pass over the variables; remembers every name it was asked for, to find misspelt ones afterwards."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values
        self.names: list[str] = []

    def text(self, name: str, default: str = "") -> str:
        """The value without surrounding space; an empty one counts as not set."""
        self.names.append(name)
        return self._values.get(name, "").strip() or default

    def __contains__(self, name: str) -> bool:
        return bool(self._values.get(name, "").strip())

    def boolean(self, name: str, default: bool) -> bool:
        value = self.text(name)
        if not value:
            return default
        if value.lower() in TRUE | FALSE:
            return value.lower() in TRUE
        raise SettingError(f"{name}: {value!r} is neither true nor false; write {name}=true or {name}=false.")

    def integer(self, name: str, default: int, least: int, most: int) -> int:
        value = self.text(name)
        if not value:
            return default
        if value.isascii() and value.isdigit() and least <= int(value[:12]) <= most:
            return int(value)
        raise SettingError(f"{name}: {value!r} is not a whole number from {least} to {most}.")

    def choice(self, name: str, default: str, choices: tuple[str, ...]) -> str:
        value = self.text(name, default).lower()
        if value in choices:
            return value
        raise SettingError(f"{name}: {value!r} is none of {', '.join(choices)}.")

    def name(self, name: str) -> str:
        """A short name, or "": for logs, hosts and pages, so of letters that none of them escapes."""
        value = self.text(name)
        if not value or re.fullmatch(r"[A-Za-z0-9_.-]{1,64}", value):
            return value
        raise SettingError(f"{name}: {value!r} is not a name of up to 64 of A-Z, a-z, 0-9, '-', '_' and '.'.")

    def secret(self, name: str, least: int) -> str:
        """A text of at least `least` characters, or "". No message repeats it."""
        value = self.text(name)
        if value and (len(value) < least or not (value.isascii() and value.isprintable()) or " " in value):
            raise SettingError(f"{name}: must have at least {least} characters, all of ASCII and without spaces.")
        return value

    def words(self, name: str) -> list[str]:
        """A list, separated by commas."""
        return [word.strip() for word in self.text(name).split(",") if word.strip()]

    def address(self, name: str, schemes: tuple[str, ...], example: str, default: str = "") -> str:
        """An address of the form of `example`, or "" where it is not set."""
        value = self.text(name, default)
        if value:
            split_address(name, value, schemes, example)
        return value


def split_address(name: str, value: str, schemes: tuple[str, ...], example: str) -> SplitResult:
    """The parts of an address, or a SettingError that shows how one looks (and not what was written)."""
    hint = f"write it like {example} {ESCAPED}."
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise SettingError(f"{name}: the port or the host is not valid; {hint}") from error
    if parts.scheme not in schemes:
        raise SettingError(f"{name}: must begin with {' or '.join(s + '://' for s in schemes)}; {hint}")
    if not parts.hostname or not is_host(parts.hostname) or parts.netloc.count("@") > 1 or parts.fragment or port == 0:
        raise SettingError(f"{name}: has no host, or a character that must be escaped; {hint}")
    return parts


def is_host(host: str) -> bool:
    """Whether it can be a name or an address; "[" and "]" are gone by now."""
    return ":" in host or all(LABEL.fullmatch(label) for label in host.removesuffix(".").split("."))


def masked(address: str) -> str:
    """The address as it may be shown: `****` for user and password, and no query.

    Built from its parts, never by replacing. What is not surely an address, `****` alone: an unescaped `/`, `?` or `#`
    of a password would make its rest look like a part that may be shown.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return HIDDEN
    user, _, places = parts.netloc.rpartition("@")
    whole = all(PLACE.fullmatch(place) for place in places.split(","))
    if not (whole and SCHEME.fullmatch(parts.scheme) and PATH.fullmatch(parts.path)):
        return HIDDEN
    if "@" in parts.query or parts.fragment:
        return HIDDEN
    return f"{parts.scheme}://{HIDDEN + '@' if user else ''}{places}{parts.path}"


def misspelt(written: Mapping[str, str], known: list[str]) -> list[str]:
    """One warning for each name in `.env` that we do not know and that is near one that we do."""
    warnings = []
    for name in written:
        near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.75)
        if name not in known and near:
            warnings.append(f".env: {name} is not a setting of the board; did you mean {near[0]}?")
    return warnings
