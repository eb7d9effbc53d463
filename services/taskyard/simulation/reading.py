"""How a leader reads its streams of inputs: behind its cursors, and until one of them is another one. See `MachineLoop._read`."""

from collections.abc import Callable, Mapping
from typing import Any

from taskyard.eventlog.log import StreamMessage
from taskyard.eventlog.memory import MemoryStream
from taskyard.machine.core import LoopCore
from taskyard.machine.inputs import Offered
from taskyard.simulation.streams import cursor_name


class Readings:
    """One term's reading of all its streams; before it begins there is none."""

    def __init__(self, sources: Mapping[str, MemoryStream]) -> None:
        self._sources = sources
        self._by_name: dict[str, _Reading] = {}

    def begin(self, core: LoopCore[Any, Any]) -> None:
        """A term begins."""
        self._by_name = {name: _Reading(core, stream) for name, stream in self._sources.items()}

    def end(self) -> None:
        """The term is over."""
        self._by_name.clear()

    @property
    def is_replaced(self) -> bool:
        """Whether a stream was deleted, and another one bears its name: who reads must begin anew."""
        return any(reading.is_replaced for reading in self._by_name.values())

    @property
    def is_at_end(self) -> bool:
        """Whether everything that is there was read."""
        return len(self._by_name) == len(self._sources) and all(each.is_at_end for each in self._by_name.values())

    def take(self, name: str, read: Callable[[StreamMessage], Any]) -> None:
        """Offer what is new in a stream; `read` makes an input of a message."""
        self._by_name[name].take(read)

    def again(self) -> None:
        """Lose the place everywhere, and read everything once more."""
        for reading in self._by_name.values():
            reading.reached = 0


class _Reading:
    def __init__(self, core: LoopCore[Any, Any], stream: MemoryStream) -> None:
        self._core = core
        self._stream = stream
        self._made = stream.made
        self._name = cursor_name(stream)
        self.reached = core.begin_to_read(stream.name, self._name)

    @property
    def is_replaced(self) -> bool:
        return self._stream.made != self._made

    @property
    def is_at_end(self) -> bool:
        return not self.is_replaced and self.reached == self._stream.head

    def take(self, read: Callable[[StreamMessage], Any]) -> None:
        for message in self._stream.after(self.reached):
            self.reached = message.sequence
            self._core.offer(Offered(read(message), self._name, message.sequence))
