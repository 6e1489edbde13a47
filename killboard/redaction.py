"""Takes what is secret out of a text: the values of our settings wherever they stand, and whatever looks like one."""

import json
import re
from collections.abc import Iterable
from urllib.parse import parse_qsl, unquote, urlsplit

from django.conf import settings

from killboard.environment import HIDDEN

SHORTEST = 4  # letters; to hide a shorter password wherever it stands would blank half of every line
SECRET_NAME = re.compile(r"PASSWORD|SECRET|TOKEN|KEY", re.IGNORECASE)
# Not `\S`: a password may hold a space of another alphabet.
WORD = re.compile(r"[^ \t\r\n]+")
# `password=…`, `"refresh_token": "…"`, `Authorization: Bearer …`, `(b'authorization', b'…')`, also as JSON in a string.
# But not what follows the address of EVE's SSO, which ends with `/oauth/token`.
# What looks like a closing quote may be a letter of the password: all up to the next space goes.
NAMED = re.compile(
    r"""(?<!/oauth/)(?P<name>(?:password|passwd|passphrase|secret|token|verifier|authorization|api[_-]?key|cookie|sessionid)
           (?:[_-]?keys?)?\d?
           (?: \\{0,4}["'] [ \t]{0,4} [:=,] [ \t]{0,4} [bru]? | [ \t]{0,4} [:=] [ \t]{0,4} | %(?:25){0,2}3D ))
        (?: (?: "(?:[^"\\]|\\.)*(?:"|$) | '(?:[^'\\]|\\.)*(?:'|$) | (?P<quote>\\{1,8}["']).{0,2000}?(?<!\\)(?P=quote)
              | (?:(?:bearer|basic|digest|dpop)[ ]+)? ) [^ \t\r\n&]* )""",
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
ALONE = re.compile(
    r"""(?P<name>\bbearer[ \t]+ | [?&](?:code|state|pass)= | cast[ ]to[ ]integer[ ]value[ ]as[ ])[^ \t\r\n&]+
        | \beyJ[\w-]{5,}\.[\w-]+(?:\.[\w-]*)?""",  # the last one: a token of EVE's SSO
    re.IGNORECASE | re.VERBOSE,
)


def configured_secrets() -> set[str]:
    """The passwords, keys and tokens among the settings."""
    redis = getattr(settings, "REDIS", None)
    found = {getattr(redis, name, "") for name in ("password", "sentinel_password")}
    for name in settings.VARIABLES:
        value = getattr(settings, name, "")
        if "://" in str(value):
            found |= _secrets_of(value)
        elif SECRET_NAME.search(name):
            found |= {str(part) for part in (value if isinstance(value, list | tuple) else [value])}
    return {secret for secret in found if len(secret) >= SHORTEST}


def _secrets_of(address: str) -> set[str]:
    parts = urlsplit(address)
    password = parts.netloc.rpartition("@")[0].partition(":")[2]
    return {unquote(password)} | {value for name, value in parse_qsl(parts.query) if SECRET_NAME.search(name)}


def spellings(secrets: Iterable[str]) -> re.Pattern[str] | None:
    """Finds each of them, letter by letter as it is, in `%40`, or as `repr` and JSON write it; None for no secret."""
    longest_first = sorted(secrets, key=len, reverse=True)
    return re.compile("|".join("".join(map(_spelling, secret)) for secret in longest_first)) if longest_first else None


def _spelling(letter: str) -> str:
    data = letter.encode("utf-8", "surrogatepass")
    written = {letter, repr(letter)[1:-1], ascii(letter)[1:-1], json.dumps(letter)[1:-1], repr(data)[2:-1]}
    percent = "".join(f"%(?:25)*(?i:{byte:02X})" for byte in data)
    plain = "|".join(re.escape(form) for form in sorted(written, key=len, reverse=True))
    return rf"(?:{percent}|\\{{0,4}}(?:{plain}){'|[+]' if letter == ' ' else ''})"  # in this order: a '%' itself, too


def hide(text: str, known: re.Pattern[str] | None) -> str:
    """`text` with `****` for each secret; what is found too much is no harm, what is found too little is."""
    if known is not None:
        text = known.sub(HIDDEN, text)
    text = WORD.sub(_without_user, text)
    text = NAMED.sub(rf"\g<name>{HIDDEN}", text)
    return ALONE.sub(lambda found: f"{found['name'] or ''}{HIDDEN}", text)


def _without_user(word: re.Match[str]) -> str:
    """From the first `://` to the last `@`, since a password may hold anything, unescaped, too."""
    text = word[0]
    for begin, end in (("://", "@"), ("%3a%2f%2f", "%40")):
        at, until = text.lower().find(begin), text.rfind(end)
        if 0 <= at < until:
            text = text[: at + len(begin)] + HIDDEN + text[until:]
    return text
