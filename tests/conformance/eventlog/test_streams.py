"""Streams are made as specified, checked when they exist, and kept from losing messages."""

import msgspec
import nats
import pytest
from nats.protocol import parser

import taskyard.eventlog.any_message  # noqa: F401 - it makes nats-py stricter, in this process for every test
from taskyard.contracts.agent_protocol import REPORT_BYTES_MAX
from taskyard.contracts.subjects import REPORTS, streams
from taskyard.eventlog.durability import is_sync_always
from taskyard.eventlog.errors import ApiRefused, LogMissing, StreamMismatch
from taskyard.eventlog.streams import LIMIT_BYTES_MIN, ensure_streams, refuse_lost_log, stream_config

pytestmark = pytest.mark.anyio

ANSWER_SECONDS_MAX = 10.0


async def change(nc, stream: str, **changes: object) -> None:
    answer = await nc.request(f"$JS.API.STREAM.INFO.{stream}", b"", timeout=ANSWER_SECONDS_MAX)
    config = {**msgspec.json.decode(answer.data)["config"], **changes}
    answer = await nc.request(
        f"$JS.API.STREAM.UPDATE.{stream}", msgspec.json.encode(config), timeout=ANSWER_SECONDS_MAX
    )
    assert "error" not in msgspec.json.decode(answer.data), answer.data


async def make(nc, config: dict[str, object]) -> None:
    answer = await nc.request(
        f"$JS.API.STREAM.CREATE.{config['name']}", msgspec.json.encode(config), timeout=ANSWER_SECONDS_MAX
    )
    assert "error" not in msgspec.json.decode(answer.data), answer.data


async def test_making_streams_again_changes_nothing(nats_site):
    js = nats_site.nc.jetstream()
    await ensure_streams({"control": nats_site.nc}, nats_site.specs())  # guards what the first version left open
    before = [(await js.stream_info(spec.name)).config for spec in nats_site.specs()]
    await ensure_streams({"control": nats_site.nc}, nats_site.specs())
    assert [(await js.stream_info(spec.name)).config for spec in nats_site.specs()] == before


async def test_all_streams_of_a_deployment_can_be_made(nats_site):
    specs = [msgspec.structs.replace(spec, account="control") for spec in streams()]
    await ensure_streams({"control": nats_site.nc}, specs)
    await ensure_streams({"control": nats_site.nc}, specs)
    js = nats_site.nc.jetstream()
    for spec in specs:
        await js.delete_stream(spec.name)


async def test_streams_of_an_account_without_a_connection_are_left_alone(nats_site):
    (spec,) = (spec for spec in streams() if spec.name == "TASKYARD_REPORTS")
    await ensure_streams({"control": nats_site.nc}, [spec])
    with pytest.raises(nats.js.errors.NotFoundError):
        await nats_site.nc.jetstream().stream_info(spec.name)


async def test_messages_of_the_log_cannot_be_deleted_or_purged(nats_site, kit):
    await nats_site.log().append(kit.make_commit(), writer="w", expected=0)
    js = nats_site.nc.jetstream()
    with pytest.raises(nats.js.errors.APIError):
        await js.purge_stream(nats_site.stream)
    with pytest.raises(nats.js.errors.APIError):
        await js.delete_msg(nats_site.stream, 1)
    with pytest.raises(nats.js.errors.APIError):
        await js.publish(f"{nats_site.prefix}.w", b"x", headers={"Nats-Rollup": "all"})
    assert await nats_site.log().head() == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("storage", "memory"),
        ("deny_delete", False),
        ("deny_purge", False),
        ("discard", "old"),
        ("max_age", 3_600_000_000_000),
        ("max_msgs", 1_000),
        ("max_msgs_per_subject", 1),
        ("allow_msg_ttl", True),
        ("persist_mode", "async"),
        ("no_ack", True),
        ("retention", "interest"),
        ("subjects", ["log.NAME.*", "foreign.NAME"]),
    ],
)
async def test_a_log_with_a_dangerous_setting_is_refused_by_name(nats_site, setting, value):
    log, _ = nats_site.specs()
    if setting == "subjects":
        value = [subject.replace("NAME", nats_site.stream) for subject in value]
        value[0] = log.subjects[0]
    await nats_site.nc.jetstream().delete_stream(log.name)
    await make(nats_site.nc, {**stream_config(log, 1), setting: value})
    with pytest.raises(StreamMismatch) as caught:
        await ensure_streams({"control": nats_site.nc}, [log])
    assert caught.value.setting == setting


