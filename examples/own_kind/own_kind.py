"""A kind of task of its own: `resize`.

pip install ./examples/own_kind                      # where services, command line and agents run
python -m taskyard.agent --config FILE --with own_kind
taskyard submit resize --input '{"width": 1600, "height": 900, "most": 400}' --wait
"""

from msgspec import Struct

from taskyard.task import TaskFailed, task


class Picture(Struct, frozen=True, forbid_unknown_fields=True):
    """How large a picture is, and how large it may be at most."""

    width: int
    height: int
    most: int = 100


class Size(Struct, frozen=True):
    """How large it becomes."""

    width: int
    height: int


@task("resize", timeout_seconds=60, example={"width": 1600, "height": 900})
async def resize(picture: Picture) -> Size:
    """Fit a picture into a square."""
    if min(picture.width, picture.height) <= 0:
        raise TaskFailed("a picture has a width and a height", code="no_picture")
    print(f"fits {picture.width} x {picture.height} into {picture.most}")
    scale = min(1.0, picture.most / max(picture.width, picture.height))
    return Size(round(picture.width * scale), round(picture.height * scale))
