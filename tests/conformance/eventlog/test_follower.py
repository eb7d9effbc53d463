"""What happens to a follower when the server, the consumer or the reader fails."""

import asyncio

import pytest

from taskyard.eventlog import backlog as backlog_module
from taskyard.eventlog import follower as follower_module
from taskyard.eventlog.errors import LogGap, LogUnavailable, StreamMissing, StreamReplaced
from taskyard.eventlog.follower import StreamFollower
from taskyard.eventlog.jetstream import JetStreamInput
from taskyard.eventlog.streams import ensure_streams

pytestmark = pytest.mark.anyio


async def delete_consumers(nc, stream: str) -> int:
    js = nc.jetstream()
    names = [consumer.name for consumer in await js.consumers_info(stream)]
    for name in names:
        await js.delete_consumer(stream, name)
    return len(names)


async def test_following_goes_on_after_the_server_was_killed(own_server, own_site, kit):
    log = own_site.log()
    expected = 0
    async with log.follow(0) as batches:
        for number in range(5):
            expected = await log.append(kit.make_commit("w", kit.Opened(str(number))), writer="w", expected=expected)
        seen = await kit.take(batches, 5)
        for _ in range(2):
            own_server.kill()
            own_server.start()
            expected = await log.append(kit.make_commit("w", kit.Opened("again")), writer="w", expected=expected)
            seen += await kit.take(batches, 1)
    assert [stored.sequence for stored in seen] == [1, 2, 3, 4, 5, 6, 7]


async def test_following_goes_on_after_the_consumer_was_deleted(nats_site, kit):
    log = nats_site.log()
    async with log.follow(0) as batches:
        first = await log.append(kit.make_commit(), writer="w", expected=0)
        await kit.take(batches, 1)
        assert await delete_consumers(nats_site.nc, nats_site.stream) == 1
        await log.append(kit.make_commit(epoch=2), writer="w", expected=first)
        assert [stored.sequence for stored in await kit.take(batches, 1)] == [2]


async def test_following_goes_on_after_a_delivery_was_lost_on_the_way(nats_site, kit):
    log = nats_site.log()
    expected = 0
    for number in range(50):
        expected = await log.append(kit.make_commit("w", kit.Opened(str(number))), writer="w", expected=expected)
    lossy = StreamFollower(nats_site.nc, nats_site.stream, after=0, contiguous=True)
    take_in, lost = lossy._take, set()

    async def lose_some(message):
        sequence = message.reply.split(".")[5] if message.reply.startswith("$JS.ACK.") else ""
        if sequence in {"10", "30", "50"} and sequence not in lost:
            lost.add(sequence)
            return
        await take_in(message)

    lossy._take = lose_some
    async with lossy:
        messages = await kit.take(lossy, 50)
    assert [message.sequence for message in messages] == list(range(1, 51))
    assert lost == {"10", "30", "50"}


async def test_a_slow_reader_holds_the_server_back_and_gets_everything(nats_site, kit, monkeypatch):
    monkeypatch.setattr(backlog_module, "EASY_BYTES", 200_000)
    js = nats_site.nc.jetstream()
    count = 300
    for _ in range(count):
        await nats_site.publish_input(b"x" * 100_000)
    async with JetStreamInput(nats_site.nc, nats_site.input_name).follow(0) as follower:
        held: list[int] = []

        def is_held_back() -> bool:
            held.append(len(follower._backlog))
            return bool(follower._flow_reply)

        await kit.until(is_held_back)
        messages = await kit.take(follower, count)
    assert held[-1] < count / 2
    assert [message.sequence for message in messages] == list(range(1, count + 1))
    assert not await js.consumers_info(nats_site.input_name)


async def test_a_reader_that_stands_still_holds_no_more_than_the_bound_and_gets_everything_in_the_end(nats_site, kit):
    """It read fast before, and so has earned a window that alone is more than the bound."""
    size, count = 100_000, 700

    async def publish() -> None:
        for _ in range(count):
            await nats_site.publish_input(b"x" * size)

    await publish()
    async with JetStreamInput(nats_site.nc, nats_site.input_name).follow(0) as follower:
        messages = await kit.take(follower, count)
        await publish()
        await kit.until(lambda: follower._is_paused and follower._subscription is None)
        held = len(follower._backlog) * size
        messages += await kit.take(follower, count)
    assert backlog_module.BACKLOG_BYTES_MAX - size < held <= backlog_module.BACKLOG_BYTES_MAX + size
    assert [message.sequence for message in messages] == list(range(1, 2 * count + 1))


async def test_a_narrowed_follower_sees_its_subject_only_and_no_gap(nats_site, kit):
    js = nats_site.nc.jetstream()
    for number in range(10):
        await js.publish(f"{nats_site.input_subject}.{'even' if number % 2 == 0 else 'odd'}", str(number).encode())
    source = JetStreamInput(nats_site.nc, nats_site.input_name, filter_subject=f"{nats_site.input_subject}.odd")
    async with source.follow(4) as batches:
        messages = await kit.take(batches, 3)
        assert [(message.sequence, message.data) for message in messages] == [(6, b"5"), (8, b"7"), (10, b"9")]
        assert await delete_consumers(nats_site.nc, nats_site.input_name) == 1
        await js.publish(f"{nats_site.input_subject}.odd", b"11")
        assert [message.data for message in await kit.take(batches, 1)] == [b"11"]


