"""What stands in the trace of denials; the stream tells when each was stored."""

from msgspec import Struct


class AccessDenied(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A door denied access: `status` is 401 (no valid credentials) or 403 (no right to it).

    `by` is the principal, where one was recognised, `address` where the request came from, `what` the route or verb, never
    more of the request. So many others were left out since the one before at the same door, in the same instance.
    """

    door: str
    status: int
    what: str
    reason: str
    by: str | None = None
    address: str | None = None
    left_out: int = 0
