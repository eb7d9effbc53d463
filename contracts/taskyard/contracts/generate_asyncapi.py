"""The AsyncAPI document: who says what to whom over NATS."""

from collections.abc import Iterable, Iterator
from typing import Any, cast

from msgspec import Struct

from taskyard.contracts import agent_protocol, subjects
from taskyard.contracts.events import OWNERS, Event
from taskyard.contracts.generate_schema import GROUPS, MARK, components
from taskyard.contracts.verbs import VERBS

ASYNCAPI = "3.0.0"
ASYNCAPI_VERSION = "1"


class Channel(Struct, frozen=True, kw_only=True):
    """One address of messages. `source` is the row of the table of subjects that tells its owner and its readers.

    `messages` names what is sent there; `reply` what is answered to it, if it is a request.
    """

    name: str
    address: str
    source: subjects.StreamSpec | subjects.SubjectRow
    messages: tuple[str, ...]
    reply: str | None = None


def channels() -> tuple[Channel, ...]:
    """All addresses on which anything is sent, parameters in braces."""
    log, stored, reports, output, audit = subjects.streams("{partition}")
    request, answer, agent, heartbeat = subjects.CORE_SUBJECTS
    place = ("{principal}", "{pool}")
    return (
        *(
            Channel(
                name=f"command.{verb}",
                address=subjects.command_subject(*place, verb),
                source=stored,
                messages=bodies_of(verb),
            )
            for verb in VERBS
        ),
        *(
            Channel(
                name=f"request.{verb}",
                address=subjects.request_subject(*place, verb),
                source=request,
                messages=bodies_of(verb),
                reply="Reply",
            )
            for verb in VERBS
        ),
        *(
            Channel(
                name=f"log.{writer}",
                address=subjects.log_subject("{partition}", writer),
                source=log,
                messages=(_commit_of(writer),),
            )
            for writer in OWNERS
        ),
        Channel(name="answer", address=subjects.answer_subject("{instance}"), source=answer, messages=("AnswerBatch",)),
        Channel(
            name="agent.assign",
            address=subjects.assign_subject("{agent}"),
            source=agent,
            messages=("AssignRequest",),
            reply="AssignReply",
        ),
        Channel(
            name="agent.cancel",
            address=subjects.cancel_subject("{agent}"),
            source=agent,
            messages=("CancelRequest",),
            reply="AssignReply",
        ),
        Channel(
            name="heartbeat", address=subjects.heartbeat_subject("{agent}"), source=heartbeat, messages=("Heartbeat",)
        ),
        Channel(name="report", address=subjects.report_subject("{agent}"), source=reports, messages=("ReportBatch",)),
        Channel(
            name="output",
            address=subjects.output_subject("{agent}", "{task}"),
            source=output,
            messages=("OutputChunk",),
        ),
        Channel(name="audit", address=subjects.audit_subject("{door}"), source=audit, messages=("AccessDenied",)),
    )


def asyncapi() -> dict[str, Any]:
    """The AsyncAPI document: channels, who sends and who receives there, messages and their schemas."""
    types = [struct for group in GROUPS.values() for struct in group]
    _, schemas = components(types, "#/components/schemas/{name}")
    all_channels = channels()
    return {
        "asyncapi": ASYNCAPI,
        "x-generated": MARK,
        "info": {
            "title": "Taskyard",
            "version": ASYNCAPI_VERSION,
            "description": "What programs say to one another over NATS. Messages are JSON unless they say otherwise.",
        },
        "defaultContentType": "application/json",
        "channels": {channel.name: _channel(channel) for channel in all_channels},
        "operations": {name: body for channel in all_channels for name, body in _operations(channel)},
        "components": {
            "messages": _messages(all_channels),
            "schemas": {
                **_with_plain_discriminators(schemas),
                **{_commit_of(writer): _commit_schema(events) for writer, events in OWNERS.items()},
                "Reply": _REPLY_SCHEMA,
            },
        },
    }


_REPLY_SCHEMA = {
    "type": "object",
    "description": "What HTTP would answer, with its status as `code`.",
    "properties": {"code": {"type": "integer"}},
    "required": ["code"],
}
_CHUNK_HEADERS = {
    "type": "object",
    "properties": {
        agent_protocol.HEADER_ATTEMPT: {"type": "string", "description": "number of the attempt"},
        agent_protocol.HEADER_STREAM: {"type": "string", "enum": ["stdout", "stderr"]},
        agent_protocol.HEADER_OFFSET: {"type": "string", "description": "byte offset in that stream of that attempt"},
    },
    "required": [agent_protocol.HEADER_ATTEMPT, agent_protocol.HEADER_STREAM, agent_protocol.HEADER_OFFSET],
}


