"""One principal that commands without end keeps no other command from being stored, and has no more stored than it may."""

import asyncio
import time
from collections import Counter
from contextlib import suppress

import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import APIError, NoStreamResponseError
from running_api import World

from taskyard.api import intake
from taskyard.api.intake import (
    COMMANDS_HEARD,
    FORGIVEN_SECONDS,
    LOOK_MESSAGES,
    QUIET_SECONDS,
    QUIET_SECONDS_MAX,
    REFUSED_A_SECOND_MAX,
    WEIGHED_BYTES,
    Occurrences,
    Pace,
    Patience,
)
from taskyard.client import make_id
from taskyard.contracts.subjects import COMMAND_SUBJECTS, COMMANDS, HEADER_ANSWER

SUBMIT = "taskyard.command.{}.default.submit"
NONSENSE = "taskyard.command.{}.default.nonsense"
FLOOD = 20 * int(COMMANDS_HEARD.at_once)
ANSWER_SECONDS_MAX = 1.0


def command() -> bytes:
    return msgspec.json.encode({"id": make_id(), "kind": "noop", "input": {}})


class Stored:
    """What the stream of commands stores from now on, by principal."""

    def __init__(self) -> None:
        self.messages: list[Msg] = []

    async def begin(self, world: World) -> None:
        async def note(message: Msg) -> None:
            self.messages.append(message)

        await world.control.subscribe(COMMAND_SUBJECTS, cb=note)
        await world.control.flush()

    def of(self, principal: str) -> list[Msg]:
        return [message for message in self.messages if message.subject.split(".")[2] == principal]


async def stored(client: Client, name: str, data: bytes, **more: object) -> int:
    return (await client.jetstream().publish(SUBMIT.format(name), data, timeout=5, **more)).seq


@pytest.mark.anyio
async def test_the_commands_of_others_are_stored_while_one_floods_and_that_one_is_cut_off(world: World) -> None:
    seen = Stored()
    await seen.begin(world)
    oscar, admin = await world.nats("oscar"), await world.nats("admin")
    try:
        begun = time.monotonic()
        for _ in range(FLOOD):
            await oscar.publish(NONSENSE.format("oscar"), b"{")
        await oscar.flush()
        for _ in range(20):
            asked = time.monotonic()
            await stored(admin, "admin", command())
            assert time.monotonic() - asked < ANSWER_SECONDS_MAX
        may = COMMANDS_HEARD.at_once + COMMANDS_HEARD.per_second * (time.monotonic() - begun)
        assert COMMANDS_HEARD.at_once <= len(seen.of("oscar")) <= may < FLOOD
        with pytest.raises((APIError, NoStreamResponseError, TimeoutError)):
            await oscar.jetstream().publish(SUBMIT.format("oscar"), command(), timeout=1)
    finally:
        await oscar.close()
        await admin.close()


@pytest.mark.anyio
async def test_what_one_sends_at_once_is_stored_in_turns_with_what_others_send(world: World) -> None:
    oscar, admin = await world.nats("oscar"), await world.nats("admin")
    try:
        many = int(COMMANDS_HEARD.at_once)
        sending = [asyncio.create_task(stored(oscar, "oscar", command())) for _ in range(many)]
        await asyncio.sleep(0)
        await oscar.flush()
        other = await stored(admin, "admin", command())
        sequences = await asyncio.gather(*sending)
        assert len(set(sequences)) == many and sequences == sorted(sequences)
        assert other < sequences[many // 2]
    finally:
        await admin.close()
        await oscar.close()


@pytest.mark.anyio
async def test_of_who_does_not_stop_a_few_messages_are_heard_now_and_then_and_who_has_stopped_is_heard_as_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "QUIET_SECONDS", 0.5)
    seen = Stored()
    await seen.begin(world)
    oscar = await world.nats("oscar")
    try:
        begun = time.monotonic()
        while time.monotonic() - begun < 0.4:  # until it is cut off for certain
            await flood(oscar)
        before = len(seen.of("oscar"))
        assert before >= COMMANDS_HEARD.at_once
        while time.monotonic() - begun < 2.0:  # the first two looks
            await flood(oscar)
        assert len(seen.of("oscar")) - before <= 2 * LOOK_MESSAGES
        async with asyncio.timeout(20):
            await until_stored(oscar, 3 * LOOK_MESSAGES)
    finally:
        await oscar.close()


async def flood(client: Client) -> None:
    for _ in range(500):
        await client.publish(NONSENSE.format("oscar"), b"{")
    await client.flush()


async def until_stored(client: Client, count: int) -> None:
    """Until so many commands that are sent at once are all stored."""
    while True:
        with suppress(APIError, NoStreamResponseError, TimeoutError):
            await asyncio.gather(*(stored(client, "oscar", command()) for _ in range(count)))
            return
        await asyncio.sleep(1)


