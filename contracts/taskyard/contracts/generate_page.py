"""A page of tables for people: streams, subjects, commands, kinds, and the events of each writer."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from taskyard.contracts import subjects
from taskyard.contracts.events import OWNERS
from taskyard.contracts.generate_asyncapi import bodies_of
from taskyard.contracts.generate_schema import MARK
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.verbs import VERBS


def page() -> str:
    """The page of tables: streams, subjects, verbs, and the events of each writer."""
    streams = [
        (f"`{s.name}`", f"`{', '.join(s.subjects)}`", s.account, s.owner, ", ".join(s.readers), _kept(s))
        for s in subjects.streams("<partition>")
    ]
    core = [(f"`{row.subject}`", row.account, row.owner, row.readers, row.purpose) for row in subjects.CORE_SUBJECTS]
    verbs = [(f"`{verb}`", ", ".join(f"`{body}`" for body in bodies_of(verb))) for verb in VERBS]
    events = [(f"`{e.__name__}`", writer, _summary(e)) for writer, owned in OWNERS.items() for e in owned]
    kinds = [
        (
            f"`{k.name}`",
            k.summary,
            f"{k.timeout_seconds:g}",
            str(k.max_attempts),
            k.lock.value,
            _yes(k.approval),
            k.on_lost.value,
            _yes(k.queue_required),
        )
        for k in KINDS.values()
    ]
    sections = (
        "# Subjects, streams and events",
        f"<!-- {MARK} -->",
        "## Streams",
        _table(("stream", "subjects", "account", "owner", "readers", "kept"), streams),
        "## Subjects that are not stored",
        _table(("subject", "account", "owner", "readers", "what"), core),
        "## Commands",
        "The body of each verb on `taskyard.command.<principal>.<pool>.<verb>`; schemas are in `schema/commands.json`.",
        _table(("verb", "body"), verbs),
        "## Kinds of tasks",
        _table(
            ("kind", "what it does", "timeout (s)", "attempts", "lock", "approval", "worker lost", "queue required"),
            kinds,
        ),
        "## Events and their writers",
        "One writer appends an event; all fold it. Schemas are in `schema/events.json`.",
        _table(("event", "writer", "what"), events),
    )
    return "\n\n".join(sections) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _kept(stream: subjects.StreamSpec) -> str:
    parts = [f"{stream.max_age_seconds // subjects.DAY_SECONDS} days" if stream.max_age_seconds else "for ever"]
    if stream.max_bytes > 0:
        parts.append(f"{stream.max_bytes // subjects.GIBIBYTE} GiB at most")
    if stream.subject_messages_max > 0:
        parts.append(f"{stream.subject_messages_max:,} messages of a subject at most")
    if stream.append_only:
        parts.append("no delete, no purge")
    return ", ".join(parts)


def _summary(struct: type[Struct]) -> str:
    """The first sentence of the docstring in one line."""
    text = " ".join((struct.__doc__ or "").split("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".") + "."


def _yes(fact: object) -> str:
    return "yes" if fact else ""