async def test_headers_are_delivered(nats_site, kit):
    await nats_site.nc.jetstream().publish(f"{nats_site.input_subject}.a", b"x", headers={"Colour": "red"})
    async with nats_site.input().follow(0) as batches:
        (message,) = await kit.take(batches, 1)
    assert message.headers["Colour"] == "red"
    assert message.subject == f"{nats_site.input_subject}.a"


async def test_a_hole_in_a_log_is_reported(nats_site, kit):
    for number in range(3):
        await nats_site.publish_input(str(number).encode())
    await nats_site.nc.jetstream().delete_msg(nats_site.input_name, 2)
    async with StreamFollower(nats_site.nc, nats_site.input_name, after=0, contiguous=True) as strict:
        with pytest.raises(LogGap) as caught:
            await kit.take(strict, 3)
    assert (caught.value.expected, caught.value.actual) == (2, 3)


async def test_closing_leaves_no_consumer_behind(nats_site, kit):
    async with nats_site.log().follow(0):
        await nats_site.log().append(kit.make_commit(), writer="w", expected=0)
    assert not await nats_site.nc.jetstream().consumers_info(nats_site.stream)


async def test_a_stream_out_of_reach_ends_the_following_after_the_limit(own_server, own_site):
    own_server.kill()
    async with StreamFollower(own_site.nc, own_site.stream, after=0, unavailable_seconds_max=0.3) as absent:
        with pytest.raises(LogUnavailable):
            async with asyncio.timeout(10):
                await absent.next_batch()


async def test_a_stream_that_is_not_there_ends_the_following_after_the_limit(nats_site, monkeypatch):
    monkeypatch.setattr(follower_module, "MISSING_SECONDS_MAX", 0.3)
    async with StreamFollower(nats_site.nc, "NO_SUCH_STREAM", after=0) as absent:
        with pytest.raises(StreamMissing):
            async with asyncio.timeout(10):
                await absent.next_batch()


async def test_a_stream_that_is_made_anew_while_it_is_followed_is_told_apart(nats_site, kit):
    _, inputs = nats_site.specs()
    for number in range(3):
        await nats_site.publish_input(str(number).encode())
    async with nats_site.input().follow(0) as batches:
        await kit.take(batches, 3)
        await nats_site.nc.jetstream().delete_stream(inputs.name)
        await ensure_streams({"control": nats_site.nc}, [inputs])
        for number in range(5):
            await nats_site.publish_input(str(number).encode())
        with pytest.raises(StreamReplaced):
            async with asyncio.timeout(10):
                await batches.__anext__()


async def test_a_stream_that_was_made_anew_since_its_cursor_was_named_is_told_apart(nats_site):
    _, inputs = nats_site.specs()
    stream = nats_site.input()
    before = await stream.cursor_name()
    assert await nats_site.input().cursor_name() == before
    await nats_site.nc.jetstream().delete_stream(inputs.name)
    await ensure_streams({"control": nats_site.nc}, [inputs])
    async with stream.follow(0) as batches:
        with pytest.raises(StreamReplaced):
            async with asyncio.timeout(10):
                await batches.__anext__()
    assert await stream.cursor_name() != before


async def test_a_stream_is_the_same_one_after_a_restart_of_the_server(own_server, own_site):
    stream = own_site.input()
    before = await stream.cursor_name()
    own_server.kill()
    own_server.start()
    assert await stream.cursor_name() == before


async def test_a_closed_connection_ends_the_following(server, nats_site):
    nc = await server.connect()
    async with StreamFollower(nc, nats_site.stream, after=0) as cut:
        await nc.close()
        with pytest.raises(LogUnavailable):
            async with asyncio.timeout(10):
                await cut.next_batch()


async def test_a_follower_that_was_closed_keeps_nothing_of_what_it_had_read_ahead(nats_site, kit):
    """It may be megabytes, and what still refers to the follower may wait long for the garbage collector."""
    log, expected = nats_site.log(), 0
    follower = StreamFollower(nats_site.nc, nats_site.stream, after=0, contiguous=True)
    async with follower:
        for number in range(3):
            expected = await log.append(kit.make_commit("w", kit.Opened(str(number))), writer="w", expected=expected)
        async with asyncio.timeout(10):
            while len(follower._backlog) < 3:
                await asyncio.sleep(0.01)

    assert not follower._backlog


async def test_the_end_of_an_input_is_its_last_message_that_is_there(nats_site):
    js = nats_site.nc.jetstream()
    narrow = JetStreamInput(nats_site.nc, nats_site.input_name, filter_subject=f"{nats_site.input_subject}.odd")
    assert (await nats_site.input().end(), await narrow.end()) == (0, 0)

    await js.publish(f"{nats_site.input_subject}.odd", b"1")
    for number in (2, 3):
        await nats_site.publish_input(str(number).encode())
    assert (await nats_site.input().end(), await narrow.end()) == (3, 1)

    await js.delete_msg(nats_site.input_name, 3)
    assert await nats_site.input().end() >= 2  # never less: what is there would count as read
    await nats_site.expire_input(3)
    assert (await nats_site.input().end(), await narrow.end()) == (0, 0)
