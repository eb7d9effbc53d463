"""Headers that every answer bears, whoever asked and whatever came of it, unless a route has its own word for one."""

from collections.abc import Awaitable, Callable
from typing import Any

App = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application, whatever its framework calls the forms of its messages."""

HEADERS: tuple[tuple[bytes, bytes], ...] = (
    # Answers differ by token, and tell what may be secret: no cache keeps them.
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
)


def with_headers(app: App) -> App:
    """The application, whose every answer bears the headers."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        async def send_on(message: Any) -> None:
            if message["type"] == "http.response.start":
                given: list[tuple[bytes, bytes]] = list(message.get("headers", ()))
                names = {name.lower() for name, _ in given}
                message["headers"] = given + [(name, value) for name, value in HEADERS if name not in names]
            await send(message)

        await app(scope, receive, send_on)

    return answer
