"""How many sockets, messages and queries one process and one address may have. Knows neither sockets nor Django."""

import re
from array import array
from bisect import bisect_right
from collections import Counter, OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

PATIENCE = 1.0  # seconds that a socket may be without connection_init however many others are
ADDRESS_AND_PORT = re.compile(r"\[([^\]]*)\](?::\d+)?|([\d.]+):\d+")


@dataclass(frozen=True)
class Limits:
    sockets: int = 10_000
    """Open in this process; 0 is no limit."""
    sockets_per_address: int = 20
    """Open in this process from one IPv4 address or one IPv6 network of 64 bits; 0 is no limit."""
    unacknowledged: int = 200
    """Open without connection_init before those that wait longest are closed."""
    operations_per_socket: int = 20
    """Running at the same time."""
    messages_per_10_s: int = 100
    """From one client, in any ten seconds."""
    frame_size: int = 65_536
    """Bytes of a message to us."""


class Rate:
    """At most `count` in any window of `seconds`."""

    __slots__ = ("_count", "_seconds", "_times")

    def __init__(self, count: int, seconds: float) -> None:
        self._count = count
        self._seconds = seconds
        self._times = array("d")  # 8 bytes for each within the window, none for what is over

    def allow(self, now: float) -> bool:
        """Whether one more may come. `now`: seconds of a clock that never goes back."""
        del self._times[: bisect_right(self._times, now - self._seconds)]
        if len(self._times) >= self._count:
            return False
        self._times.append(now)
        return True


class Rates:
    """A `Rate` for each address; nothing is kept of one that was silent for the whole window."""

    def __init__(self, count: int, seconds: float) -> None:
        self._count = count
        self._seconds = seconds
        self._rates: OrderedDict[str, tuple[Rate, float]] = OrderedDict()  # with the last time, longest ago first

    def allow(self, address: str, now: float) -> bool:
        """As a rate's. This machine may do all, and so may everybody where the count is 0."""
        key = _counted(address)
        if key is None or not self._count:
            return True
        while self._rates and next(iter(self._rates.values()))[1] <= now - self._seconds:
            self._rates.popitem(last=False)
        rate = self._rates.pop(key)[0] if key in self._rates else Rate(self._count, self._seconds)
        self._rates[key] = rate, now
        return rate.allow(now)


class Ticket:
    """The place of one socket among `Sockets`."""

    __slots__ = ("address", "inside", "peer", "since")

    def __init__(self, peer: str, address: str | None, since: float) -> None:
        self.peer = peer
        self.address = address  # as it counts; None where it does not
        self.since = since
        self.inside = True


class Sockets:
    """The open sockets of one process. Every operation takes the same time, however many there are."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._count = 0
        self._by_address: Counter[str] = Counter()
        self._waiting: OrderedDict[Ticket, None] = OrderedDict()  # without connection_init, longest first

    def enter(self, address: str, now: float) -> Ticket | None:
        """A place for a socket of this address, or None where the process or the address has no more."""
        key = _counted(address)
        if 0 < self._limits.sockets <= self._count:
            return None
        if key is not None:
            if 0 < self._limits.sockets_per_address <= self._by_address[key]:
                return None
            self._by_address[key] += 1
        self._count += 1
        ticket = Ticket(address, key, now)
        self._waiting[ticket] = None
        return ticket

    def acknowledged(self, ticket: Ticket) -> None:
        """The socket is initialised. May be said twice."""
        self._waiting.pop(ticket, None)

    def leave(self, ticket: Ticket) -> None:
        """The socket is closed. May be said twice."""
        if not ticket.inside:
            return
        ticket.inside = False
        self._count -= 1
        self._waiting.pop(ticket, None)
        if ticket.address is not None:
            self._by_address[ticket.address] -= 1
            if not self._by_address[ticket.address]:
                del self._by_address[ticket.address]

    def overdue(self, now: float) -> Ticket | None:
        """The socket to close because too many wait for their connection_init; each is named once.

        The one that waits longest, and never one that came within the last second: who initialises at once
        is not refused because of those who do not.
        """
        if len(self._waiting) <= self._limits.unacknowledged:
            return None
        ticket = next(iter(self._waiting))
        if now - ticket.since <= PATIENCE:
            return None
        del self._waiting[ticket]
        return ticket


def client_address(peer: str, forwarded_for: list[str], trusted_proxies: int) -> str:
    """Where a request comes from: `peer`, or what the outermost of our proxies saw.

    Each proxy appends its own peer to X-Forwarded-For (`forwarded_for`: the values of that header, in order), so
    that only the last `trusted_proxies` addresses are known to be true; what stands before them may be invented.
    """
    entries = ",".join(forwarded_for).split(",")
    if not 0 < trusted_proxies <= len(entries):
        return peer
    entry = entries[-trusted_proxies].strip()
    if match := ADDRESS_AND_PORT.fullmatch(entry):
        entry = match[1] or match[2] or ""
    return str(_parsed(entry) or peer)


def is_loopback(address: str) -> bool:
    """Whether that is this machine. False for what is no address."""
    parsed = _parsed(address)
    return parsed is not None and parsed.is_loopback


def _counted(address: str) -> str | None:
    """What an address counts as; None for this machine, where a proxy would lock everybody out."""
    parsed = _parsed(address)
    if parsed is None or parsed.is_loopback:  # a socket of Unix has no address
        return None
    return str(parsed) if isinstance(parsed, IPv4Address) else f"{int(parsed) >> 64:x}/64"


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return (parsed.ipv4_mapped or parsed) if isinstance(parsed, IPv6Address) else parsed
