"""A whole stream at once, for whoever judges what is stored rather than follows what comes."""

from nats.aio.client import Client

from taskyard.eventlog.answers import state_of
from taskyard.eventlog.copying import read_messages
from taskyard.eventlog.log import StreamMessage


async def read_whole(nc: Client, stream: str) -> list[StreamMessage]:
    """Every message that the stream holds now, in order, at the time that the stream gave it.

    Raises:
        EventLogError: it could not be read.
    """
    state = await state_of(nc, stream)
    if not state.messages:
        return []
    reading = read_messages(nc, stream, state.first_seq, state.last_seq, original_times=False)
    return [message async for batch in reading for message in batch]
