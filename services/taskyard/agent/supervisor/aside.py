"""What is done by itself: a fault in it ends nothing else. It is told on stderr, where the supervisor says everything."""

import traceback
from collections.abc import Callable
from typing import ParamSpec

P = ParamSpec("P")


def by_itself(call: Callable[P, object], *args: P.args, **named: P.kwargs) -> None:
    """A fault over one descriptor, one command, one attempt or in one turn must not end what runs beside it."""
    try:
        call(*args, **named)
    except Exception:  # noqa: BLE001 (see above)
        traceback.print_exc()
