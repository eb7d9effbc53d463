"""Appending, fencing and following, as the real log and its twin must both do it."""

import asyncio

import msgspec
import pytest

from taskyard.contracts.values import EVENTS_PER_COMMIT_MAX, Instant
from taskyard.eventlog.commit import COMMIT_BYTES_MAX, Commit, hash_commit
from taskyard.eventlog.errors import CommitTooLarge, CommitUnreadable, FenceMoved, LogGap
from taskyard.eventlog.reading import decode_message

pytestmark = pytest.mark.anyio


async def test_a_commit_is_appended_at_the_end_and_read_back_as_it_was(site, kit):
    log = site.log()
    data = kit.make_commit("w", kit.Opened("front"), kit.Closed("front"))

    sequence = await log.append(data, writer="w", expected=0)

    assert sequence == 1 == await log.head()
    stored = await log.last("w")
    assert (stored.sequence, stored.hash) == (1, hash_commit(data))
    assert stored.commit.events == (kit.Opened("front"), kit.Closed("front"))
    assert (stored.commit.writer, stored.commit.instance, stored.commit.epoch) == ("w", "one", 1)
    assert (stored.commit.at, stored.commit.cursors) == (7, {"IN": 3})
    assert stored.at > 0


async def test_a_writer_without_commits_has_no_last_one(site):
    assert await site.log().last("w") is None
    assert await site.log().head() == 0


async def test_an_instance_that_was_overtaken_is_fenced(site, kit):
    old, new = site.log(), site.log()
    first = await old.append(kit.make_commit(instance="old"), writer="w", expected=0)
    epoch = await new.append(kit.make_commit(instance="new", epoch=2), writer="w", expected=first)

    with pytest.raises(FenceMoved) as caught:
        await old.append(kit.make_commit("w", kit.Opened("x"), instance="old"), writer="w", expected=first)

    assert (caught.value.writer, caught.value.expected, caught.value.actual) == ("w", first, epoch)
    assert await new.head() == epoch


async def test_an_instance_that_starts_twice_is_fenced_at_the_empty_log(site, kit):
    await site.log().append(kit.make_commit(instance="one"), writer="w", expected=0)
    with pytest.raises(FenceMoved):
        await site.log().append(kit.make_commit(instance="two"), writer="w", expected=0)


async def test_the_same_commit_sent_again_is_the_same_commit(site, kit):
    log = site.log()
    data = kit.make_commit("w", kit.Opened("x"))
    first = await log.append(data, writer="w", expected=0)
    assert await log.append(data, writer="w", expected=0) == first
    assert await log.head() == first


async def test_two_writers_share_one_total_order(site, kit):
    log = site.log()

    async def write(writer: str) -> list[int]:
        sequences = [0]
        for number in range(20):
            data = kit.make_commit(writer, kit.Opened(str(number)))
            sequences.append(await log.append(data, writer=writer, expected=sequences[-1]))
        return sequences[1:]

    a, b = await asyncio.gather(write("a"), write("b"))

    assert sorted(a + b) == list(range(1, 41))
    async with log.follow(0) as batches:
        commits = await kit.take(batches, 40)
    assert [stored.sequence for stored in commits] == list(range(1, 41))
    for writer, sequences in (("a", a), ("b", b)):
        own = [stored for stored in commits if stored.commit.writer == writer]
        assert [stored.sequence for stored in own] == sequences
        assert [stored.commit.events[0].door for stored in own] == [str(number) for number in range(20)]
    times = [stored.at for stored in commits]
    assert times == sorted(times)


