"""The root of all events, and the parts that several of them have."""

from msgspec import Struct


class Event(Struct, frozen=True, kw_only=True, tag=True, tag_field="type", omit_defaults=True, gc=False):
    """The root of all events."""


class FieldError(Struct, frozen=True, kw_only=True, gc=False):
    """A fault of one field of a command: where, and what is wrong."""

    path: str
    message: str


class TaskError(Struct, frozen=True, kw_only=True, omit_defaults=False, gc=False):
    """Why an attempt or a task did not complete. `retryable` says whether another try could help."""

    code: str
    message: str
    retryable: bool = False


class Changes(Struct, frozen=True, kw_only=True, gc=False):
    """What a Terraform plan would do: numbers of resources."""

    add: int = 0
    change: int = 0
    destroy: int = 0
