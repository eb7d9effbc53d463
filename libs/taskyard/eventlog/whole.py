"""A whole stream at once, for whoever judges what is stored rather than follows what comes."""

from nats.aio.client import Client

from taskyard.eventlog.follower import StreamFollower
from taskyard.eventlog.jetstream_api import stream_info
from taskyard.eventlog.log import StreamMessage


async def read_whole(nc: Client, stream: str) -> list[StreamMessage]:
    """Every message that the stream holds now, in order.

    Raises:
        EventLogError: it could not be read.
    """
    head = (await stream_info(nc, stream)).state.last_seq
    messages: list[StreamMessage] = []
    if head == 0:
        return messages
    async with StreamFollower(nc, stream, after=0) as follower:
        while not messages or messages[-1].sequence < head:
            messages += await follower.next_batch()
    return [message for message in messages if message.sequence <= head]
