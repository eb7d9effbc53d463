"""What Taskyard writes is for its owner alone, whatever the umask and whatever was there before."""

import ast
import asyncio
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from taskyard.agent.errors import JournalError
from taskyard.agent.journal import Journal
from taskyard.dev.layout import Layout
from taskyard.embedded.nats_server import NatsServer
from taskyard.eventlog.archive_stores import FolderStore
from taskyard.eventlog.errors import ArchiveUnreachable
from taskyard.private_files import (
    NotPrivate,
    make_file,
    make_folder,
    open_to_append,
    own_folder,
    write_private,
    writing,
)

ROOT = Path(__file__).parents[2]
THE_WAY = ROOT / "libs" / "taskyard" / "private_files.py"
ELSEWHERE = {
    "libs/taskyard/embedded/deployment.py": {"write_text"},  # a generated file of the project, which names no secret
    "libs/taskyard/embedded/postgres.py": {"chmod"},  # lets its system user pass through folders, and read its programs
    "services/taskyard/agent/executors/directories.py": {"chmod"},  # lets users of tasks pass to what is theirs
    "services/taskyard/agent/task_users.py": {"chmod"},  # the same
    "services/taskyard/agent/journal.py": {"connect"},  # SQLite opens by name; the file is made before it
    "services/taskyard/agent/supervisor/serving.py": {"chmod"},  # of a socket, in a private folder
    "services/taskyard/chaos/gathering.py": {"connect"},  # reads journals
    "services/taskyard/chaos/agents.py": {"copy2"},  # journals with their modes
    "services/taskyard/chaos/disks.py": {"copytree"},  # a whole disk with its modes
    "services/taskyard/chaos/app.py": {"mkdtemp"},  # always 0700
    "services/taskyard/chaos/hostile.py": {"mkdtemp"},  # always 0700
    "services/taskyard/fuzz/app.py": {"mkdtemp"},  # always 0700
    "services/taskyard/demo/yard.py": {"TemporaryDirectory"},  # always 0700
    "services/taskyard/bench/app.py": {"TemporaryDirectory"},  # always 0700
}
WRITERS = {
    *("chmod", "fchmod", "copy2", "copyfile", "copytree", "makedirs", "mkdir", "mkdtemp", "mkfifo", "mkstemp"),
    *("write_bytes", "write_text"),
    *("NamedTemporaryFile", "SpooledTemporaryFile", "TemporaryDirectory", "TemporaryFile"),
}


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def calls_that_write(source: Path) -> Iterator[str]:
    """The names of calls in a file that make a file or folder, or open one to write, other than by the helper."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and writes(node, name := last_name(node.func), ast.unparse(node.func)):
            yield name


def last_name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def writes(call: ast.Call, name: str, whole_name: str) -> bool:
    parts = list(ast.walk(call))
    texts = [set(one.value) for one in parts if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    opens = name in {"open", "fdopen"} and any(text <= set("rwxabt+") and text & set("wxa+") for text in texts)
    creates = name == "open" and any(isinstance(one, ast.Attribute) and one.attr == "O_CREAT" for one in parts)
    touches = name == "touch" and not call.args
    return (
        opens
        or creates
        or touches
        or name in WRITERS
        or whole_name in {"sqlite3.connect", "shutil.copy", "shutil.move"}
    )


def test_no_file_or_folder_is_written_but_by_the_one_helper() -> None:
    found = {
        str(source.relative_to(ROOT)): names
        for folder in ("libs", "services")
        for source in sorted((ROOT / folder).rglob("*.py"))
        if source != THE_WAY and (names := set(calls_that_write(source)))
    }
    assert found == ELSEWHERE


def test_the_search_for_writers_finds_each_way_of_writing(tmp_path: Path) -> None:
    ways = [
        'open(name, "w")', 'path.open("ab")', 'os.fdopen(one, "r+")', "os.open(name, os.O_WRONLY | os.O_CREAT)", "path.mkdir()",
        'path.write_text("")', "sqlite3.connect(name)", "tempfile.NamedTemporaryFile()",
    ]  # fmt: skip
    for way in ways:
        (tmp_path / "one.py").write_text(way)
        assert list(calls_that_write(tmp_path / "one.py")), way
    (tmp_path / "one.py").write_text('path.open("rb"); os.open(name, os.O_RDONLY); path.read_bytes(); open(name)')
    assert not list(calls_that_write(tmp_path / "one.py"))


def test_a_private_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    write_private(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_what_fails_while_it_is_written_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_private(path, b"old")

    def fail() -> None:
        with writing(path) as out:
            out.write(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret"]


def test_a_file_is_private_from_the_moment_at_which_it_is_there(tmp_path: Path) -> None:
    with writing(tmp_path / "secret") as out:
        out.write(b"half")
        assert [mode(entry) for entry in tmp_path.iterdir()] == [0o600]


def test_folders_are_private_and_those_above_them_that_were_missing(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b" / "c")
    assert [mode(tmp_path / name) for name in ("a", "a/b", "a/b/c")] == [0o700] * 3


@pytest.mark.parametrize("opened", [make_file, lambda file: open_to_append(file).close()], ids=["made", "appended to"])
def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path, opened: Callable[[Path], None]) -> None:
    path = tmp_path / "log"
    path.write_text("kept")
    assert mode(path) == 0o666
    opened(path)
    assert (mode(path), path.read_text()) == (0o600, "kept")


def test_a_folder_of_ours_that_others_could_list_is_closed_to_them_but_for_passing(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o755)
    own_folder(folder)
    assert mode(folder) == 0o711


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o702, 0o1777])
def test_a_folder_that_others_may_write_is_refused_by_name(tmp_path: Path, bits: int) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(bits)
    with pytest.raises(NotPrivate, match=f"can be written by others .mode {bits:04o}.*{folder}"):
        own_folder(folder)
    assert mode(folder) == bits


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_is_refused_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, -1)
    with pytest.raises(NotPrivate, match=f"belongs to nobody.*{folder}"):
        own_folder(folder)


def writable(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o777)
    return folder


def test_dev_refuses_a_data_folder_that_others_may_write_and_touches_nothing(tmp_path: Path) -> None:
    folder = writable(tmp_path)
    with pytest.raises(NotPrivate, match=str(folder)), Layout(folder).locked():
        pass
    assert not list(folder.iterdir())


def test_an_agent_refuses_a_folder_that_others_may_write_and_touches_nothing(tmp_path: Path) -> None:
    folder = writable(tmp_path)
    with pytest.raises(JournalError, match=f"{folder} cannot be used: can be written by others"):
        Journal(folder, incarnation="a1")
    assert not list(folder.iterdir())


def test_nats_refuses_a_folder_that_others_may_write(tmp_path: Path) -> None:
    with pytest.raises(NotPrivate, match="can be written by others"):
        NatsServer(writable(tmp_path))


def test_an_archive_is_neither_written_nor_read_where_others_may_write(tmp_path: Path) -> None:
    folder = writable(tmp_path)
    store = FolderStore(folder)
    with pytest.raises(ArchiveUnreachable, match=f"{folder}, can be written by others"):
        asyncio.run(store.write("manifest.json", b"{}"))
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(ArchiveUnreachable, match=f"{folder}, can be written by others"):
        asyncio.run(store.read("manifest.json"))


def test_segments_that_an_earlier_version_left_readable_are_closed_with_the_next_write(tmp_path: Path) -> None:
    old = tmp_path / "00000000000000000001-00000000000000000002.jsonl.gz"
    old.write_bytes(b"")
    other = tmp_path / "readme"
    other.write_bytes(b"")
    asyncio.run(FolderStore(tmp_path).write("manifest.json", b"{}"))
    assert (mode(old), mode(other), mode(tmp_path / "manifest.json")) == (0o600, 0o666, 0o600)


def test_a_journal_that_an_earlier_version_left_readable_is_closed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, incarnation="a1")
    files = [file for file in tmp_path.iterdir() if file.is_file()]
    assert len(files) >= 4  # the journal, its log, its mark, the lock
    for file in files:
        file.chmod(0o644)
    journal.close()
    Journal(tmp_path, incarnation="a2").close()
    assert {mode(file) for file in tmp_path.iterdir()} == {0o600}
