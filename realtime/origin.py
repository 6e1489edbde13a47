"""Which web pages may open a socket. A browser tells a page's origin; a program tells none, and may."""

import re
from collections.abc import Sequence

from django.http.request import split_domain_port, validate_host

ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\s]+)", re.ASCII | re.IGNORECASE)
PORTS = {"http": "80", "https": "443"}


class Origins:
    """The origins that are let in: those of our own pages, and those that are named."""

    def __init__(self, allowed_hosts: Sequence[str], trusted_origins: Sequence[str]) -> None:
        """Raises ValueError for a trusted origin that is none."""
        self._allowed_hosts = allowed_hosts
        self._trusted = {_parsed(origin) for origin in trusted_origins}
        if None in self._trusted:
            wrong = next(origin for origin in trusted_origins if _parsed(origin) is None)
            raise ValueError(f"{wrong!r} is not an origin; write it like https://example.com or http://localhost:3000")

    def allows(self, origin: str | None, host: str | None, secure: bool) -> bool:
        """Whether a request with these headers may open a socket; any text is answered.

        `secure`: whether it came by TLS. Where it did not, TLS may have ended at a proxy.
        """
        if origin is None:
            return True
        parsed = _parsed(origin)
        return parsed is not None and (parsed in self._trusted or self._is_ours(parsed, host, secure))

    def _is_ours(self, origin: tuple[str, str, str], host: str | None, secure: bool) -> bool:
        """The page came from the host that it calls, and that host is ours: not a name that someone else owns."""
        scheme = origin[0]
        if scheme not in (("https",) if secure else ("http", "https")):
            return False
        ours = _parsed(f"{scheme}://{host or ''}")
        return ours == origin and validate_host(origin[1], self._allowed_hosts)


def _parsed(origin: str) -> tuple[str, str, str] | None:
    """Scheme, host and port of a text that is exactly an origin, in lower case."""
    match = ORIGIN.fullmatch(origin) if origin.isascii() else None
    if match is None:
        return None
    scheme = match[1].lower()
    host, port = split_domain_port(match[2])
    return (scheme, host, port or PORTS.get(scheme, "")) if host else None
