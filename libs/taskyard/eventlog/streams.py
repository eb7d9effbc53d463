"""Makes the streams of a deployment, and refuses one that exists with a setting that could lose or forge messages."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

import msgspec
from nats.aio.client import Client

from taskyard.contracts.subjects import StreamSpec
from taskyard.eventlog.answers import find_stream, try_find_stream, until_answered
from taskyard.eventlog.append import Patience
from taskyard.eventlog.errors import ApiRefused, LogMissing, LogUnavailable, StreamMismatch, StreamMissing
from taskyard.eventlog.jetstream_api import (
    NO_ROOM_ON_SERVER,
    STREAM_NOT_FOUND,
    StreamInfo,
    api_request,
    nanoseconds,
)

ENSURE_SECONDS_MAX = 30.0
"""How long one stream is tried: a cluster that has just started elects its leaders first."""
AWAIT_SECONDS_MAX = 60.0
"""How long a service waits for streams that are still to be made."""
UNLIMITED = -1
LIMIT_BYTES_MIN = 64 << 20
"""Where the server has less room than a stream may take, the stream may take half, and half of that, down to this."""

NO_SUITABLE_PEERS = 10005
"""There are not as many servers as replicas are asked for, or not yet."""
_STREAM_NAME_IN_USE = 10058
_PASSING = frozenset((_STREAM_NAME_IN_USE, NO_SUITABLE_PEERS, STREAM_NOT_FOUND))
"""Refusals of a cluster that is just starting, or whose stream another instance has made or deleted meanwhile."""

_NEVER: Mapping[str, object] = {
    "storage": "file",
    "retention": "limits",
    # `async` acknowledges before anything is written.
    "persist_mode": "default",
    "no_ack": False,
    "sealed": False,
    # Each of these lets a message that is published erase, forge or expire another.
    "allow_rollup_hdrs": False,
    "allow_msg_schedules": False,
    "allow_msg_ttl": False,
    "allow_msg_counter": False,
    "mirror": None,
    "sources": None,
    "subject_transform": None,
}
"""Settings that must read so on every stream, with what an absent one means. Any other value is refused."""

_APPEND_ONLY: Mapping[str, object] = {
    "deny_delete": True,
    "deny_purge": True,
    "discard": "new",
    "max_age": 0,
    "max_msgs": UNLIMITED,
    "max_msgs_per_subject": UNLIMITED,
}
_log = logging.getLogger(__name__)
_ABSENT: Mapping[str, object] = {"deny_delete": False, "deny_purge": False, "max_age": 0, "discard": "old"}


async def ensure_streams(
    nc_by_account: Mapping[str, Client], specs: Sequence[StreamSpec], *, replicas: int = 1
) -> None:
    """Make every stream of `specs` whose account is given, or check the one that exists.

    Limits that are tighter than the specification are raised, replicas and subjects added; nothing is ever lowered, but that
    what may grow for ever gets the limit of the specification: a subject, and a stream that holds no more than half of it.
    Where the server has less room than that the limit is less.

    Raises:
        StreamMismatch: a stream has a dangerous setting; nothing was changed on it.
        LogUnavailable: JetStream did not answer for ENSURE_SECONDS_MAX.
        ApiRefused: JetStream refuses what is asked for.
    """
    for spec in specs:
        if (nc := nc_by_account.get(spec.account)) is not None:
            await _ensure_stream(nc, spec, replicas)


async def await_streams(nc_by_account: Mapping[str, Client], specs: Sequence[StreamSpec]) -> None:
    """Wait until somebody has made these streams, and check them.

    Raises:
        StreamMissing: one is not there after AWAIT_SECONDS_MAX.
        StreamMismatch: one has a dangerous setting.
        LogUnavailable: JetStream did not answer for ENSURE_SECONDS_MAX.
    """
    for spec in specs:
        found = await await_stream(nc_by_account[spec.account], spec.name)
        for setting, wanted, value in find_dangers(spec, found.config):
            raise StreamMismatch(stream=spec.name, setting=setting, wanted=wanted, found=value)


async def await_stream(nc: Client, stream: str) -> StreamInfo:
    """Wait until somebody has made a stream. Raises as `await_streams`."""
    patience = Patience(AWAIT_SECONDS_MAX)
    while (found := await find_stream(nc, stream, ENSURE_SECONDS_MAX)) is None:
        missing = StreamMissing(stream)
        try:
            await patience.pause(missing)
        except LogUnavailable:
            raise missing from None
    return found


def stream_config(spec: StreamSpec, replicas: int) -> dict[str, object]:
    """The configuration with which a stream is made, in JetStream's words."""
    return {
        "name": spec.name,
        "description": f"owner: {spec.owner}; readers: {', '.join(spec.readers)}",
        "subjects": list(spec.subjects),
        "storage": "file",
        "retention": "limits",
        "num_replicas": replicas,
        "discard": "new" if spec.discard_new else "old",
        "max_age": nanoseconds(spec.max_age_seconds),
        "max_bytes": spec.max_bytes,
        "max_msgs": UNLIMITED,
        "max_msgs_per_subject": spec.subject_messages_max,
        "max_msg_size": spec.max_message_bytes,
        "max_consumers": UNLIMITED,
        "duplicate_window": nanoseconds(spec.duplicate_window_seconds),
        # What is stored leaves a stream by its limits and in no other way.
        "deny_delete": True,
        "deny_purge": True,
        "allow_rollup_hdrs": False,
        # A direct get may be answered by a replica that lags, and nothing here may decide from that.
        "allow_direct": False,
    }


