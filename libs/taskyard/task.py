"""A Python function as a kind of task.

    class Size(msgspec.Struct):
        width: int

    @task("resize", timeout_seconds=60, example={"width": 100})
    async def resize(size: Size) -> dict[str, int]:
        ...

A package says by an entry point that the kind is there (`[project.entry-points."taskyard.kinds"]`, `resize =
"package:resize.kind"`), and agents that have the package run it with `--with package`. Each attempt is a process of its
own: what it prints is its output, what it returns its result, and an exception its failure.
"""

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar, get_type_hints

import msgspec

from taskyard.contracts.kind import Kind, Lock, OnLost

InputT = TypeVar("InputT")
ResultT = TypeVar("ResultT")


class TaskFailed(Exception):
    """The task has failed: `code` and the text are what is shown. After any other exception it may be tried again."""

    def __init__(self, message: str, *, code: str = "failed", retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable


class TaskFunction(Generic[InputT, ResultT]):
    """An async function that is a kind of task. Called in Python it is the function itself."""

    def __init__(self, function: Callable[[InputT], Coroutine[Any, Any, ResultT]], kind: Kind) -> None:
        self.kind = kind
        self.where = f"{function.__module__}:{function.__qualname__}"
        """What `run_function` finds it by."""
        self._function = function
        self.__doc__ = function.__doc__

    async def __call__(self, given: InputT) -> ResultT:
        """Run it here."""
        return await self._function(given)

    async def run(self, data: bytes) -> bytes:
        """Run it with an input as JSON; its result as JSON.

        Raises:
            msgspec.ValidationError: the input is none of this kind.
        """
        return msgspec.json.encode(await self._function(msgspec.json.decode(data, type=self.kind.input)))


def task(
    name: str,
    *,
    timeout_seconds: float,
    example: Mapping[str, Any],
    max_attempts: int = 1,
    lock: Lock = Lock.NONE,
    on_lost: OnLost = OnLost.RETRY,
    shown_values: tuple[str, ...] = (),
) -> Callable[[Callable[[InputT], Coroutine[Any, Any, ResultT]]], TaskFunction[InputT, ResultT]]:
    """Make a function of one typed argument a kind of task; the first line of its docstring says what it does.

    Raises:
        TypeError: it is no async function of one argument with a type.
    """

    def made(function: Callable[[InputT], Coroutine[Any, Any, ResultT]]) -> TaskFunction[InputT, ResultT]:
        parameters = list(inspect.signature(function).parameters)
        hints = get_type_hints(function)
        if not inspect.iscoroutinefunction(function) or len(parameters) != 1 or parameters[0] not in hints:
            raise TypeError(f"{function.__qualname__}: a task is an async function of one argument that has a type")
        kind = Kind(
            name=name,
            summary=(inspect.getdoc(function) or name).partition("\n")[0].rstrip("."),
            input=hints[parameters[0]],
            example=example,
            shown_values=shown_values,
            timeout_seconds=timeout_seconds,
            max_attempts=max_attempts,
            lock=lock,
            on_lost=on_lost,
        )
        return TaskFunction(function, kind)

    return made
