"""Who has a place, who is ended for another, and how many fit: without sockets."""

import pytest

from taskyard.http_server.connections import LINGERING_MAX, ConnectionLimits, Connections, Turn, address_of
from taskyard.http_server.open_files import FILES_RESERVED, fitting_connections


class Guest:
    def __init__(self) -> None:
        self.ended = ""

    def make_room(self) -> None:
        self.ended = "made room"

    def drop(self) -> None:
        self.ended = "dropped"


def full(*turns: Turn) -> tuple[Connections, list[Guest]]:
    """Connections without a free place, of which each waits for this."""
    connections = Connections(ConnectionLimits(connections_max=len(turns), per_address_max=100))
    guests = [Guest() for _ in turns]
    for guest, turn in zip(guests, turns, strict=True):
        assert connections.admit(guest, "192.0.2.1")
        connections.turn(guest, turn)
    return connections, guests


@pytest.mark.parametrize(
    ("turns", "ended"),
    [
        ((Turn.OURS, Turn.BODY, Turn.NEXT_REQUEST, Turn.FIRST_REQUEST), 3),
        ((Turn.OURS, Turn.BODY, Turn.NEXT_REQUEST), 2),
        ((Turn.OURS, Turn.BODY, Turn.BODY), 1),
        ((Turn.FIRST_REQUEST, Turn.FIRST_REQUEST), 0),
    ],
)
def test_who_has_let_us_wait_makes_room_and_the_least_proven_first(turns: tuple[Turn, ...], ended: int):
    connections, guests = full(*turns)
    assert connections.admit(Guest(), "192.0.2.2")
    assert [guest.ended for guest in guests] == ["made room" if n == ended else "" for n in range(len(guests))]
    assert len(connections) == len(guests)


def test_nobody_on_whom_we_work_is_ended_for_another():
    connections, guests = full(Turn.OURS, Turn.OURS)
    newcomer = Guest()
    assert not connections.admit(newcomer, "192.0.2.2")
    assert {guest.ended for guest in guests} == {""}
    connections.leave(guests[0])
    assert connections.admit(newcomer, "192.0.2.2")


def test_an_address_has_its_share_and_loopback_has_all():
    connections = Connections(ConnectionLimits(connections_max=100, per_address_max=2))
    of_one = [Guest() for _ in range(3)]
    assert [connections.admit(guest, "192.0.2.1") for guest in of_one] == [True, True, False]
    assert connections.admit(Guest(), "192.0.2.2")
    assert all(connections.admit(Guest(), "127.0.0.1") for _ in range(10))
    connections.leave(of_one[0])
    connections.leave(of_one[0])
    assert [connections.admit(Guest(), "192.0.2.1") for _ in range(2)] == [True, False]


def test_addresses_of_one_network_of_ipv6_count_as_one():
    assert address_of("2001:db8:1:2:3::1") == address_of("2001:db8:1:2::ffff") != address_of("2001:db8:1:3::1")
    assert address_of("::ffff:192.0.2.1") == address_of("192.0.2.1") == "192.0.2.1"
    assert address_of("::1") == address_of("127.9.9.9") == address_of(None)


def test_refused_connections_that_may_read_why_are_bounded_too():
    connections = Connections(ConnectionLimits(connections_max=1, per_address_max=1))
    refused = [Guest() for _ in range(LINGERING_MAX + 1)]
    for guest in refused:
        connections.linger(guest)
    assert [guest.ended for guest in refused] == ["dropped", *[""] * LINGERING_MAX]
    assert len(connections) == 0


def test_there_are_no_more_connections_than_files_may_be_open():
    assert fitting_connections(1_000, 20_000) == 1_000
    assert fitting_connections(1_000, 1_024) == 1_024 - FILES_RESERVED
    assert fitting_connections(1_000, 100) == 1
