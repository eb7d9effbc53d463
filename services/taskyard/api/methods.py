"""What HTTP asks of every server and the framework leaves out: HEAD, and an `Allow` that names all methods."""

from litestar import Litestar
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Message, Receive, Scope, Send

ALLOW = b"allow"


def methods_of(app: Litestar) -> dict[str, frozenset[str]]:
    """The methods that each address takes, by its template."""
    routes = [route for route in app.routes if isinstance(route, HTTPRoute)]
    return {route.path_format: frozenset(str(method) for method in route.methods) for route in routes}


def with_every_method(app: ASGIApp, methods: dict[str, frozenset[str]]) -> ASGIApp:
    """Answer HEAD as GET without the body, and put into each `Allow` what the address really takes."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        is_head = scope["method"] == "HEAD"
        inner = {**scope, "method": "GET"} if is_head else scope

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                _complete_allow(message, methods.get(str(inner.get("path_template")), frozenset()))
                await send(message)
                if is_head:
                    # The server then says that the client has gone, which ends a stream that would go on for ever.
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
            elif not is_head:
                await send(message)

        await app(inner, receive, send_on)  # pyright: ignore[reportArgumentType]

    return answer


def _complete_allow(message: Message, methods: frozenset[str]) -> None:
    assert message["type"] == "http.response.start"
    headers: list[tuple[bytes, bytes]] = []
    for name, value in message["headers"]:
        if name.lower() == ALLOW:
            named = methods | {word.strip() for word in value.decode().split(",")}
            named |= {"HEAD"} if "GET" in named else set()
            headers.append((name, ", ".join(sorted(named)).encode()))
        else:
            headers.append((name, value))
    message["headers"] = headers