async def test_rollup_is_refused_on_every_stream(nats_site):
    _, inputs = nats_site.specs()
    await change(nats_site.nc, inputs.name, allow_rollup_hdrs=True)
    with pytest.raises(StreamMismatch) as caught:
        await ensure_streams({"control": nats_site.nc}, [inputs])
    assert caught.value.setting == "allow_rollup_hdrs"


async def test_tight_limits_are_raised_and_wide_ones_left(nats_site):
    _, inputs = nats_site.specs()
    js = nats_site.nc.jetstream()
    await change(nats_site.nc, inputs.name, max_age=600_000_000_000, max_msgs=5, max_bytes=1_000_000, discard="old")
    await ensure_streams({"control": nats_site.nc}, [inputs])
    found = (await js.stream_info(inputs.name)).config
    assert (found.max_age, found.max_msgs, found.max_bytes) == (3600, -1, -1)
    assert found.discard == "new"

    await change(nats_site.nc, inputs.name, max_age=86_400_000_000_000, description="kept longer by an operator")
    await ensure_streams({"control": nats_site.nc}, [inputs])
    found = (await js.stream_info(inputs.name)).config
    assert (found.max_age, found.description) == (86_400, "kept longer by an operator")


async def test_a_sender_that_stores_too_much_loses_its_own_oldest_messages_and_nobody_elses(nats_site):
    _, inputs = nats_site.specs()
    js = nats_site.nc.jetstream()
    subject = inputs.subjects[0].rpartition(".")[0]
    for number in range(4):
        await js.publish(f"{subject}.flooder", b"%d" % number)
    limited = msgspec.structs.replace(inputs, subject_messages_max=3)
    await ensure_streams({"control": nats_site.nc}, [limited])  # also a stream that was made without
    await js.publish(f"{subject}.other", b"a")
    for number in range(4, 9):
        assert await js.publish(f"{subject}.flooder", b"%d" % number)

    left = [(await js.get_msg(inputs.name, sequence)).data for sequence in (5, 8, 9, 10)]
    assert left == [b"a", b"6", b"7", b"8"]
    assert (await js.stream_info(inputs.name)).state.messages == 4

    await change(nats_site.nc, inputs.name, max_msgs_per_subject=5)
    await ensure_streams({"control": nats_site.nc}, [limited])
    assert (await js.stream_info(inputs.name)).config.max_msgs_per_subject == 5  # what an operator has raised stays


async def test_a_stream_that_could_grow_for_ever_gets_its_limit_and_loses_nothing(nats_site):
    _, inputs = nats_site.specs()
    for _ in range(4):
        await nats_site.publish_input(bytes(100_000))

    await ensure_streams({"control": nats_site.nc}, [msgspec.structs.replace(inputs, max_bytes=700_000)])
    found = await nats_site.nc.jetstream().stream_info(inputs.name)
    assert (found.config.max_bytes or -1, found.state.messages) == (-1, 4), "it would soon refuse everything"

    await ensure_streams({"control": nats_site.nc}, [msgspec.structs.replace(inputs, max_bytes=1_000_000)])
    found = await nats_site.nc.jetstream().stream_info(inputs.name)
    assert (found.config.max_bytes, found.state.messages) == (1_000_000, 4)


async def test_a_stream_that_is_full_refuses_what_is_new_and_keeps_all_that_it_has_taken(nats_site):
    _, inputs = nats_site.specs()
    await ensure_streams({"control": nats_site.nc}, [msgspec.structs.replace(inputs, max_bytes=1_000_000)])
    for _ in range(9):
        await nats_site.publish_input(bytes(100_000))
    with pytest.raises(nats.js.errors.APIError, match="maximum bytes exceeded"):
        await nats_site.publish_input(bytes(100_000))

    await ensure_streams({"control": nats_site.nc}, [msgspec.structs.replace(inputs, max_bytes=2_000_000)])
    await nats_site.publish_input(bytes(100_000))  # what an operator has given more room
    found = await nats_site.nc.jetstream().stream_info(inputs.name)
    assert (found.state.first_seq, found.state.messages) == (1, 10)


