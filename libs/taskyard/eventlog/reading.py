"""Commits from messages: the same for the real log and for its twin."""

from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Generic, Self, TypeVar

from taskyard.eventlog.commit import CommitCodec, StoredCommit
from taskyard.eventlog.errors import LogVersionUnknown
from taskyard.eventlog.log import Batches, StreamMessage
from taskyard.eventlog.versions import require_known

E = TypeVar("E")


class CommitFollower(Generic[E]):
    """Batches of commits, decoded from the batches of a stream's follower. The writer is the subject's last token."""

    def __init__(self, messages: Batches[StreamMessage], codec: CommitCodec[E]) -> None:
        self._messages = messages
        self._codec = codec
        self._behind: list[StreamMessage] = []

    async def __aenter__(self) -> Self:
        await self._messages.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._messages.__aexit__(kind, error, trace)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[StoredCommit[E]]:
        """The next batch. Raises also `LogVersionUnknown`, once all before that commit was handed out."""
        messages = self._behind or await self._messages.__anext__()
        commits: list[StoredCommit[E]] = []
        for index, message in enumerate(messages):
            stored = decode_message(self._codec, message)
            try:
                require_known(stored)
            except LogVersionUnknown:
                if not commits:
                    raise
                self._behind = messages[index:]
                break
            commits.append(stored)
        return commits


async def read_commits(follower: CommitFollower[E], last: int) -> AsyncGenerator[StoredCommit[E], None]:
    """The commits of a follower up to the sequence `last`, which the log must have reached."""
    async with follower as batches:
        async for batch in batches:
            for stored in batch:
                if stored.sequence <= last:
                    yield stored
            if batch[-1].sequence >= last:
                return


def decode_message(codec: CommitCodec[E], message: StreamMessage) -> StoredCommit[E]:
    """The commit that a message of the log holds.

    Raises:
        CommitUnreadable: the message holds no commit, or one in another writer's name than its subject.
    """
    writer = message.subject.rpartition(".")[2]
    return codec.decode_stored(sequence=message.sequence, at=message.at, data=message.data, writer=writer)