async def refuse_lost_log(nc: Client, log: str, inputs: str) -> None:
    """Check, before streams are made, that no log is begun anew where one was.

    Raises:
        LogMissing: the stream `log` is not there, and the stream `inputs` holds messages.
        LogUnavailable: JetStream did not answer for ENSURE_SECONDS_MAX.
        ApiRefused: JetStream refuses to tell.
    """
    if await find_stream(nc, log, ENSURE_SECONDS_MAX) is None:
        stored = await find_stream(nc, inputs, ENSURE_SECONDS_MAX)
        if stored is not None and stored.state.messages:
            raise LogMissing(log, inputs)


async def ensure_made(
    nc: Client,
    config: Mapping[str, object],
    find_changes: Callable[[Mapping[str, object]], Mapping[str, object]],
) -> None:
    """Make the stream of this configuration; one that exists gets the changes that are found for what it has.

    A cluster that has just started has no leader, and not all of its servers, for some seconds: that is waited for.

    Raises:
        LogUnavailable: JetStream did not answer, or could not do it, for ENSURE_SECONDS_MAX.
        ApiRefused: JetStream refuses what is asked for.
    """
    name = str(config["name"])

    async def ensure() -> None:
        found = await try_find_stream(nc, name)
        if found is None:
            await api_request(nc, f"STREAM.CREATE.{name}", config)
        elif changes := find_changes(found.config):
            await api_request(nc, f"STREAM.UPDATE.{name}", {**found.config, **changes})

    await until_answered(ensure, ENSURE_SECONDS_MAX, passing=_PASSING)


def more_replicas(found: Mapping[str, object], replicas: int) -> dict[str, object]:
    """The change that gives a stream so many replicas, if it has fewer."""
    return {"num_replicas": replicas} if replicas_of(found) < replicas else {}


def replicas_of(found: Mapping[str, object]) -> int:
    """How often the stream of this configuration is kept."""
    return max(_number(found.get("num_replicas")), 1)


async def _ensure_stream(nc: Client, spec: StreamSpec, replicas: int) -> None:
    async def make(limited: StreamSpec) -> None:
        def find_changes(found: Mapping[str, object]) -> dict[str, object]:
            for setting, wanted, value in find_dangers(limited, found):
                raise StreamMismatch(stream=spec.name, setting=setting, wanted=wanted, found=value)
            return find_raises(limited, found, replicas)

        await ensure_made(nc, stream_config(limited, replicas), find_changes)

    await _as_large_as_fits(spec, make)
    if spec.max_bytes > 0:
        await _limit_bytes(nc, spec)