async def test_a_server_with_less_room_than_a_stream_may_take_gives_it_half_and_half_of_that(nats_site):
    _, inputs = nats_site.specs()
    much = msgspec.structs.replace(
        inputs, max_bytes=1 << 60, name=f"{inputs.name}_MUCH", subjects=(f"{inputs.name}.>",)
    )
    for _ in range(2):  # and once more where it is there
        await ensure_streams({"control": nats_site.nc}, [much])
        found = (await nats_site.nc.jetstream().stream_info(much.name)).config
        assert LIMIT_BYTES_MIN <= found.max_bytes < 1 << 60
    await nats_site.nc.jetstream().delete_stream(much.name)


def test_one_agent_cannot_fill_the_stream_of_reports():
    (reports,) = (spec for spec in streams() if spec.name == REPORTS)
    assert reports.discard_new
    assert reports.subject_messages_max * reports.max_message_bytes <= reports.max_bytes / 2
    assert reports.max_message_bytes > REPORT_BYTES_MAX


async def test_a_subject_that_is_missing_is_added(nats_site):
    _, inputs = nats_site.specs()
    more = msgspec.structs.replace(inputs, subjects=(*inputs.subjects, f"more.{nats_site.input_name}"))
    await ensure_streams({"control": nats_site.nc}, [more])
    found = (await nats_site.nc.jetstream().stream_info(inputs.name)).config
    assert found.subjects == list(more.subjects)


def test_an_empty_reply_subject_of_a_server_is_read() -> None:
    """What servers say of themselves bears one, also where nats-py reads nothing but single blanks."""
    match = parser.MSG_RE.match(b"MSG _INBOX.a 1  842\r\n")
    assert match is not None and match.groups() == (b"_INBOX.a", b"1", b" ", None, b"842")
    match = parser.MSG_RE.match(b"MSG a.b 7 reply.c 5\r\n")
    assert match is not None and match.groups() == (b"a.b", b"7", b"reply.c ", b"reply.c", b"5")


async def test_flushing_of_every_write_is_seen_over_http_and_the_system_account(server):
    system = await server.connect("sys")
    assert await is_sync_always(monitoring_urls=[server.monitoring_url])
    assert await is_sync_always(system=system)
    assert await is_sync_always(monitoring_urls=[server.monitoring_url], system=system)
    assert not await is_sync_always(system=system, servers=2)
    await system.close()


async def test_a_server_that_does_not_flush_every_write_is_seen(tmp_path, kit):
    lazy = kit.NatsProcess(tmp_path, jetstream="")
    lazy.start()
    try:
        system = await lazy.connect("sys")
        assert not await is_sync_always(monitoring_urls=[lazy.monitoring_url])
        assert not await is_sync_always(system=system)
        await system.close()
    finally:
        lazy.kill()


async def test_what_cannot_be_asked_counts_as_not_flushing(server, nats_site):
    assert not await is_sync_always()
    assert not await is_sync_always(monitoring_urls=["http://127.0.0.1:9"])
    assert not await is_sync_always(system=nats_site.nc)  # An ordinary account does not learn it.


async def test_one_of_three_servers_may_be_away_when_they_are_asked_whether_they_flush(server, tmp_path, kit):
    well, away = server.monitoring_url, "http://127.0.0.1:9"
    assert await is_sync_always(monitoring_urls=[well, well, away])
    assert not await is_sync_always(monitoring_urls=[well, away])
    assert not await is_sync_always(monitoring_urls=[well, away, away])
    lazy = kit.NatsProcess(tmp_path, jetstream="")
    lazy.start()
    try:
        await (await lazy.connect("sys")).close()
        assert not await is_sync_always(monitoring_urls=[well, well, lazy.monitoring_url])
    finally:
        lazy.kill()


async def test_more_replicas_than_servers_are_refused_at_once(nats_site):
    log, _ = nats_site.specs()
    with pytest.raises(ApiRefused, match="replicas"):
        await ensure_streams({"control": nats_site.nc}, [log], replicas=3)


async def test_a_log_that_was_deleted_is_not_begun_anew_beside_commands_that_it_has_decided(nats_site):
    log, inputs = nats_site.specs()
    js = nats_site.nc.jetstream()
    await refuse_lost_log(nats_site.nc, log.name, inputs.name)
    await js.delete_stream(log.name)
    await refuse_lost_log(nats_site.nc, log.name, inputs.name)  # nothing was stored yet
    await nats_site.publish_input(b"command")
    with pytest.raises(LogMissing, match=log.name):
        await refuse_lost_log(nats_site.nc, log.name, inputs.name)
    await js.delete_stream(inputs.name)
    await refuse_lost_log(nats_site.nc, log.name, inputs.name)
