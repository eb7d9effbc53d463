"""Who bears which token."""

import hmac
from collections.abc import Sequence
from hashlib import sha256

from taskyard.settings import Principal

_SCHEME = "bearer"


def token_in(authorization: str | None) -> str | None:
    """The token of an `Authorization` header, None where there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == _SCHEME else None


def bearer_of(principals: Sequence[Principal], token: str) -> Principal | None:
    """The principal whose token it is."""
    digest = sha256(token.encode(errors="replace")).hexdigest().encode()
    found: Principal | None = None
    # All are compared, so that the time tells nothing about which came close.
    for principal in principals:
        if hmac.compare_digest(principal.token_sha256.lower().encode(), digest):
            found = principal
    return found
