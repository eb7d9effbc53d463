"""What is remembered of each task by its id, also after its end: a row of a few bytes, since there are a million of them.

Rows stand in blocks in the order in which the tasks came, and a block goes with its last row. So a task takes about 200
bytes of memory, and a snapshot copies blocks instead of encoding tasks.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from struct import Struct as Layout

from msgspec import Struct

from taskyard.contracts.values import Instant, Position, Status, TaskId
from taskyard.scheduler.id_window import ID_BYTES, Window, id_bytes

DIGEST_BYTES = 8
BLOCK_ROWS = 4_096

# Stored in snapshots: another layout is another `snapshot_version`.
_row = Layout(f">{ID_BYTES}s{DIGEST_BYTES}sQIIBB")
"""Id (zero: forgotten), digest, position, number of the author, attempt whose plan was confirmed, end, discarded."""
_ENDS: tuple[Status | None, ...] = (None, Status.COMPLETED, Status.FAILED, Status.TIMEOUT, Status.CANCELLED)

_end = Layout(">BB")
_END_AT = _row.size - _end.size
_confirmed = Layout(">I")
_CONFIRMED_AT = _END_AT - _confirmed.size
_NO_ID = bytes(ID_BYTES)


class KnownTask(Struct, frozen=True, kw_only=True, gc=False):
    """What is remembered of a task.

    `plan_confirmed` is the last attempt whose plan was confirmed; `ended` its status once it has ended.
    """

    digest: str
    by: str
    position: Position
    ended: Status | None = None
    was_discarded: bool = False
    plan_confirmed: int | None = None


class SavedTasks(Struct, frozen=True, kw_only=True):
    """The snapshot: blocks of rows as they stand, of which all but the last are full, and authors by their number.

    `horizon` is what an earlier version knew, which forgot for everybody alike.
    """

    blocks: list[bytes]
    authors: list[str]
    horizon: Instant
    horizons: dict[str, Instant] = {}


class KnownTasks:
    """Rows of tasks by id."""

    def __init__(self) -> None:
        self.window = Window()
        self._rows: dict[bytes, int] = {}
        self._next = 0
        self._blocks: dict[int, bytearray] = {}
        self._in_use: dict[int, int] = {}
        self._authors: list[str] = []
        self._author_numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, task: TaskId) -> KnownTask | None:
        """What is remembered of a task; None if nothing."""
        row = self._rows.get(id_bytes(task))
        if row is None:
            return None
        block, at = self._place(row)
        _, digest, position, author, confirmed, end, discarded = _row.unpack_from(block, at)
        return KnownTask(
            digest=digest.hex(),
            by=self._authors[author],
            position=position,
            ended=_ENDS[end],
            was_discarded=bool(discarded),
            plan_confirmed=confirmed or None,
        )

    def remember(self, task: TaskId, *, digest: str, by: str, position: Position, at: Instant) -> None:
        """A task was accepted at log time `at`."""
        id = id_bytes(task)
        if len(id) != ID_BYTES or id in self._rows:
            return
        number, place = divmod(self._next, BLOCK_ROWS)
        if not place:
            self._add_block(number)
        author = self._author_number(by)
        _row.pack_into(self._blocks[number], place * _row.size, id, _digest_bytes(digest), position, author, 0, 0, 0)
        self._rows[id] = self._next
        self._in_use[number] += 1
        self._next += 1
        for forgotten in self.window.add(id, by, at):
            self._forget(forgotten)

    def ended(self, task: TaskId, status: Status, *, was_discarded: bool) -> None:
        """A task has ended."""
        row = self._rows.get(id_bytes(task))
        if row is not None:
            block, at = self._place(row)
            _end.pack_into(block, at + _END_AT, _ENDS.index(status), was_discarded)

    def plan_confirmed(self, task: TaskId, attempt: int) -> None:
        """The plan of an attempt was confirmed."""
        row = self._rows.get(id_bytes(task))
        if row is not None:
            block, at = self._place(row)
            _confirmed.pack_into(block, at + _CONFIRMED_AT, attempt)

    def saved(self) -> SavedTasks:
        """The rows for a snapshot."""
        open_block, used = divmod(self._next, BLOCK_ROWS)
        blocks = [
            bytes(block if number != open_block else block[: used * _row.size])
            for number, block in self._blocks.items()
        ]
        return SavedTasks(
            blocks=blocks, authors=list(self._authors), horizon=self.window.horizon, horizons=dict(self.window.horizons)
        )

    @classmethod
    def restored(cls, saved: SavedTasks) -> "KnownTasks":
        """The rows of a snapshot.

        Raises:
            ValueError: they are no rows.
        """
        known = cls()
        known._authors = list(saved.authors)
        known._author_numbers = {author: number for number, author in enumerate(saved.authors)}
        for data in saved.blocks:
            known._restore(data)
        known.window = Window(known._ids_of(saved.blocks), saved.horizon, saved.horizons)
        return known

    def _ids_of(self, blocks: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
        """The ids in rows, with their authors."""
        for block in blocks:
            for id, _, _, author, *_ in _row.iter_unpack(block):
                if id != _NO_ID:
                    if author >= len(self._authors):
                        raise ValueError(f"there is no author {author}: this is none of ours")
                    yield self._authors[author], id

    def _restore(self, data: bytes) -> None:
        count, rest = divmod(len(data), _row.size)
        if rest or count > BLOCK_ROWS or self._next % BLOCK_ROWS:
            raise ValueError(f"a block of {len(data)} bytes is none of ours")
        number = self._next // BLOCK_ROWS
        self._blocks[number] = bytearray(data.ljust(BLOCK_ROWS * _row.size, b"\0"))
        ids = [data[start : start + ID_BYTES] for start in range(0, len(data), _row.size)]
        self._rows.update(zip(ids, range(self._next, self._next + count), strict=True))
        self._rows.pop(_NO_ID, None)
        self._in_use[number] = count - ids.count(_NO_ID)
        self._next += count

    def _add_block(self, number: int) -> None:
        self._blocks[number] = bytearray(BLOCK_ROWS * _row.size)
        self._in_use[number] = 0
        self._drop_if_unused(number - 1)

    def _forget(self, id: bytes) -> None:
        row = self._rows.pop(id)
        number = row // BLOCK_ROWS
        block, at = self._place(row)
        block[at : at + _row.size] = bytes(_row.size)
        self._in_use[number] -= 1
        if number != (self._next - 1) // BLOCK_ROWS:  # rows are still added to the last one
            self._drop_if_unused(number)

    def _drop_if_unused(self, number: int) -> None:
        if self._in_use.get(number) == 0:
            del self._blocks[number], self._in_use[number]

    def _place(self, row: int) -> tuple[bytearray, int]:
        number, place = divmod(row, BLOCK_ROWS)
        return self._blocks[number], place * _row.size

    def _author_number(self, by: str) -> int:
        number = self._author_numbers.get(by)
        if number is None:
            number = self._author_numbers[by] = len(self._authors)
            self._authors.append(by)
        return number


def _digest_bytes(digest: str) -> bytes:
    """The digest as bytes; one of another form, that a newer writer may have made, is never equal to one of ours."""
    try:
        data = bytes.fromhex(digest)
    except ValueError:
        data = b""
    return data if len(data) == DIGEST_BYTES else blake2b(digest.encode(), digest_size=DIGEST_BYTES).digest()
