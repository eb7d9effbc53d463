"""Whether the server refuses a request that says what it does not know (`jetstream { strict: true }`).

A server that is not strict does such a request without what it did not understand: a stream made by it could lack the very
setting that protects it.
"""

from nats.aio.client import Client

from taskyard.eventlog.answers import until_answered
from taskyard.eventlog.errors import ApiRefused
from taskyard.eventlog.jetstream_api import api_request

INVALID_JSON = 10025
ASK_SECONDS_MAX = 30.0


async def is_strict(nc: Client, stream: str) -> bool:
    """Whether a question about this stream that says something unknown is refused.

    Raises:
        LogUnavailable: JetStream gave no answer within the limit.
        ApiRefused: it refuses for another reason.
    """
    question = {"taskyard_says_what_nobody_knows": True}
    try:
        await until_answered(lambda: api_request(nc, f"STREAM.INFO.{stream}", question), ASK_SECONDS_MAX)
    except ApiRefused as refused:
        if refused.error_code == INVALID_JSON:
            return True
        raise
    return False
