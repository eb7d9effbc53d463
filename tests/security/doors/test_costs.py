"""What is refused costs its sender a share of the doors, and nobody else."""

import json

import pytest
from msgspec import Raw

from taskyard.api.costs import ADMIN_TIMES, REFUSED_BYTES, REFUSED_BYTES_MIN, Costs
from taskyard.api.errors import BeyondShare, invalid, unavailable
from taskyard.api.principals import Caller
from taskyard.api.replies import ACCEPTED, Accepted, AcceptedBatch, BatchEntry, Reply, batch_entry
from taskyard.contracts.elements import SPLIT_AT_ONCE_MAX, NotReadOn, elements_of
from taskyard.contracts.events import FieldError
from taskyard.contracts.values import Role
from taskyard.quotas import Quota, Shares

OSCAR, OTTO = (Caller(name=name, role=Role.OPERATOR) for name in ("oscar", "otto"))
ADMIN = Caller(name="admin", role=Role.ADMIN)
REFUSED = invalid(FieldError(path="", message="no"))
FINE = Reply(code=ACCEPTED, body=Accepted(position="1.0"))


class Clock:
    now = 0.0


def costs(clock: Clock) -> Costs:
    return Costs(lambda: clock.now)


def test_who_sends_too_much_that_is_refused_is_not_read_for_a_while_and_the_others_are() -> None:
    clock = Clock()
    doors = costs(clock)
    for _ in range(33):
        doors.admit(OSCAR)
        doors.note(OSCAR, 1 << 20, REFUSED)
    with pytest.raises(BeyondShare, match="2 MiB a second") as refused:
        doors.admit(OSCAR)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "2")
    doors.admit(OTTO)
    clock.now = 0.51
    doors.admit(OSCAR)


def test_a_short_refusal_counts_too_and_what_is_accepted_counts_nothing() -> None:
    doors = costs(Clock())
    for _ in range(100_000):
        doors.note(OSCAR, 1 << 20, FINE)
    doors.note(OSCAR, 1 << 20, unavailable("away"))
    doors.admit(OSCAR)
    for _ in range(int(REFUSED_BYTES.at_once / REFUSED_BYTES_MIN) + 1):
        doors.note(OSCAR, 10, REFUSED)
    with pytest.raises(BeyondShare):
        doors.admit(OSCAR)


def test_a_batch_of_which_something_was_refused_counts_by_its_bytes() -> None:
    doors = costs(Clock())
    mixed = AcceptedBatch(tasks=(BatchEntry(id="a", position="1.0"), batch_entry("b", REFUSED)))
    for _ in range(33):
        doors.note(OSCAR, 1 << 20, Reply(code=ACCEPTED, body=mixed))
    with pytest.raises(BeyondShare):
        doors.admit(OSCAR)


def test_an_admin_has_a_share_that_is_larger() -> None:
    doors = costs(Clock())
    for _ in range(32 * ADMIN_TIMES):
        doors.note(ADMIN, 1 << 20, REFUSED)
    doors.admit(ADMIN)
    doors.note(ADMIN, 1 << 20, REFUSED)
    with pytest.raises(BeyondShare, match="16 MiB"):
        doors.admit(ADMIN)


def test_who_has_overdrawn_waits_no_longer_than_the_share_takes_to_grow() -> None:
    shares = Shares(Quota(at_once=10, per_second=2))
    for _ in range(1_000):
        shares.charge("a", 100, 0.0)
    assert shares.wait_seconds("a", 0.0) == 5
    assert shares.wait_seconds("a", 5.0) == 0


def test_no_number_of_names_fills_the_memory_and_who_is_quiet_makes_room() -> None:
    shares = Shares(Quota(at_once=10, per_second=2), names_max=3)
    assert all(shares.take(name, 4, 0.0) for name in "abc")
    assert not shares.take("d", 1, 1.0)
    assert shares.take("d", 1, 2.0)


@pytest.mark.parametrize("count", [3, SPLIT_AT_ONCE_MAX + 7])
def test_a_long_list_is_split_as_a_short_one_is(count: int) -> None:
    elements = ['{"a": "x,]\\u00e9\\"", "n": [1, [2]]}', "0", "1e5", '"ü,\\ud800"', "null", "[ ]", "9" * 5_000, "-1.5"]
    written = [elements[index % len(elements)] for index in range(count)]
    data = ("[ " + " ,\n".join(written) + "\t]").encode()
    assert [bytes(each).decode() for each in elements_of(Raw(data))] == written


def test_who_stops_reading_a_list_has_not_paid_for_the_rest_of_it() -> None:
    data = Raw(b"[" + b"0," * 100_000 + b"{nonsense")
    elements = elements_of(data)
    assert [bytes(next(elements)) for _ in range(100)] == [b"0"] * 100
    with pytest.raises(NotReadOn):
        list(elements)


def test_what_is_no_list_has_no_elements() -> None:
    wide = json.dumps({str(number): 0 for number in range(SPLIT_AT_ONCE_MAX + 2)}).encode()
    assert [list(elements_of(Raw(data))) for data in (b"{}", b"0", wide, b"[]", b"[ ]")] == [[]] * 5