def _channel(channel: Channel) -> dict[str, Any]:
    source = channel.source
    body: dict[str, Any] = {
        "address": channel.address,
        "messages": {name: _to_message(name) for name in channel.messages},
    }
    parameters = [part[1:-1] for part in channel.address.split(".") if part.startswith("{")]
    if parameters:
        body["parameters"] = {parameter: {"description": _PARAMETERS[parameter]} for parameter in parameters}
    if channel.reply:
        body["messages"][channel.reply] = _to_message(channel.reply)
    body["x-account"] = source.account
    if isinstance(source, subjects.StreamSpec):
        body["x-stream"] = source.name
    else:
        body["description"] = source.purpose
    return body


def _operations(channel: Channel) -> Iterator[tuple[str, dict[str, Any]]]:
    """Who does what on a channel. A channel of the log has one sender: the writer that it is named after."""
    source = channel.source
    owners = [channel.name.partition(".")[2]] if channel.name.startswith("log.") else _names(source.owner)
    readers = _names(source.readers) if isinstance(source.readers, str) else list(source.readers)
    at = f"#/channels/{channel.name}"
    messages = [{"$ref": f"{at}/messages/{name}"} for name in channel.messages]
    for action, services in (("send", owners), ("receive", readers)):
        for service in services:
            body: dict[str, Any] = {"action": action, "channel": {"$ref": at}, "messages": messages}
            if channel.reply:
                body["reply"] = {"messages": [{"$ref": f"{at}/messages/{channel.reply}"}]}
            body["x-service"] = service
            yield f"{service}.{action}.{channel.name}".replace(" ", "_"), body


def _messages(channels: Iterable[Channel]) -> dict[str, Any]:
    sent = {name for channel in channels for name in (*channel.messages, channel.reply) if name}
    messages: dict[str, Any] = {
        name: {"name": name, "payload": {"$ref": f"#/components/schemas/{name}"}}
        for name in sorted(sent - {"OutputChunk"})
    }
    chunk = {"name": "OutputChunk", "contentType": "application/octet-stream", "headers": _CHUNK_HEADERS}
    return {**messages, "OutputChunk": {**chunk, "payload": {"type": "string", "contentEncoding": "binary"}}}


def _with_plain_discriminators(schema: Any) -> Any:
    """AsyncAPI names the discriminating field alone, where OpenAPI, which msgspec follows, has an object."""
    if isinstance(schema, dict):
        fields = cast("dict[str, Any]", schema)
        return {
            name: value["propertyName"] if name == "discriminator" else _with_plain_discriminators(value)
            for name, value in fields.items()
        }
    if isinstance(schema, list):
        return [_with_plain_discriminators(item) for item in cast("list[Any]", schema)]
    return schema


def _commit_schema(events: Iterable[type[Event]]) -> dict[str, Any]:
    """The form of a commit: one message of the log, whose events one writer decided together."""
    return {
        "type": "object",
        "description": "Events that one writer decided together. `previous` is the hash of its commit before.",
        "properties": {
            "writer": {"type": "string"},
            "instance": {"type": "string"},
            "epoch": {"type": "integer"},
            "at": {
                "type": "integer",
                "description": "the writer's own clock, microseconds since 1970, for information",
            },
            "previous": {"type": "string"},
            "cursors": {"type": "object", "additionalProperties": {"type": "integer"}},
            "events": {
                "type": "array",
                "items": {"oneOf": [{"$ref": f"#/components/schemas/{event.__name__}"} for event in events]},
            },
        },
        "required": ["writer", "instance", "epoch", "at"],
    }


_PARAMETERS = {
    "door": "`http` or `nats`",
    "principal": "who asks: the name that the connection was made with",
    "pool": "the pool of tasks and workers",
    "partition": "the partition that holds the pool",
    "instance": "one running api service",
    "agent": "the worker's name",
    "task": "the task's id",
}


def bodies_of(verb: str) -> tuple[str, ...]:
    """The names of the types that a verb's body may have."""
    return tuple(body.__name__ for body in VERBS[verb].bodies)


def _commit_of(writer: str) -> str:
    return "".join(part.capitalize() for part in writer.split("_")) + "Commit"


def _to_message(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/messages/{name}"}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]
