"""What the routes say about themselves at `/docs` beyond their signatures: bodies, problems, and how to log in."""

from dataclasses import dataclass
from typing import Any

import msgspec
from litestar.openapi import OpenAPIConfig, ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import (
    Components,
    OpenAPIMediaType,
    Operation,
    Reference,
    RequestBody,
    Schema,
    SecurityScheme,
)

from taskyard.api.docs_viewer import DOCS_PATH, SwaggerViewer, docs_router
from taskyard.api.replies import Problem, RefusedBatch

PROBLEM_MEDIA_TYPE = "application/problem+json"
_PROBLEM_STATUSES = {
    401: "no valid token",
    403: "the role does not allow it",
    404: "there is no such thing",
    408: "the body did not come in time",
    409: "the id is another task's, or the task's status forbids it",
    413: "the body is too large",
    415: "the body is not JSON, or is compressed",
    422: "the body or a parameter does not fit",
    429: "the pool's limit of waiting tasks is reached, or the caller has used up its share",
    503: "a part that this needs is away",
}
PROBLEM_RESPONSES = {
    status: ResponseSpec(Problem, description=text, media_type=PROBLEM_MEDIA_TYPE, generate_examples=False)
    for status, text in _PROBLEM_STATUSES.items()
}
SUBMIT_RESPONSES = PROBLEM_RESPONSES | {
    status: ResponseSpec(
        RefusedBatch,
        description=f"{_PROBLEM_STATUSES[status]}; also for every task of a batch, or 422 where they differ",
        media_type=PROBLEM_MEDIA_TYPE,
        generate_examples=False,
    )
    for status in (409, 413, 422, 429)
}
READ_PROBLEM_RESPONSES = {status: PROBLEM_RESPONSES[status] for status in (401, 404, 422, 429, 503)} | {
    504: ResponseSpec(
        Problem,
        description="the read model has not reached the position in `after`, or the moment in `at`, in time",
        media_type=PROBLEM_MEDIA_TYPE,
        generate_examples=False,
    )
}


def body_operation(*bodies: type[msgspec.Struct]) -> type[Operation]:
    """The documentation of a route that reads its body by itself, which is one of `bodies`."""
    _, components = msgspec.json.schema_components(bodies, ref_template="#/components/schemas/{name}")
    schemas: list[Reference | Schema] = [_PlainSchema(components[body.__name__]) for body in bodies]
    schema = schemas[0] if len(schemas) == 1 else Schema(one_of=schemas)

    @dataclass
    class BodyOperation(Operation):
        def __post_init__(self) -> None:
            self.request_body = RequestBody(content={"application/json": OpenAPIMediaType(schema=schema)})

    return BodyOperation


def openapi_config(version: str) -> OpenAPIConfig:
    """The configuration of `/docs`."""
    return OpenAPIConfig(
        title="Taskyard",
        version=version,
        path=DOCS_PATH,
        openapi_router=docs_router(),
        render_plugins=[SwaggerViewer(), JsonRenderPlugin(), YamlRenderPlugin()],
        description="A durable control plane for infrastructure tasks on one append-only event log.",
        components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"bearer": []}],
    )


class _PlainSchema(Schema):
    """A schema that msgspec has written already."""

    def __init__(self, plain: dict[str, Any]) -> None:
        super().__init__()
        self._plain = plain

    def to_schema(self) -> dict[str, Any]:
        """The schema as it is."""
        return self._plain
