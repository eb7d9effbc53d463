"""What a run leaves for the judge: everything that was stored, ran, was told, is remembered, and can be read."""

from collections import defaultdict
from collections.abc import Iterator

import msgspec

from taskyard.agent.slots import Remembered
from taskyard.contracts.subjects import COMMANDS, REPORTS, principal_of
from taskyard.eventlog.log import StreamMessage
from taskyard.judge.evidence import Asked, Evidence, Logged, Noted, Reported, Shown, Told
from taskyard.simulation.agent import FENCED_SECONDS, Agent
from taskyard.simulation.streams import Servers, read_whole
from taskyard.simulation.tables import Tables
from taskyard.simulation.yard import Yard
from taskyard.state_projector.rows import HISTORY_COLUMNS, TASK_COLUMNS

_decode_remembered = msgspec.json.Decoder(Remembered).decode


def gather(yard: Yard, log: list[Logged], tables: Tables | None) -> Evidence:
    """All evidence of a run. `tables` are those of the read model, None if nobody could write them."""
    inputs, witness = yard.servers.inputs, yard.witness
    asked = [
        Asked(
            sequence=each.message.sequence,
            verb=last_token(each.message),
            data=each.message.data,
            principal=principal_of(each.message.subject),
            stream=each.stream,
            is_gone=each.is_gone,
        )
        for each in inputs[COMMANDS]
    ]
    reported = [
        Reported(
            sequence=each.message.sequence, worker=last_token(each.message), data=each.message.data, stream=each.stream
        )
        for each in inputs[REPORTS]
    ]
    return Evidence(
        log=log,
        asked=asked,
        reported=reported,
        told=list(_told(yard)),
        ran=witness.runs,
        lied=witness.lied,
        noted=[
            note for agent in yard.agents for note in _noted(agent) if (note.task, note.attempt) not in witness.lied
        ],
        shown=None if tables is None else _shown(tables),
        knows={name: version for instance in yard.instances for name, version in instance.knew.items()},
        troubles=witness.all_troubles() if yard.is_heard else None,
        cuts=witness.cuts,
        fenced_seconds=FENCED_SECONDS,
        no_room=witness.no_room,
    )


def read_log(servers: Servers) -> list[Logged]:
    """The log as it is stored, and when that really was."""
    return [
        Logged(
            sequence=message.sequence,
            at=message.at,
            seconds=seconds,
            writer=last_token(message),
            data=message.data,
        )
        for message, seconds in zip(read_whole(servers.log), servers.stored_at, strict=True)
    ]


def last_token(message: StreamMessage) -> str:
    """What a subject ends with: a writer, a verb, a worker."""
    return message.subject.rpartition(".")[2]


def _told(yard: Yard) -> Iterator[Told]:
    for command, heard in yard.clients.answers.items():
        for answers in heard:
            for answer in answers:
                yield Told(command=command, code=answer.code, task=answer.id, position=answer.position)


def _noted(agent: Agent) -> Iterator[Noted]:
    """What is on the disk of an agent, whether it runs or not."""
    for slot, data in agent.disk.slots.items():
        one = _decode_remembered(data)
        yield Noted(
            worker=agent.name,
            slot=slot,
            position=one.position,
            task=one.task,
            attempt=one.attempt,
            outcome=one.outcome,
            end=None if one.end is None else type(one.end).__name__,
        )


def _shown(tables: Tables) -> list[Shown]:
    task, type_ = HISTORY_COLUMNS.index("task"), HISTORY_COLUMNS.index("type")
    types: defaultdict[str, list[str]] = defaultdict(list)
    for row in tables.history:
        if not row[type_].startswith("Worker"):
            types[row[task]].append(row[type_])
    status, attempt, worker, slot = (TASK_COLUMNS.index(name) for name in ("status", "attempt", "worker", "slot"))
    return [
        Shown(id=id, status=row[status], attempt=row[attempt], worker=row[worker], slot=row[slot], types=types[id])
        for id, row in tables.tasks.items()
    ]
