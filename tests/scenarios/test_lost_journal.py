"""The journal of an agent is deleted while it works, and then it is killed: nothing runs beside what it had begun."""

from pathlib import Path

from host_processes import is_running
from system import System


def begun(file: Path) -> int:
    """The pid that a program has written, 0 before."""
    text = file.read_text() if file.exists() else ""
    return int(text) if text.endswith("\n") else 0


def lose_journal(pair: System, worker: str) -> None:
    """As somebody does who clears up on a host."""
    for file in (pair.data / "workers" / worker).glob("journal.*"):
        file.unlink()
    pair.restarted(worker, pair.kill(worker))


def test_a_journal_that_is_deleted_under_a_live_agent_starts_no_second_run_beside_the_first(pair: System) -> None:
    gate = pair.gate("journal")
    applying, running, overlaps = (pair.folder / f"journal.{name}" for name in ("applying", "running", "overlaps"))
    directory, witness = pair.witnessed("journal", f"echo $$ > {applying} && {gate.wait}")
    apply = pair.terraform("plan_and_apply", directory, "journal", auto_confirm=True)
    pair.until(lambda: begun(applying) > 0, "it applies")
    follower = pair.terraform("plan_and_apply", pair.configuration("journal-next"), "journal")
    script = f"kill -0 $(cat {running}) && echo one >> {overlaps}; echo $$ > {running}; {gate.wait}"
    command = pair.command(script, max_attempts=2)
    pair.until(lambda: begun(running) > 0, "the command runs")
    first = begun(running)
    workers = {pair.task(apply)["worker"], pair.task(command)["worker"]}
    assert workers == {"worker-1", "worker-2"}

    for worker in workers:
        lose_journal(pair, worker)

    pair.wait(apply, "failed")
    assert not is_running(begun(applying))
    pair.wait(follower, "apply_pending")
    assert pair.act(follower, "discard").status_code == 202
    pair.until(lambda: begun(running) not in {0, first}, "the command is tried again")
    assert not is_running(first)
    gate.open()
    assert pair.wait(command, "completed")["attempt"] == 2
    assert witness.read_text() == ""
    assert not overlaps.exists()
