"""Makes the streams of a deployment, and refuses one that exists with a setting that could lose or forge messages."""

from collections.abc import Iterator, Mapping, Sequence

from nats.aio.client import Client

from taskyard.contracts.subjects import StreamSpec
from taskyard.eventlog.append import Patience
from taskyard.eventlog.errors import ApiRefused, StreamMismatch, Unanswered
from taskyard.eventlog.jetstream_api import STREAM_NOT_FOUND, StreamInfo, api_request, nanoseconds, stream_info

ENSURE_SECONDS_MAX = 30.0
"""How long one stream is tried: a cluster that has just started elects its leaders first."""
STREAM_NAME_IN_USE = 10058
UNLIMITED = -1

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
_ABSENT: Mapping[str, object] = {"deny_delete": False, "deny_purge": False, "max_age": 0, "discard": "old"}


async def ensure_streams(
    nc_by_account: Mapping[str, Client], specs: Sequence[StreamSpec], *, replicas: int = 1
) -> None:
    """Make every stream of `specs` whose account is given, or check the one that exists.

    Limits that are tighter than the specification are raised, replicas and subjects added; nothing is ever lowered.

    Raises:
        StreamMismatch: a stream has a dangerous setting; nothing was changed on it.
        LogUnavailable: JetStream did not answer for ENSURE_SECONDS_MAX.
        ApiRefused: JetStream refuses what is asked for.
    """
    for spec in specs:
        if (nc := nc_by_account.get(spec.account)) is not None:
            await _ensure_stream(nc, spec, replicas)


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
        "max_msgs_per_subject": UNLIMITED,
        "max_msg_size": spec.max_message_bytes,
        "max_consumers": UNLIMITED,
        "duplicate_window": nanoseconds(spec.duplicate_window_seconds),
        "deny_delete": spec.append_only,
        "deny_purge": spec.append_only,
        "allow_rollup_hdrs": False,
        # A direct get may be answered by a replica that lags, and nothing here may decide from that.
        "allow_direct": False,
    }


async def _ensure_stream(nc: Client, spec: StreamSpec, replicas: int) -> None:
    patience = Patience(ENSURE_SECONDS_MAX)
    while True:
        try:
            found = await _find_stream(nc, spec.name)
            if found is None:
                await _create_stream(nc, spec, replicas)
                return
            break
        except Unanswered as error:
            await patience.pause(error)
    for setting, wanted, value in find_dangers(spec, found.config):
        raise StreamMismatch(stream=spec.name, setting=setting, wanted=wanted, found=value)
    changes = find_raises(spec, found.config, replicas)
    while changes:
        try:
            await api_request(nc, f"STREAM.UPDATE.{spec.name}", {**found.config, **changes})
            return
        except Unanswered as error:
            await patience.pause(error)


async def _find_stream(nc: Client, name: str) -> StreamInfo | None:
    try:
        return await stream_info(nc, name)
    except ApiRefused as refused:
        if refused.error_code == STREAM_NOT_FOUND:
            return None
        raise Unanswered(str(refused)) from refused


async def _create_stream(nc: Client, spec: StreamSpec, replicas: int) -> None:
    try:
        await api_request(nc, f"STREAM.CREATE.{spec.name}", stream_config(spec, replicas))
    except ApiRefused as refused:
        if refused.error_code == STREAM_NAME_IN_USE:
            raise Unanswered("another instance made the stream at the same time") from refused
        raise


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
    for setting in ("num_replicas", "duplicate_window"):
        if _number(config.get(setting)) < _number(wanted[setting]):
            changes[setting] = wanted[setting]
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