async def test_following_begins_after_a_position_and_goes_on_live(site, kit):
    log = site.log()
    expected = 0
    for number in range(5):
        expected = await log.append(kit.make_commit("w", kit.Opened(str(number))), writer="w", expected=expected)

    async with site.log().follow(3) as batches:
        assert [stored.sequence for stored in await kit.take(batches, 2)] == [4, 5]
        waiting = asyncio.ensure_future(kit.take(batches, 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        await log.append(kit.make_commit("w", kit.Opened("live")), writer="w", expected=expected)
        assert [stored.commit.events for stored in await waiting] == [(kit.Opened("live"),)]


async def test_a_reader_that_is_cancelled_loses_nothing(site, kit):
    log = site.log()
    async with log.follow(0) as batches:
        for _ in range(3):
            reading = asyncio.ensure_future(batches.__anext__())
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait({reading})
        await log.append(kit.make_commit(), writer="w", expected=0)
        assert [stored.sequence for stored in await kit.take(batches, 1)] == [1]


async def test_log_time_is_never_below_the_floor(site, kit):
    log = site.log()
    first = await log.append(kit.make_commit(), writer="w", expected=0)
    await log.append(kit.make_commit(epoch=2), writer="w", expected=first)
    floor = Instant(4_000_000_000_000_000)
    async with log.follow(0, floor=floor) as batches:
        assert [stored.at for stored in await kit.take(batches, 2)] == [floor, floor]


async def test_log_time_does_not_go_back_with_the_clock(kit):
    site = kit.MemorySite()
    log = site.log()
    first = await log.append(kit.make_commit(), writer="w", expected=0)
    at = site.now
    site.now = Instant(at - 500_000)
    second = await log.append(kit.make_commit(epoch=2), writer="w", expected=first)
    site.now = Instant(at + 500_000)
    await log.append(kit.make_commit(epoch=3), writer="w", expected=second)
    async with log.follow(0) as batches:
        assert [stored.at for stored in await kit.take(batches, 3)] == [at, at, at + 500_001]


async def test_a_range_is_read_and_ends_where_the_log_ends(site, kit):
    log = site.log()
    expected = 0
    for number in range(6):
        expected = await log.append(kit.make_commit("w", kit.Opened(str(number))), writer="w", expected=expected)
    assert [stored.sequence async for stored in log.read(2, 4)] == [2, 3, 4]
    assert [stored.sequence async for stored in log.read(5, 99)] == [5, 6]
    assert [stored.sequence async for stored in log.read(7, 99)] == []


async def test_following_from_beyond_the_end_is_a_gap(site, kit, monkeypatch):
    monkeypatch.setattr("taskyard.eventlog.follower.BEHIND_SECONDS_MAX", 0.2)
    log = site.log()
    await log.append(kit.make_commit(), writer="w", expected=0)
    with pytest.raises(LogGap):
        async with log.follow(5) as batches:
            await kit.take(batches, 1)


async def test_each_commit_names_the_hash_of_the_one_before(site, kit):
    log = site.log()
    expected, previous = 0, ""
    for number in range(4):
        data = kit.make_commit("w", kit.Opened(str(number)), previous=previous)
        expected, previous = await log.append(data, writer="w", expected=expected), hash_commit(data)
    chain = [stored async for stored in log.read(1, 4)]
    assert [stored.commit.previous for stored in chain] == ["", *(stored.hash for stored in chain[:-1])]


async def test_events_and_fields_of_a_newer_writer_survive(site, kit):
    log = site.log()
    newer = msgspec.json.encode(
        {
            "writer": "w",
            "instance": "one",
            "epoch": 1,
            "at": 7,
            "shape": "later",
            "events": [
                {"type": "Opened", "door": "x", "colour": "red"},
                {"type": "Painted", "door": "x"},
                {"type": "Closed", "door": "x"},
            ],
        }
    )
    await log.append(newer, writer="w", expected=0)
    async with log.follow(0) as batches:
        (stored,) = await kit.take(batches, 1)
    assert stored.hash == hash_commit(newer)
    assert stored.commit.events == (
        kit.Opened("x"),
        kit.Unknown(b'{"type":"Painted","door":"x"}'),
        kit.Closed("x"),
    )


async def test_a_commit_in_another_writers_name_is_not_read(site, kit):
    log = site.log()
    await log.append(kit.make_commit("honest"), writer="other", expected=0)
    with pytest.raises(CommitUnreadable):
        await log.last("other")
    with pytest.raises(CommitUnreadable):
        async with log.follow(0) as batches:
            await kit.take(batches, 1)


async def test_what_is_no_commit_is_not_read(kit):
    for data in (b"", b"{}", b"[]", b'{"writer":'):
        with pytest.raises(CommitUnreadable):
            kit.codec.decode(data)


async def test_a_commit_beyond_the_limits_is_refused_before_it_is_sent(site, kit):
    log = site.log()
    with pytest.raises(CommitTooLarge):
        await log.append(b"x" * (COMMIT_BYTES_MAX + 1), writer="w", expected=0)
    with pytest.raises(CommitTooLarge):
        kit.make_commit("w", *(kit.Opened("x") for _ in range(EVENTS_PER_COMMIT_MAX + 1)))
    with pytest.raises(CommitTooLarge):
        kit.make_commit("w", kit.Opened("x" * COMMIT_BYTES_MAX))
    assert await log.head() == 0


async def test_a_commit_of_the_largest_size_fits(site, kit):
    log = site.log()
    rest = len(kit.make_commit("w", kit.Opened("")))
    data = kit.make_commit("w", kit.Opened("x" * (COMMIT_BYTES_MAX - rest)))
    assert len(data) == COMMIT_BYTES_MAX
    assert await log.append(data, writer="w", expected=0) == 1
    assert (await log.last("w")).hash == hash_commit(data)


async def test_inputs_are_followed_after_a_cursor_and_live(site, kit):
    for number in range(4):
        await site.publish_input(str(number).encode())
    async with site.input().follow(2) as batches:
        messages = await kit.take(batches, 2)
        assert [(message.sequence, message.data) for message in messages] == [(3, b"2"), (4, b"3")]
        await site.publish_input(b"live")
        assert [message.data for message in await kit.take(batches, 1)] == [b"live"]


async def test_inputs_that_expired_are_passed_over(site, kit):
    for number in range(4):
        await site.publish_input(str(number).encode())
    await site.expire_input(2)
    async with site.input().follow(0) as batches:
        assert [message.sequence for message in await kit.take(batches, 2)] == [3, 4]


async def test_an_input_that_lost_its_end_is_read_again(site, kit, monkeypatch):
    monkeypatch.setattr("taskyard.eventlog.follower.BEHIND_SECONDS_MAX", 0.2)
    await site.publish_input(b"all that is left")
    async with site.input().follow(50) as batches:
        assert [message.sequence for message in await kit.take(batches, 1)] == [1]


async def test_expiry_leaves_a_hole_that_a_log_must_not_have(kit):
    site = kit.MemorySite()
    log = site.log()
    first = await log.append(kit.make_commit(), writer="w", expected=0)
    await log.append(kit.make_commit(epoch=2), writer="w", expected=first)
    site.log_stream.expire(1)
    with pytest.raises(LogGap):
        async with log.follow(0) as batches:
            await kit.take(batches, 1)


async def test_the_writer_of_a_message_is_the_last_token_of_its_subject(kit):
    site = kit.MemorySite()
    site.log_stream.store("log.0.w", kit.make_commit("w"))
    (message,) = site.log_stream.after(0)
    assert isinstance(decode_message(kit.codec, message).commit, Commit)
