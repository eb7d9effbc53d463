"""The read model as the projector fills it: its tests' log and PostgreSQL, read through the API's queries."""

import importlib.util
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from taskyard.api.postgres_read_model import PostgresReadModel


def _load_neighbour() -> Any:
    path = Path(__file__).parents[1] / "state_projector" / "conftest.py"
    spec = importlib.util.spec_from_file_location("taskyard_test_projecting", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_projecting = _load_neighbour()
story, server, dsn, run, project, start_projector, wait = (
    _projecting.story,
    _projecting.server,
    _projecting.dsn,
    _projecting.run,
    _projecting.project,
    _projecting.start_projector,
    _projecting.wait,
)


@asynccontextmanager
async def reading(dsn: str, story: Any) -> AsyncIterator[PostgresReadModel]:
    """The read model at the time of the story."""
    async with PostgresReadModel.connect(dsn, lambda: story.now) as model:
        yield model


@pytest.fixture
def read(
    story: Any, dsn: str, run: Callable[[Coroutine[Any, Any, Any]], Any], project: Any
) -> Callable[[Callable[[PostgresReadModel], Coroutine[Any, Any, Any]]], Any]:
    """Projects what the story tells, then asks the read model."""

    def ask(question: Callable[[PostgresReadModel], Coroutine[Any, Any, Any]]) -> Any:
        async def scenario() -> Any:
            await project(story)
            async with reading(dsn, story) as model:
                return await question(model)

        return run(scenario())

    return ask
