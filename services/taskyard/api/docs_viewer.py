"""The viewer at `/docs`: Swagger UI from this installation's own files, since a control plane may have no internet."""

from functools import cache
from importlib.resources import files
from typing import Any

from litestar import Request, Response, Router, get
from litestar.datastructures import ResponseHeader
from litestar.exceptions import NotFoundException
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.params import FromPath

DOCS_PATH = "/docs"

_ASSETS_PATH = "/assets"
_SCRIPT = "swagger_bundle.js"
_PRESET = "swagger_preset.js"
_STYLE = "swagger_style.css"
_START = "start.js"
_MEDIA_TYPES = {_SCRIPT: "text/javascript", _PRESET: "text/javascript", _STYLE: "text/css", _START: "text/javascript"}
_CACHED = {"Cache-Control": "max-age=86400"}
# The page runs no script but these files: what somebody writes into a name or a description is text there. The viewer
# styles its elements one by one, and draws its icons from data.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:;"
    " connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_PAGE = f"""<!DOCTYPE html>
<html lang="en">
  <head>
    <title>Taskyard</title>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <link rel="icon" href="data:,">
    <link rel="stylesheet" href="{DOCS_PATH}{_ASSETS_PATH}/{_STYLE}">
    <script src="{DOCS_PATH}{_ASSETS_PATH}/{_SCRIPT}"></script>
    <script src="{DOCS_PATH}{_ASSETS_PATH}/{_PRESET}"></script>
    <script src="{DOCS_PATH}{_ASSETS_PATH}/{_START}" defer></script>
  </head>
  <body style="margin: 0"><div id="viewer"></div></body>
</html>
"""
_START_SCRIPT = f"""SwaggerUIBundle({{
  url: "{DOCS_PATH}/openapi.json",
  dom_id: "#viewer",
  deepLinking: true,
  showExtensions: true,
  showCommonExtensions: true,
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIBundle.SwaggerUIStandalonePreset],
}});
"""


def docs_router() -> Router:
    """Where the page and the documents are served: each may load what the page needs, and nothing else."""
    policy = ResponseHeader(name="Content-Security-Policy", value=_POLICY)
    return Router(DOCS_PATH, route_handlers=[], include_in_schema=False, response_headers=[policy])


class SwaggerViewer(SwaggerRenderPlugin):
    """The page of the viewer, and the files that it loads."""

    def __init__(self) -> None:
        super().__init__(path="/")

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The page; it fetches the document by itself."""
        return _PAGE.encode()

    def receive_router(self, router: Router) -> None:
        """Serve the viewer's files beside its page."""
        router.register(_asset)


@get(f"{_ASSETS_PATH}/{{name:str}}", include_in_schema=False, security=[])
async def _asset(name: FromPath[str]) -> Response[bytes]:
    if name not in _MEDIA_TYPES:
        raise NotFoundException
    return Response(_read(name), media_type=_MEDIA_TYPES[name], headers=_CACHED)


@cache
def _read(name: str) -> bytes:
    return _START_SCRIPT.encode() if name == _START else files("offapi").joinpath(name).read_bytes()
