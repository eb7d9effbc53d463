"""The viewer at `/docs`: Swagger UI from this installation's own files, since a control plane may have no internet."""

from functools import cache
from importlib.resources import files

from litestar import Response, Router, get
from litestar.exceptions import NotFoundException
from litestar.openapi.plugins import SwaggerRenderPlugin
from litestar.params import FromPath

DOCS_PATH = "/docs"

_ASSETS_PATH = "/assets"
_SCRIPT = "swagger_bundle.js"
_PRESET = "swagger_preset.js"
_STYLE = "swagger_style.css"
_MEDIA_TYPES = {_SCRIPT: "text/javascript", _PRESET: "text/javascript", _STYLE: "text/css"}
_CACHED = {"Cache-Control": "max-age=86400"}
_NO_ICON = '<link rel="icon" href="data:,">'


class SwaggerViewer(SwaggerRenderPlugin):
    """The page of the viewer, and the files that it loads."""

    def __init__(self) -> None:
        super().__init__(
            path="/",
            js_url=f"{DOCS_PATH}{_ASSETS_PATH}/{_SCRIPT}",
            standalone_preset_js_url=f"{DOCS_PATH}{_ASSETS_PATH}/{_PRESET}",
            css_url=f"{DOCS_PATH}{_ASSETS_PATH}/{_STYLE}",
            favicon=_NO_ICON,
        )

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
    return files("offapi").joinpath(name).read_bytes()
