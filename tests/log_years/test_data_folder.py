"""A folder of this version opens in the next one, and its log outlives it: archived, restored, and gone on with."""

import json
import subprocess
import sysconfig
import tarfile
from pathlib import Path
from typing import Any

import pytest
from nats_doors import command
from system import System

from taskyard.dev.data_format import DATA_FORMAT, FORMAT_FILE, open_format
from taskyard.dev.errors import DirectoryInUse, FolderDamaged, FormatTooNew
from taskyard.dev.layout import Layout
from taskyard.dev.standing_still import nats_of

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = sorted(GOLDEN.glob("data_folder_*.tar.xz"))
NEVER_SUSPECTED = {"TASKYARD_SUSPECT_SECONDS": "3600", "TASKYARD_WORKER_LOST_SECONDS": "7200"}
TIMEOUT_SECONDS = 300
"""It starts the whole system three times."""
TASKYARD = Path(sysconfig.get_path("scripts")) / "taskyard"


def cli(*arguments: str | Path) -> Any:
    """What a command says with --json."""
    ran = subprocess.run([TASKYARD, *arguments, "--json"], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_SECONDS)
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_a_folder_of_a_released_version_opens_and_its_log_is_restored_elsewhere(folder: Path, tmp_path: Path) -> None:
    shown = json.loads(folder.with_name(folder.name.replace(".tar.xz", ".json")).read_text())
    with tarfile.open(folder) as packed:
        packed.extractall(tmp_path / "old", filter="data")
    archive = tmp_path / "archive"
    old = System(tmp_path / "old", arguments=())
    old.start()
    try:
        _shows_what_it_showed(old, shown)
        # What waited then runs now.
        command(old, "resume", queue="later")
        old.wait(shown["waiting"], "completed")
        old.all_idle()
        connection = old.data / "connection.json"
        archived = cli("log", "archive", "--to", archive, "--connection", connection)
        model = cli("rebuild", "--verify-only", "--connection", connection)
        # Nothing happened between the two: they are of the same log.
        assert model["equal"] and model["sequence"] == archived["last"]
    finally:
        assert old.stop() == 0
    _goes_on_elsewhere(tmp_path / "new", archive, shown, model)


def _shows_what_it_showed(system: System, shown: dict[str, Any]) -> None:
    for id, task in shown["tasks"].items():
        system.until(lambda id=id: bool(system.task(id)), "the read model is made again")
        assert task.items() <= system.task(id).items()
        assert shown["histories"][id] == system.history(id)
    assert system.waits(shown["waiting"], "queue_paused")["status"] == "pending"


def _goes_on_elsewhere(folder: Path, archive: Path, shown: dict[str, Any], model: dict[str, Any]) -> None:
    restored = cli("log", "restore", "--from", archive, "--data", folder / "data")
    assert (restored["first"], restored["last"]) == (1, model["sequence"])
    # Nothing new happens but that services take the lead: the read model must be the same.
    system = System(folder, workers=0, arguments=(), environment=NEVER_SUSPECTED)
    system.start()
    try:
        connection = system.data / "connection.json"
        again = cli("rebuild", "--verify-only", "--connection", connection)
        assert again["equal"] and again["old_digest"] == model["old_digest"]
        for id, history in shown["histories"].items():
            assert system.history(id) == history
        id = system.submit("noop", input={})
        system.waits(id, "no_worker")
        assert system.act(id, "cancel").status_code == 202
        system.wait(id, "cancelled")
        verified = cli("log", "verify", "--connection", connection)
        assert verified["ok"] and verified["commits"] > model["sequence"]
        refused = subprocess.run(
            [TASKYARD, "log", "restore", "--from", archive, "--data", system.data],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert refused.returncode == 2 and "is in use by another taskyard dev" in refused.stderr
    finally:
        assert system.stop() == 0
    refused = subprocess.run(
        [TASKYARD, "log", "restore", "--from", archive, "--data", system.data],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 3 and "the log is not empty" in refused.stderr
    _goes_on_in_the_next_generation(system, shown, again)


def _goes_on_in_the_next_generation(system: System, shown: dict[str, Any], model: dict[str, Any]) -> None:
    done = cli("log", "new-generation", "--data", system.data)
    assert done["last"] > model["sequence"] and done["archive"] == str(system.data / "archive")
    _starts_without_its_archive(system)
    system.start()
    try:
        connection = system.data / "connection.json"
        # The whole log is folded, from the archive on; the read model is what it was, and goes on.
        again = cli("rebuild", "--verify-only", "--connection", connection)
        assert again["equal"] and again["sequence"] > done["first"]
        for id, history in shown["histories"].items():
            assert system.history(id) == history
        system.waits(system.submit("noop", input={}), "no_worker")
        refused = subprocess.run(
            [TASKYARD, "log", "new-generation", "--connection", connection], capture_output=True, text=True, check=False
        )
        assert refused.returncode == 3 and "stop the services first" in refused.stderr
    finally:
        assert system.stop() == 0


def _starts_without_its_archive(system: System) -> None:
    """After a new generation everything becomes ready while the archive is away, and commands are decided."""
    archive, away = system.data / "archive", system.data / "away"
    archive.rename(away)
    system.start()
    try:
        system.waits(system.submit("noop", input={}, queue="meanwhile"), "no_worker")
    finally:
        assert system.stop() == 0
        away.rename(archive)


def test_a_folder_of_a_newer_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    record = f'{{"format":{DATA_FORMAT + 1},"taskyard":"9.0"}}'
    (tmp_path / FORMAT_FILE).write_text(record)
    ran = subprocess.run([TASKYARD, "dev", "--data", tmp_path], capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == 1
    assert f"has format {DATA_FORMAT + 1} (by taskyard 9.0), this program knows {DATA_FORMAT} at most" in ran.stderr
    assert {path.name for path in tmp_path.iterdir()} == {FORMAT_FILE, "lock"}
    assert (tmp_path / FORMAT_FILE).read_text() == record


def test_a_folder_without_a_record_is_of_the_first_format_and_gets_one(tmp_path: Path) -> None:
    open_format(tmp_path)
    recorded = json.loads((tmp_path / FORMAT_FILE).read_text())
    assert recorded["format"] == DATA_FORMAT
    before = (tmp_path / FORMAT_FILE).stat().st_mtime_ns
    open_format(tmp_path)
    assert (tmp_path / FORMAT_FILE).stat().st_mtime_ns == before


@pytest.mark.parametrize("record", ["", "{", "[]", '{"format":"one"}', '{"taskyard":"1"}'])
def test_a_damaged_record_is_named(tmp_path: Path, record: str) -> None:
    (tmp_path / FORMAT_FILE).write_text(record)
    with pytest.raises(FolderDamaged, match=FORMAT_FILE):
        open_format(tmp_path)


def test_the_server_of_a_folder_is_not_run_alone_while_the_system_runs_or_was_killed(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    with layout.locked(), pytest.raises(DirectoryInUse, match="is in use by another"), nats_of(tmp_path):
        pass
    identity = {"pid": 1, "start_ticks": 1, "boot_id": "another"}
    (tmp_path / "processes.json").write_text(json.dumps({"services": {"identity": identity, "stop_signal": 15}}))
    with pytest.raises(DirectoryInUse, match="the last run was killed"), nats_of(tmp_path):
        pass
    (tmp_path / "processes.json").unlink()
    (tmp_path / FORMAT_FILE).write_text('{"format":99}')
    with pytest.raises(FormatTooNew), nats_of(tmp_path):
        pass
