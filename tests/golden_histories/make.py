"""Makes golden histories: short real runs of the whole system, exported from its log, with what they mean today.

    .venv/bin/python tests/golden_histories/make.py 0.1              # those of this version that are not there yet
    .venv/bin/python tests/golden_histories/make.py 0.1 retries      # this one anew

Made once for each released version and then kept for ever: the tests fold them with the code of their day. A history
that exists is never made again to please a test: what fails there would misread every log that was written before.
"""

import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "scenarios"))
sys.path.insert(0, str(Path(__file__).parent.parent / "support"))

from folding import meaning, read_history
from host_processes import is_running
from nats_doors import ask, command
from system import FAILS, System, running

from taskyard.eventlog.commit import hash_commit
from taskyard.eventlog.slices import SliceLine

GOLDEN = Path(__file__).parent / "golden"
SOON_LOST = {"TASKYARD_SUSPECT_SECONDS": "2", "TASKYARD_WORKER_LOST_SECONDS": "4"}


def approvals(system: System) -> None:
    """Plans beside each other; an apply confirmed while a second one of its workspace waits, and is discarded."""
    directory = system.configuration("prod")
    plans = [system.terraform("plan", directory, f"plan-{number}") for number in range(2)]
    first = system.terraform("plan_and_apply", directory, "prod", labels={"team": "net"})
    system.wait(first, "apply_pending")
    second = system.terraform("plan_and_apply", directory, "prod")
    system.waits(second, "workspace_busy")
    assert system.act(first, "confirm", comment="looks right").status_code == 202
    assert system.act(first, "confirm").status_code in {202, 409}
    system.wait(first, "completed")
    system.wait(second, "apply_pending")
    assert system.act(second, "discard", comment="not today").status_code == 202
    system.wait(second, "cancelled")
    system.wait(system.terraform("plan_and_apply", directory, "auto", auto_confirm=True), "completed")
    system.wait(system.terraform("plan", system.configuration("bad", FAILS), "bad"), "failed")
    for plan in plans:
        system.wait(plan, "completed")


def retries(system: System) -> None:
    """Attempts that fail and are repeated, a retry as a new task, refused commands, an id that comes twice."""
    recovers = system.command('test "$TASKYARD_ATTEMPT" = 2', max_attempts=3)
    hopeless = system.command("exit 4", labels={"team": "net"}, queue="retried", priority=3)
    system.wait(hopeless, "failed")
    assert system.act(hopeless, "retry", reason="once more").status_code == 202
    assert system.http.post("/tasks", json={"kind": "no_such_kind", "input": {}}).status_code == 422
    assert ask(system, "submit", kind="noop", input={}, id=hopeless)["code"] == 409
    system.wait(recovers, "completed")
    system.until(lambda: not system.live(), "every task has ended")
    assert ask(system, "cancel", task=recovers)["code"] == 409


def cancels(system: System) -> None:
    """Tasks stopped at every stage: waiting, running, by force, by time; with pauses, locks, limits, priorities."""
    gate = system.gate("running")
    command(system, "configure-queue", queue="limited", max_running=1, create=True)
    command(system, "configure-pool", approval_timeout_seconds=3600.0, placement="keep-slot-0")
    running_task = system.command(gate.wait, queue="limited")
    system.wait(running_task, "running")
    waiting = system.command("true", queue="limited")
    assert system.act(waiting, "reprioritise", priority=1).status_code == 202
    assert system.act(waiting, "cancel", reason="no longer needed").status_code == 202
    system.wait(waiting, "cancelled")
    assert system.act(running_task, "cancel", reason="enough").status_code == 202
    system.wait(running_task, "cancelled")
    forced = system.command(gate.wait, queue="limited")
    system.wait(forced, "running")
    assert system.act(forced, "force-stop", reason="at once").status_code == 202
    system.wait(forced, "cancelled")
    command(system, "pause", queue="limited", reason="maintenance")
    never = system.command("true", queue="limited", schedule_to_start_timeout_seconds=0.5)
    system.wait(never, "timeout")
    command(system, "resume", queue="limited")
    command(system, "lock", queue="limited", reason="mine")
    command(system, "unlock", queue="limited")
    gate.open()
    system.wait(system.command("sleep 60", timeout_seconds=1.0), "timeout")