@pytest.mark.anyio
async def test_who_sends_a_little_too_much_is_told_so_and_may_go_on_after_a_moment(world: World) -> None:
    admin = await world.nats("admin")
    try:
        large = b'{"kind":"noop","input":"' + b"x" * (WEIGHED_BYTES * 16) + b'"}'
        asked = [admin.request(SUBMIT.format("admin"), large, timeout=5) for _ in range(80)]
        answers = [msgspec.json.decode(answer.data) for answer in await asyncio.gather(*asked)]
        codes = Counter(answer.get("error", {}).get("code") for answer in answers)
        assert codes.keys() == {None, 429} and codes[None] >= int(COMMANDS_HEARD.at_once) // 17
        told = next(answer["error"]["description"] for answer in answers if "error" in answer)
        assert "2000 a second" in told
        await asyncio.sleep(0.1)  # so long it takes that a command may be stored again
        assert await stored(admin, "admin", command()) > 0
    finally:
        await admin.close()


@pytest.mark.anyio
async def test_commands_that_are_alike_and_bear_no_id_are_stored_each_and_one_that_bears_one_once(world: World) -> None:
    admin, oscar = await world.nats("admin"), await world.nats("oscar")
    try:
        body = b'{"kind":"noop","input":{}}'
        assert len({await stored(admin, "admin", body) for _ in range(3)}) == 3
        once = {await stored(admin, "admin", body, headers={"Nats-Msg-Id": "mine"}) for _ in range(3)}
        assert len(once) == 1
        assert await stored(oscar, "oscar", body, headers={"Nats-Msg-Id": "mine"}) not in once
    finally:
        await admin.close()
        await oscar.close()


@pytest.mark.anyio
async def test_nothing_of_what_a_client_says_beside_its_command_reaches_the_stream(world: World) -> None:
    admin = await world.nats("admin")
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    try:
        headers = {HEADER_ANSWER: "api-other", "Nats-Rollup": "all", "Nats-TTL": "1s", "traceparent": trace, "X": "y"}
        await stored(admin, "admin", command(), headers=headers)
        message = await world.control.jetstream().get_last_msg(COMMANDS, SUBMIT.format("admin"))
        assert message.headers is not None and message.headers.pop("Nats-Msg-Id").startswith("admin.")
        assert message.headers == {"traceparent": trace}
    finally:
        await admin.close()


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("subject", "size"),
    [
        (SUBMIT.format("admin"), (1 << 20) - 8),
        (SUBMIT.format("admin"), 1 << 20),
        (NONSENSE.format("admin") + 3_900 * "e", 2),
    ],
    ids=["no room for an id", "as long as can be", "a subject that fills a line"],
)
async def test_a_command_that_fits_no_message_any_more_is_refused_and_costs_no_connection(
    world: World, subject: str, size: int
) -> None:
    """nats-server takes 1 MiB of it; with an id it is longer, and who sends that is hung up on for good."""
    admin, oscar = await world.nats("admin"), await world.nats("oscar")
    try:
        answer = msgspec.json.decode((await admin.request(subject, b" " * size, timeout=5)).data)
        assert (answer["error"]["code"], answer["error"]["err_code"]) == (413, 10054)
        assert await stored(oscar, "oscar", command()) > 0
        assert await stored(admin, "admin", command()) > 0
    finally:
        await admin.close()
        await oscar.close()


@pytest.mark.anyio
async def test_a_trace_context_that_is_none_is_not_handed_on_however_long_it_is(world: World) -> None:
    admin = await world.nats("admin")
    try:
        assert await stored(admin, "admin", command(), headers={"traceparent": "x" * ((1 << 20) - 1_000)}) > 0
        message = await world.control.jetstream().get_last_msg(COMMANDS, SUBMIT.format("admin"))
        assert list(message.headers or {}) == ["Nats-Msg-Id"]
    finally:
        await admin.close()


def test_who_sends_long_ones_is_cut_off_after_fewer_of_them_and_who_is_refused_now_and_then_is_not() -> None:
    pace = Pace()
    size, many = 128 * 1024, 200
    assert sum(pace.allows(size, 0.0) for _ in range(many)) == COMMANDS_HEARD.at_once * WEIGHED_BYTES // size
    assert any(pace.refuses_too_much(size, 0.0) for _ in range(REFUSED_A_SECOND_MAX * 64 * 1024 // size + 1))
    patient = Pace()
    assert not any(patient.refuses_too_much(size, second / 10) for second in range(1_000) if second % 2)


def test_who_goes_on_is_not_heard_for_longer_each_time_until_it_was_good_for_long() -> None:
    patience, now, quiet = Patience(), 1_000.0, []
    for _ in range(5):
        quiet.append(patience.lose(now))
        now += quiet[-1] + 1.0
    assert quiet == [QUIET_SECONDS, 2 * QUIET_SECONDS, 4 * QUIET_SECONDS, QUIET_SECONDS_MAX, QUIET_SECONDS_MAX]
    assert patience.lose(now + FORGIVEN_SECONDS) == QUIET_SECONDS


def test_two_who_count_the_same_messages_give_each_the_same_number() -> None:
    one, late = Occurrences(120), Occurrences(120)
    assert [one.count(key, 0.0) for key in "aabab"] == [1, 2, 1, 3, 2]
    assert [late.count(key, 1.0) for key in "ab"] == [1, 1]
    assert one.count("a", 200.0) == 4
    assert one.count("a", 441.0) == 1


def test_no_number_of_messages_fills_the_memory() -> None:
    counts = Occurrences(120, remembered_max=10)
    for number in range(1_000):
        counts.count(str(number), 0.0)
    assert len(counts._came) <= 11
