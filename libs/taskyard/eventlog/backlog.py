"""What a follower has read and its reader has not taken yet: in order, in batches, and bounded in bytes."""

import asyncio
from collections import deque

from taskyard.eventlog.log import StreamMessage

BATCH_MESSAGES_MAX = 1_024
BATCH_BYTES_MAX = 1 << 20
"""A batch ends with the message that reaches one of these: decoding it must not hold the event loop for long."""
EASY_BYTES = 4 << 20
"""From here on the server's flow control is left unanswered. That alone is no bound: by its answers a fast reader has
earned a window of up to 32 MiB, and all of that may still come when it becomes slow."""
BACKLOG_BYTES_MAX = 12 << 20
"""From here on nothing more is read; what is on its way is dropped, and read again when the reader has caught up."""
MESSAGE_OVERHEAD_BYTES = 640
"""What a message takes in memory beside its data, as measured, so that many small ones count as well."""


class Backlog:
    """The messages between a stream and its reader. `arrived` is set when there is something to take."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self._messages: deque[StreamMessage] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def is_easy(self) -> bool:
        """Whether the reader keeps up: then the server may send on."""
        return self._bytes < EASY_BYTES

    @property
    def is_full(self) -> bool:
        """Whether nothing more may be read for now."""
        return self._bytes >= BACKLOG_BYTES_MAX

    def add(self, message: StreamMessage) -> None:
        """Add what was read last. The hot path."""
        self._messages.append(message)
        self._bytes += len(message.data) + MESSAGE_OVERHEAD_BYTES
        if not self.arrived.is_set():
            self.arrived.set()

    def take_batch(self) -> list[StreamMessage]:
        """The oldest messages, taken off: as many as fit a batch."""
        messages, batch, size = self._messages, list[StreamMessage](), 0
        while messages and size < BATCH_BYTES_MAX and len(batch) < BATCH_MESSAGES_MAX:
            message = messages.popleft()
            size += len(message.data)
            batch.append(message)
        self._bytes -= size + len(batch) * MESSAGE_OVERHEAD_BYTES
        return batch

    def clear(self) -> None:
        """Forget everything."""
        self._messages.clear()
        self._bytes = 0
