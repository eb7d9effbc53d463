"""What the command lines of measuring programs share: numbers as they must be, and the errors of a group one by one."""

from collections.abc import Iterator


def count(text: str) -> int:
    """A whole number from 1 on. Raises `ValueError`."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def positive(text: str) -> float:
    """A finite number above 0. Raises `ValueError`."""
    number = float(text)
    if not 0 < number < float("inf"):
        raise ValueError(text)
    return number


def leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    """The errors of a group and of the groups in it."""
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error