async def _limit_bytes(nc: Client, spec: StreamSpec) -> None:
    """Give a stream that may grow for ever its limit. One that is nearly as large is left: it would lose what it has taken."""
    found = await find_stream(nc, spec.name, ENSURE_SECONDS_MAX)
    if found is None or _number(found.config.get("max_bytes")) > 0:
        return
    held, config = found.state.bytes, found.config

    async def limit(limited: StreamSpec) -> None:
        if 2 * held <= limited.max_bytes:
            await until_answered(
                lambda: api_request(nc, f"STREAM.UPDATE.{spec.name}", {**config, "max_bytes": limited.max_bytes}),
                ENSURE_SECONDS_MAX,
            )

    await _as_large_as_fits(spec, limit)


async def _as_large_as_fits(spec: StreamSpec, act: Callable[[StreamSpec], Awaitable[None]]) -> None:
    """A server sets aside what a limited stream may take, and refuses where it has not so much."""
    while True:
        try:
            await act(spec)
        except ApiRefused as refused:
            if refused.error_code != NO_ROOM_ON_SERVER or spec.max_bytes < 2 * LIMIT_BYTES_MIN:
                raise
            spec = msgspec.structs.replace(spec, max_bytes=spec.max_bytes // 2)
            fields = {"stream": spec.name, "bytes": spec.max_bytes}
            _log.warning("the server has less room than a stream may take, which may take half", extra=fields)
        else:
            return


def find_dangers(spec: StreamSpec, config: Mapping[str, object]) -> Iterator[tuple[str, object, object]]:
    """The settings of an existing stream that could lose or forge messages: name, wanted value, found value."""
    for setting, wanted in _NEVER.items():
        value = config.get(setting) or wanted
        if value != wanted:
            yield setting, wanted, value
    if not spec.append_only:
        return
    for setting, wanted in _APPEND_ONLY.items():
        value = config.get(setting, _ABSENT.get(setting, wanted))
        if value != wanted and not (wanted == UNLIMITED and value == 0):
            yield setting, wanted, value
    if foreign := sorted(set(_subjects(config)) - set(spec.subjects)):
        yield "subjects", list(spec.subjects), foreign


def find_raises(spec: StreamSpec, config: Mapping[str, object], replicas: int) -> dict[str, object]:
    """The settings of an existing stream that can be raised to the specification without harm."""
    wanted = stream_config(spec, replicas)
    changes: dict[str, object] = {}
    for setting in ("max_bytes", "max_msgs", "max_msgs_per_subject", "max_msg_size", "max_age"):
        if _is_tighter(config.get(setting), wanted[setting]):
            changes[setting] = wanted[setting]
    if spec.subject_messages_max > 0 and _number(config.get("max_msgs_per_subject")) <= 0:
        changes["max_msgs_per_subject"] = spec.subject_messages_max
    changes |= more_replicas(config, replicas)
    if _number(config.get("duplicate_window")) < _number(wanted["duplicate_window"]):
        changes["duplicate_window"] = wanted["duplicate_window"]
    for setting in ("deny_delete", "deny_purge"):
        if not config.get(setting):
            changes[setting] = True
    if spec.discard_new and config.get("discard") != "new":
        changes["discard"] = "new"
    if missing := [subject for subject in spec.subjects if subject not in _subjects(config)]:
        changes["subjects"] = [*_subjects(config), *missing]
    return changes


def _is_tighter(found: object, wanted: object) -> bool:
    """Whether a limit is below the wanted one, where none (zero or less) is above all."""
    limit, goal = _number(found), _number(wanted)
    return limit > 0 and (goal <= 0 or limit < goal)


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _subjects(config: Mapping[str, object]) -> list[str]:
    subjects = config.get("subjects")
    return [str(subject) for subject in subjects] if isinstance(subjects, list) else []
