"""A story's log on a real nats-server."""

from typing import Any

from taskyard.eventlog.commit import Commit
from taskyard.service import linked
from taskyard.settings import Settings


async def append(story: Any, settings: Settings, after: int = 0) -> None:
    """Append the story, from behind a sequence on."""
    last: dict[str, int] = {}
    async with linked("test", settings) as links:
        while batch := story.stream.after(after):
            for message in batch:
                commit: Commit[Any] = story.codec.decode(message.data)
                found = await links.log.last(commit.writer) if commit.writer not in last else None
                expected = last.get(commit.writer, found.sequence if found else 0)
                last[commit.writer] = await links.log.append(message.data, writer=commit.writer, expected=expected)
            after = batch[-1].sequence
