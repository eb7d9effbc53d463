"""Names, ids, instants and positions."""

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskyard.contracts.values import (
    EVENTS_PER_COMMIT_MAX,
    NAME_PATTERN,
    QUEUE_PATTERN,
    SECOND,
    Instant,
    commit_sequence,
    derive_uuid7,
    format_instant,
    format_position,
    from_datetime,
    is_name,
    is_uuid7,
    make_position,
    make_uuid7,
    parse_position,
    seconds,
    to_datetime,
    uuid7_instant,
)

sequences = st.integers(1, 10**15 - 1)
indices = st.integers(0, EVENTS_PER_COMMIT_MAX - 1)
instants = st.integers(0, 4_000_000_000 * SECOND).map(Instant)
AT = Instant(1_763_700_000_123_000)


@pytest.mark.parametrize("text", ["a", "default", "pool-1", "a_b", "0", "a" * 63])
def test_a_name_is_one_token_of_a_subject(text):
    assert is_name(text)


@pytest.mark.parametrize(
    "text", ["", "A", "a b", "a.b", "a*", ">", "-a", "_a", "a" * 64, "é", "a\n", "\na", "a\r\n", "a\x00"]
)
def test_what_could_be_more_than_one_token_is_no_name(text):
    assert not is_name(text)


@pytest.mark.parametrize("text", ["prod\n", "", "/prod", "a" * 129, "a b", "a*"])
def test_a_queue_is_named_in_one_line(text):
    assert re.search(QUEUE_PATTERN, text) is None


def test_patterns_end_at_the_end_also_where_they_are_searched_for():
    assert re.search(NAME_PATTERN, "a") is not None
    assert re.search(NAME_PATTERN, "a\n") is None


@given(instants, st.integers(0, 2**74 - 1))
def test_a_uuid7_bears_its_instant_to_the_millisecond(at, random):
    text = make_uuid7(at, random)

    assert is_uuid7(text)
    assert uuid7_instant(text) == at // 1000 * 1000


@given(instants, instants)
def test_uuid7s_are_ordered_as_their_instants(first, second):
    if first // 1000 < second // 1000:
        assert make_uuid7(first, 2**74 - 1) < make_uuid7(second, 0)


def test_other_random_bits_are_another_id():
    assert len({make_uuid7(AT, 1 << bit) for bit in range(74)}) == 74


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0199f3c2-0000-4000-8000-000000000000",
        "0199f3c2-0000-7000-c000-000000000000",
        "0199F3C2-0000-7000-8000-000000000000",
        "0199f3c2000070008000000000000000",
        "0199f3c2-0000-7000-8000-000000000000\n",
    ],
)
def test_another_form_is_no_uuid7(text):
    assert not is_uuid7(text)


def test_the_id_of_a_part_is_the_same_whenever_it_is_derived_and_of_its_parents_time():
    parent = make_uuid7(AT, 7)

    assert derive_uuid7(parent, "0") == derive_uuid7(parent, "0") != derive_uuid7(parent, "1")
    assert uuid7_instant(derive_uuid7(parent, "0")) == uuid7_instant(parent)
    assert is_uuid7(derive_uuid7(parent, "0"))


@given(sequences, indices)
def test_a_position_is_read_as_it_was_written(sequence, index):
    position = make_position(sequence, index)

    assert parse_position(format_position(position)) == position
    assert commit_sequence(position) == sequence
    assert position < 2**63


@given(sequences, indices, sequences, indices)
def test_positions_are_ordered_by_commit_then_by_index(sequence, index, other, other_index):
    assert (make_position(sequence, index) < make_position(other, other_index)) == (
        (sequence, index) < (other, other_index)
    )


def test_a_bare_sequence_is_the_end_of_its_commit():
    assert parse_position("7") == make_position(7, EVENTS_PER_COMMIT_MAX - 1)


@pytest.mark.parametrize(
    "text", ["", ".", "x", "-1", "1.", "1.x", "1.1000", "1.-1", "²", "1.²", "1" * 16, "1 ", "1.1.1", "1.0000000001000"]
)
def test_what_is_no_position_is_refused(text):
    with pytest.raises(ValueError, match="not a position"):
        parse_position(text)


@given(instants)
def test_an_instant_is_the_same_as_a_datetime(at):
    assert from_datetime(to_datetime(at)) == at
    assert to_datetime(at).tzinfo is UTC


def test_a_datetime_of_another_zone_is_the_same_instant():
    here = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))

    assert from_datetime(here) == from_datetime(datetime(2026, 1, 1, 10, tzinfo=UTC))


def test_an_instant_is_shown_with_milliseconds_and_a_zone():
    assert format_instant(from_datetime(datetime(2026, 1, 1, 10, tzinfo=UTC))) == "2026-01-01T10:00:00.000Z"


def test_a_duration_is_microseconds():
    assert seconds(1.5) == 1_500_000