def lost_workers(system: System) -> None:
    """Workers that fall silent: one command is tried elsewhere, one fails, an apply is held until its worker is back."""
    gate = system.gate("lost")
    repeated = system.command(gate.wait, max_attempts=2)
    lost = system.wait(repeated, "running")["worker"]
    held_gate = system.gate("held")
    held_configuration, _ = system.witnessed("held", held_gate.wait)
    with system.frozen(lost):
        system.until(lambda: system.types(repeated).count("TaskStarted") == 2, "it runs elsewhere")
    gate.open()
    system.wait(repeated, "completed")
    system.until(lambda: system.workers_active() == system.workers, "it is back")
    apply = system.terraform("plan_and_apply", held_configuration, "held")
    held_by = system.wait(apply, "apply_pending")["worker"]
    assert system.act(apply, "confirm").status_code == 202
    system.wait(apply, "running")
    command_gate = system.gate("command")
    with system.frozen(held_by):
        system.until(lambda: "WorkerLost" in system.types(apply), "the apply is held")
    held_gate.open()
    system.wait(apply, "completed")
    system.until(lambda: system.workers_active() == system.workers, "it is back again")
    stopped = system.command(command_gate.wait)
    worker = system.wait(stopped, "running")["worker"]
    pid = system.kill(worker)
    system.wait(stopped, "failed")
    system.restarted(worker, pid)
    command_gate.open()
    system.until(lambda: system.workers_active() == system.workers, "it was started again")
    command(system, "drain", worker=worker, reason="done")
    system.until(lambda: system.workers_active() == system.workers - 1, "it drains")


def released(system: System) -> None:
    """A held apply is given up by an admin, and the next one of its workspace goes on elsewhere."""
    gate = system.gate("released")
    configuration, _ = system.witnessed("released", gate.wait)
    apply = system.terraform("plan_and_apply", configuration, "released", auto_confirm=True)
    system.until(lambda: "ApplyConfirmed" in system.types(apply), "it is confirmed")
    held_by = system.wait(apply, "running")["worker"]
    with system.frozen(held_by):
        system.until(lambda: "WorkerLost" in system.types(apply), "the apply is held")
        following = system.terraform("plan_and_apply", system.configuration("after"), "released", auto_confirm=True)
        system.waits(following, "workspace_busy")
        assert system.act(apply, "release", reason="its host is gone").status_code == 202
        system.wait(apply, "failed")
        system.wait(following, "completed")
    gate.open()
    system.until(lambda: system.workers_active() == system.workers, "it is back")


def not_delivered(system: System) -> None:
    """A worker that is killed just before something is sent to it: the task waits, and runs once it is back."""
    system.wait(system.command("true"), "completed")
    with system.nobody_restarts():
        killed = system.kill("worker-1")
        system.until(lambda: not is_running(killed), "the worker is gone")
        id = system.command("true")
        system.waits(id, "backoff")
    system.restarted("worker-1", killed)
    system.wait(id, "completed")
    system.until(lambda: system.workers_active() == 1, "it is back")


HISTORIES: dict[str, tuple[Callable[[System], None], int]] = {
    "approvals": (approvals, 1),
    "retries": (retries, 1),
    "cancels": (cancels, 1),
    "lost_workers": (lost_workers, 2),
    "not_delivered": (not_delivered, 1),
    "released": (released, 2),
}
"""Each history: what is done, and with how many workers."""


def rename(history: Path, old: str, new: str) -> None:
    """Take the paths of this machine out of a history, and chain its commits anew."""
    first, *lines = history.read_bytes().splitlines()
    hashes: dict[bytes, bytes] = {}
    renamed = [first]
    for line in lines:
        before = bytes(msgspec.json.decode(line, type=SliceLine).data)
        after = before.replace(old.encode(), new.encode())
        for hash_before, hash_after in hashes.items():
            after = after.replace(b'"previous":"%s"' % hash_before, b'"previous":"%s"' % hash_after)
        hashes[hash_commit(before).encode()] = hash_commit(after).encode()
        renamed.append(line.replace(before, after))
    history.write_bytes(b"\n".join(renamed) + b"\n")


def make(name: str, folder: Path) -> None:
    """Run one history and write what came of it."""
    play, workers = HISTORIES[name]
    history = folder / f"{name}.taskyard.jsonl"
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary)
        with running(where, workers=workers, arguments=(), environment=SOON_LOST) as system:
            play(system)
            system.all_idle()
            program = Path(sysconfig.get_path("scripts")) / "taskyard"
            connection = system.data / "connection.json"
            subprocess.run([program, "log", "export", "..", history, "--connection", connection], check=True)
        rename(history, str(where), "/srv")
    expect(history)


def expect(history: Path) -> None:
    """Fix what a new history means."""
    commits = read_history(history)
    expected = msgspec.json.format(msgspec.json.encode(meaning(commits)), indent=1)
    history.with_name(history.name.replace(".taskyard.jsonl", ".expected.json")).write_bytes(expected + b"\n")
    print(f"{history.name}: {len(commits)} commits")


if __name__ == "__main__":
    _folder = GOLDEN / sys.argv[1]
    _folder.mkdir(parents=True, exist_ok=True)
    _wanted = sys.argv[2:] or [name for name in HISTORIES if not (_folder / f"{name}.expected.json").exists()]
    for _name in _wanted:
        make(_name, _folder)
