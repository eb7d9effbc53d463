"""The whole of it killed, stopped under load, and started twice: the folder is all that counts."""

import signal
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from system import STOP_SECONDS_MAX, System
from witnessed_load import Load

KILLED = ("scheduler", "slot_allocator", "dispatcher", "state_projector", "api", "nats-server", "postgres", "worker-1")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A system that is started again and again on one folder."""
    system = System(tmp_path_factory.mktemp("everything"))
    system.start()
    yield system
    # By the keyboard: as clean as by TERM.
    assert system._child is not None
    system._child.send_signal(signal.SIGINT)
    assert system.stop() == 0


def test_everything_killed_at_once_goes_on_from_the_folder(own: System) -> None:
    load = Load(own, "power")
    load.submit()
    load.until_halfway()
    before = own.connection["processes"]
    own.kill_everything()
    own.start()
    after = own.connection["processes"]
    assert not set(before.values()) & set(after.values())
    run = load.finish(all_complete=False)
    failed = [id for id in load.ids if run.lives[id].status != "completed"]
    # One worker of three slots: only the command that was in slot 0 when the power went may not be repeated.
    assert [run.lives[id].kind for id in failed] in ([], ["command"])


def test_the_supervisor_killed_alone_leaves_nothing_twice(own: System) -> None:
    load = Load(own, "supervisor")
    load.submit(plans=1, applies=0)
    load.until_halfway()
    child = own._child
    assert child is not None
    child.kill()
    child.wait(STOP_SECONDS_MAX)
    assert child.stdout is not None
    child.stdout.close()
    left = own.connection["processes"]
    own.start()
    alive = [name for name, pid in left.items() if Path(f"/proc/{pid}").exists()]
    assert not alive, f"left by the earlier run: {alive}"
    load.finish(all_complete=False)


def test_a_stop_under_load_is_clean_and_the_next_start_finishes_everything(own: System) -> None:
    load = Load(own, "stopped")
    load.submit()
    load.until_halfway()
    processes = own.connection["processes"]
    assert own.stop() == 0
    assert not [name for name, pid in processes.items() if Path(f"/proc/{pid}").exists()]
    own.start()
    load.finish()


def test_a_second_dev_on_a_folder_in_use_is_refused_and_does_no_harm(own: System) -> None:
    pids = own.connection["processes"]
    program = Path(sysconfig.get_path("scripts")) / "taskyard"
    arguments = ("--data", str(own.data), "--http-port", "0", "--nats-port", "0")
    second = subprocess.run([program, "dev", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert second.returncode != 0
    assert "ready" not in second.stdout
    assert "in use" in second.stderr
    assert own.connection["processes"] == pids
    own.wait(own.command("true"), "completed")
