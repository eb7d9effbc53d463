"""Rules of the protocol, broken on purpose one at a time, to show that the checks find it.

A defect replaces functions of the code that runs, for as long as a `with` lasts. What the checks themselves fold with is
put back while they judge.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from taskyard.simulation.defects import of_edges, of_fold, of_inputs, of_log, of_loop, of_services
from taskyard.simulation.defects.patching import Defect, Patches
from taskyard.simulation.errors import UnknownDefect

DEFECTS: dict[str, Defect] = (
    of_log.DEFECTS | of_loop.DEFECTS | of_inputs.DEFECTS | of_services.DEFECTS | of_fold.DEFECTS | of_edges.DEFECTS
)
"""What can be broken."""

_patches = Patches()


@contextmanager
def defect(name: str | None) -> Iterator[None]:
    """Break one rule; None breaks none.

    Raises:
        UnknownDefect: there is none of that name.
    """
    if name is not None and name not in DEFECTS:
        raise UnknownDefect(f"no defect {name!r}; there are {', '.join(sorted(DEFECTS))}")
    if name is not None:
        DEFECTS[name](_patches.replace)
    try:
        yield
    finally:
        _patches.undo()


def put_back(*, but: object = None) -> AbstractContextManager[None]:
    """The code as it is, while somebody judges; what is replaced in `but` stays replaced."""
    return _patches.put_back(but=but)
