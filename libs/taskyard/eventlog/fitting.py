"""What fits into one message. A server that is sent a longer one closes the connection of who sent it, for good.

What a stranger sends fits, or it would not be here; with our own headers and subject it may be longer.
"""

from nats.aio.client import Client

HEADERS_BYTES_MAX = 1_024
"""More than all headers are together that we give a message: its id, and a trace context."""
SUBJECT_BYTES_MAX = 1_024
"""A server reads no line of more than 4 KiB, on which are the subject, the one for the answer, and the sizes."""


def fits(client: Client, subject: str, data: bytes) -> bool:
    """Whether this may be sent on, with headers of ours."""
    return len(data) + HEADERS_BYTES_MAX <= client.max_payload and len(subject.encode()) <= SUBJECT_BYTES_MAX
