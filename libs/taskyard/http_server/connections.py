"""Who is connected, and whose turn it is.

A connection on which we work is never ended for another's sake. One whose client lets us wait is: where all places are
taken, whoever has never sent a whole request goes first, then who rests between two requests, then who still sends a body,
each time the one that has let us wait for longest. So a thousand silent connections keep nobody out.
"""

from collections import Counter
from enum import Enum
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Protocol

from msgspec import Struct

LINGERING_MAX = 64
"""Refused connections that are kept for a moment, so that their clients read the answer; each is one more open file."""
IPV6_NETWORK_BITS = 64
"""Whoever has one address of IPv6 has all that these leave."""
LOOPBACK = "loopback"


class ConnectionLimits(Struct, frozen=True, kw_only=True):
    """How many connections there may be, and how many of one address. Loopback is a proxy, or who runs the service."""

    connections_max: int
    per_address_max: int


class Turn(Enum):
    """What a connection waits for; what its client owes comes in the order in which room is made."""

    FIRST_REQUEST = "first request"
    NEXT_REQUEST = "next request"
    BODY = "body"
    OURS = "our answer"


THEIRS = (Turn.FIRST_REQUEST, Turn.NEXT_REQUEST, Turn.BODY)


class Guest(Protocol):
    """One connection, as it is known here."""

    def make_room(self) -> None:
        """End with a word: another connection needs the place."""
        ...

    def drop(self) -> None:
        """End at once."""
        ...


class Connections:
    """The connections of one server, and how many were refused for what."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self.limits = limits
        self.refused: Counter[str] = Counter()
        self._address_of: dict[Guest, str] = {}
        self._of_address: Counter[str] = Counter()
        # Each in the order in which they began to let us wait.
        self._waiting: dict[Turn, dict[Guest, None]] = {turn: {} for turn in THEIRS}
        self._lingering: dict[Guest, None] = {}

    def __len__(self) -> int:
        return len(self._address_of)

    def admit(self, guest: Guest, host: str | None) -> bool:
        """Give the connection a place, if need be that of one which lets us wait; False where there is none."""
        address = address_of(host)
        if address != LOOPBACK and self._of_address[address] >= self.limits.per_address_max:
            return False
        while len(self) >= self.limits.connections_max:
            slowest = self._slowest()
            if slowest is None:
                return False
            self.leave(slowest)
            slowest.make_room()
        self._address_of[guest] = address
        self._of_address[address] += 1
        self._waiting[Turn.FIRST_REQUEST][guest] = None
        return True

    def turn(self, guest: Guest, turn: Turn) -> None:
        """Note whose turn it is from now on."""
        if guest not in self._address_of:
            return
        for guests in self._waiting.values():
            guests.pop(guest, None)
        if turn is not Turn.OURS:
            self._waiting[turn][guest] = None

    def linger(self, guest: Guest) -> None:
        """Keep a refused connection for a moment, beside those that have a place."""
        self.leave(guest)
        if len(self._lingering) >= LINGERING_MAX:
            first = next(iter(self._lingering))
            del self._lingering[first]
            first.drop()
        self._lingering[guest] = None

    def leave(self, guest: Guest) -> None:
        """The connection has ended, or has lost its place."""
        self._lingering.pop(guest, None)
        address = self._address_of.pop(guest, None)
        if address is None:
            return
        for guests in self._waiting.values():
            guests.pop(guest, None)
        self._of_address[address] -= 1
        if not self._of_address[address]:
            del self._of_address[address]

    def _slowest(self) -> Guest | None:
        for turn in THEIRS:
            for guest in self._waiting[turn]:
                return guest
        return None


def address_of(host: str | None) -> str:
    """What connections are counted by: an address of IPv4, a network of IPv6, or that they come from this host."""
    try:
        address = ip_address(host or "")
    except ValueError:  # no address at all: a socket of this host
        return LOOPBACK
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if address.is_loopback:
        return LOOPBACK
    return str(ip_network((address, IPV6_NETWORK_BITS), strict=False) if address.version == 6 else address)
