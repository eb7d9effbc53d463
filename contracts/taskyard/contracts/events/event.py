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


class StreamMark(Struct, frozen=True, kw_only=True, gc=False):
    """How far a stream of inputs had come: its cursor's name, and the sequence of its last message.

    Without a name, nobody knew.
    """

    stream: str = ""
    sequence: int = 0

    def is_before(self, stream: str, sequence: int) -> bool:
        """Whether a message of that stream certainly came later."""
        return self.stream != "" and (stream != self.stream or sequence > self.sequence)


class Changes(Struct, frozen=True, kw_only=True, gc=False):
    """What a Terraform plan would do: numbers of resources."""

    add: int = 0
    change: int = 0
    destroy: int = 0
