"""Talks to agents: one request per agent and batch; what comes back becomes an observation.

Silence becomes nothing: the machine sends again by itself.
"""

from collections.abc import Callable

import msgspec
import structlog
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError

from taskyard.contracts.agent_protocol import AssignReply, AssignRequest, CancelRequest
from taskyard.contracts.subjects import assign_subject, cancel_subject
from taskyard.contracts.validation import UNREADABLE
from taskyard.dispatcher.decide import Answered, Input, NobodyListened
from taskyard.dispatcher.delivery import SendAssignments, SendCancels

ANSWER_SECONDS_MAX = 1.5

_decode = msgspec.json.Decoder(AssignReply).decode
_logger = structlog.get_logger(service="dispatcher")


class Requests:
    """Sends what the machine wants sent, and posts what it learns."""

    def __init__(self, fleet: Client, post: Callable[[Input], None]) -> None:
        self._fleet = fleet
        self._post = post

    async def send(self, effect: SendAssignments | SendCancels) -> None:
        """Send one request and wait for its answer, for a while."""
        subject, body = _request(effect)
        try:
            reply = await self._fleet.request(subject, msgspec.json.encode(body), timeout=ANSWER_SECONDS_MAX)
            answers = _decode(reply.data).answers
        except NoRespondersError:
            self._post(NobodyListened(request=effect))
        except (NatsError, OSError, *UNREADABLE) as error:
            _logger.info("an agent did not answer", agent=effect.agent, reason=type(error).__name__)
        else:
            self._post(Answered(request=effect, answers=answers))


def _request(effect: SendAssignments | SendCancels) -> tuple[str, AssignRequest | CancelRequest]:
    if isinstance(effect, SendCancels):
        return cancel_subject(effect.agent), CancelRequest(
            incarnation=effect.incarnation, cancels=effect.cancels, retire=effect.retire
        )
    request = AssignRequest(incarnation=effect.incarnation, assignments=effect.assignments)
    return assign_subject(effect.agent), request
