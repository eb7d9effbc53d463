"""Bodies of submissions, made from what people type or keep in files. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from taskyard.cli.errors import WrongUsage
from taskyard.contracts.doubled import DOUBLED, doubled_key
from taskyard.contracts.faults import not_json
from taskyard.contracts.kinds import KINDS
from taskyard.contracts.kinds.command import CommandInput
from taskyard.contracts.kinds.terraform import TerraformInput
from taskyard.contracts.validation import UNREADABLE, no_such_kind

TASKS_PER_REQUEST_MAX = 500
REQUEST_BYTES_MAX = 512 * 1024
"""Half of what the server takes as one body."""

Body = dict[str, Any]


class InputOptions(Struct, frozen=True, kw_only=True):
    """What the options say about a task's input; None or empty where nothing was said."""

    json: str | None = None
    directory: str | None = None
    variables: tuple[str, ...] = ()
    auto_confirm: bool = False
    script: str | None = None
    argv: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


def make_input(kind: str, options: InputOptions) -> object:
    """The input of a task of this kind. Raises `WrongUsage` where the options do not fit it."""
    if options.json is not None:
        if options != InputOptions(json=options.json):
            raise WrongUsage("--input is the whole input: leave out the other input options")
        return _decode(options.json.encode(), "--input")
    takes = KINDS[kind].input if kind in KINDS else None
    if takes is TerraformInput:
        return _terraform_input(kind, options)
    if takes is CommandInput:
        return _command_input(options)
    if kind not in KINDS:
        raise WrongUsage(no_such_kind(kind))
    if options != InputOptions():
        raise WrongUsage(f"a {kind} takes its input from --input JSON")
    if takes is not Any:
        example = msgspec.json.encode(KINDS[kind].example).decode()
        raise WrongUsage(f"a {kind} needs --input JSON, such as '{example}'")
    return None


def parse_variable(text: str) -> object:
    """The value of `--var name=value`: JSON where it is plainly that, otherwise the text itself.

    A number counts as one only if it would be written just so: `1.10` or `007` is a text, as for Terraform.
    """
    try:
        value = msgspec.json.decode(text.encode())
    except (msgspec.DecodeError, UnicodeEncodeError):
        return text
    if isinstance(value, int | float) and msgspec.json.encode(value).decode() != text:
        return text
    return value


def read_tasks(data: bytes, source: str) -> list[Body]:
    """The tasks of a file: a JSON array, `{"tasks": […]}`, one task, or a task on each line. Raises `WrongUsage`."""
    try:
        content = msgspec.json.decode(data)
        _check_keys(data, source)
    except UNREADABLE:
        content = [_decode(line, f"{source} line {n}") for n, line in enumerate(data.splitlines(), 1) if line.strip()]
    if isinstance(content, dict):
        content = content.get("tasks", [content])
    if not isinstance(content, list) or not content or not all(isinstance(task, dict) for task in content):
        raise WrongUsage(f"{source} holds no tasks: give a JSON array of objects, or one object per line")
    return content


def in_requests(tasks: Iterable[Mapping[str, object]]) -> Iterator[list[Mapping[str, object]]]:
    """The tasks in as few requests as their limits allow, in order."""
    gathered: list[Mapping[str, object]] = []
    size = 0
    for task in tasks:
        length = len(msgspec.json.encode(task))
        if gathered and (len(gathered) == TASKS_PER_REQUEST_MAX or size + length > REQUEST_BYTES_MAX):
            yield gathered
            gathered, size = [], 0
        gathered.append(task)
        size += length
    if gathered:
        yield gathered


def _terraform_input(kind: str, options: InputOptions) -> Body:
    if options.directory is None:
        raise WrongUsage(f"a {kind} needs --directory: the configuration's absolute path on the worker")
    _forbid(
        "argv" if options.argv else "", "--script" if options.script else "", "--env" if options.environment else ""
    )
    body: Body = {"directory": options.directory}
    if options.variables:
        body["variables"] = {name: parse_variable(value) for name, value in map(_variable, options.variables)}
    if options.auto_confirm:
        body["auto_confirm"] = True
    return body


def _command_input(options: InputOptions) -> Body:
    _forbid(
        "--directory" if options.directory else "",
        "--var" if options.variables else "",
        "--auto-confirm" if options.auto_confirm else "",
    )
    if bool(options.argv) == (options.script is not None):
        raise WrongUsage("a command needs either its arguments after `--` or --script TEXT")
    body: Body = {"argv": list(options.argv)} if options.argv else {"script": options.script}
    if options.environment:
        body["env"] = dict(options.environment)
    return body


def _forbid(*options: str) -> None:
    named = [option for option in options if option]
    if named:
        raise WrongUsage(f"{named[0]} does not apply to this kind of task")


def _variable(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise WrongUsage(f"--var {text!r}: must be NAME=VALUE")
    return name, value


def _decode(data: bytes, source: str) -> Any:
    try:
        value = msgspec.json.decode(data)
    except UNREADABLE as error:
        raise WrongUsage(f"{source} is not valid JSON: {not_json(error)}") from error
    _check_keys(data, source)
    return value


def _check_keys(data: bytes, source: str) -> None:
    if (path := doubled_key(data)) is not None:
        raise WrongUsage(f"{source}: {path} {DOUBLED}")
