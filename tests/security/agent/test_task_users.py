"""Tasks run as another user where the agent is root: what is the agent's stays the agent's, and one task's its own."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskyard.agent.errors import TaskUserError
from taskyard.agent.executors.terraform import find_program
from taskyard.agent.task_users import TaskUsers
from taskyard.contracts.agent_protocol import DECLINED, Failed, Planned, Succeeded

ONE, OTHER = "54321", "54322"
"""Users whom nobody has listed."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run tasks as another user")
needs_terraform = pytest.mark.skipif(find_program() is None, reason="neither terraform nor tofu is on this machine")
APPLIES_AS = """
variable "text" {{ default = "" }}
resource "terraform_data" "it" {{
  provisioner "local-exec" {{ command = "id -u > {folder}/uid; env > {folder}/env" }}
}}
output "text" {{ value = var.text }}
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may walk through: those of pytest are closed to other users."""
    made = Path(tempfile.mkdtemp(prefix="taskyard-walls-"))
    made.chmod(0o711)
    yield made
    shutil.rmtree(made)


async def run(d: Any, script: str, slot: int = 0) -> str:
    """What a script tells, however it ends."""
    one = d.assignment("command", {"script": script}, slot=slot)
    await d.assign(one)
    await d.report(one.task, Succeeded, Failed)
    return (await d.output(one.task)).decode()


@needs_root
def test_a_command_runs_as_its_user_in_a_folder_of_its_own_and_with_nothing_of_roots(
    harness: Any, folder: Path
) -> None:
    async def scenario(d: Any) -> None:
        script = "id -u; id -g; id -G; stat -c '%a %u' .; echo x > file && cat file; echo told > /dev/stdout"
        told = await run(d, f"{script}; echo $HOME; grep -E 'Cap(Eff|Prm)' /proc/self/status | cut -f 2")
        none = "0" * 16
        assert told.split() == [ONE, ONE, ONE, "700", ONE, "x", "told", "/", none, none]

    harness.run_with_agent(scenario, directory=str(folder / "agent"), run_as=[ONE], allow_root=False)


@needs_root
def test_a_user_of_the_list_has_its_groups_and_its_home(harness: Any, folder: Path) -> None:
    async def scenario(d: Any) -> None:
        assert (await run(d, "id -un; echo $USER $LOGNAME")).split() == ["nobody"] * 3

    harness.run_with_agent(scenario, directory=str(folder / "agent"), run_as=["nobody"], allow_root=False)


@needs_root
def test_a_task_reads_nothing_of_the_agents(harness: Any, folder: Path) -> None:
    async def scenario(d: Any) -> None:
        agent = harness.process(directory=str(folder / "agent"), run_as=[ONE], allow_root=False)
        await harness.joined(d)
        pid, config = agent.process.pid, folder / "agent.json"
        shutil.copy(harness.folder / "agent.json", config)
        config.chmod(0o600)
        files = [config, *(one for one in (folder / "agent").iterdir() if one.is_file())]
        assert any("journal" in one.name for one in files)
        paths = [*files, *(f"/proc/{pid}/{name}" for name in ("environ", "mem", "maps"))]
        tries = "; ".join(f"cat {path} > /dev/null 2>&1 && echo read {path}" for path in paths)
        lists = "; ".join(
            f"ls {one} > /dev/null 2>&1 && echo listed {one}" for one in (folder / "agent", f"/proc/{pid}/fd")
        )
        write = f"touch {folder}/agent/x {folder}/agent/work/x {folder}/agent/supervisor/x 2>/dev/null"
        told = await run(d, f"{tries}; {lists}; {write}; kill {pid} 2>/dev/null && echo killed; echo end")
        assert told == "end\n"
        assert not list((folder / "agent").rglob("x"))
        assert agent.terminate() == 0

    harness.run(scenario)


@needs_root
def test_each_slot_may_have_a_user_of_its_own_and_none_reads_anothers_work(harness: Any, folder: Path) -> None:
    async def scenario(d: Any) -> None:
        gate, there = folder / "gate", folder / "there"
        waits = f"umask 0; echo secret > file; pwd > {there}; while [ ! -e {gate} ]; do sleep 0.02; done; id -u"
        first = d.assignment("command", {"script": waits})
        there.touch()
        there.chmod(0o666)
        await d.assign(first)

        async def is_there() -> bool:
            return bool(there.read_text())

        await harness.until(is_there)
        work = there.read_text().strip()
        reads = f"id -u; cat {work}/file {work}-handed/script 2>/dev/null; ls {work} 2>/dev/null; kill -9 -1; echo end"
        assert (await run(d, reads, slot=1)).split() in ([OTHER, "end"], [OTHER])
        gate.touch()
        assert isinstance(await d.report(first.task, Succeeded, Failed), Succeeded)
        assert await d.output(first.task) == f"{ONE}\n".encode()

    harness.run_with_agent(
        scenario, directory=str(folder / "agent"), run_as=[ONE, OTHER], slots=[["any"]] * 2, allow_root=False
    )


@needs_root
@needs_terraform
def test_terraform_plans_and_applies_as_the_user_and_its_folder_holds_nothing_that_root_writes(
    harness: Any, folder: Path
) -> None:
    configuration = folder / "configuration"
    configuration.mkdir()
    (configuration / "main.tf").write_text(APPLIES_AS.format(folder=configuration))
    os.chown(configuration, int(ONE), int(ONE))

    async def scenario(d: Any) -> None:
        what = {"directory": str(configuration), "variables": {"text": "told"}}
        plan = d.assignment("plan_and_apply", what)
        await d.assign(plan)
        end = await d.report(plan.task, Planned, Failed)
        assert isinstance(end, Planned), end
        kept = folder / "agent" / "terraform" / plan.task
        assert (kept.stat().st_uid, stat.S_IMODE(kept.stat().st_mode)) == (0, 0o711)
        assert [(one.name, one.stat().st_uid) for one in kept.iterdir() if one.is_dir()] == [("own", int(ONE))]
        apply = msgspec.structs.replace(
            d.assignment("plan_and_apply"), task=plan.task, attempt=2, input=plan.input, apply=True, plan_attempt=1
        )
        await d.assign(apply)
        end = await d.report(apply.task, Succeeded, Failed)
        assert isinstance(end, Succeeded), end
        assert msgspec.json.decode(end.result)["outputs"] == {"text": "told"}
        assert (configuration / "uid").read_text() == f"{ONE}\n"
        assert (configuration / "terraform.tfstate").stat().st_uid == int(ONE)

    harness.run_with_agent(scenario, directory=str(folder / "agent"), run_as=[ONE], allow_root=False)


@needs_root
def test_as_root_what_users_write_is_refused_unless_the_settings_allow_it(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        assert d.heartbeats[-1].kinds == ("noop",)
        for kind, what in (("command", {"argv": ["true"]}), ("plan", {"directory": "/"})):
            (answer,) = await d.assign(d.assignment(kind, what))
            assert answer.outcome == DECLINED
        one = d.assignment("noop")
        await d.assign(one)
        await d.report(one.task, Succeeded)

    harness.run_with_agent(scenario, allow_root=False)


@needs_root
@pytest.mark.parametrize("run_as", ["0", "root"])
def test_root_as_the_user_of_tasks_is_root_too(run_as: str) -> None:
    assert not TaskUsers([run_as], slots=1, allow_root=False).may_run_code
    assert TaskUsers([ONE], slots=3, allow_root=False).may_run_code


@needs_root
def test_users_that_are_too_few_or_unknown_are_refused() -> None:
    for run_as, slots in ((["a", "b"], 3), (["no-such-user"], 1)):
        with pytest.raises(TaskUserError):
            TaskUsers(run_as, slots=slots, allow_root=False)


def test_only_root_may_have_users_of_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(TaskUserError, match="only root"):
        TaskUsers(["nobody"], slots=1, allow_root=False)


@needs_root
def test_a_folder_above_that_keeps_the_user_out_ends_the_agent_with_its_name(harness: Any, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    agent = harness.process(directory=str(closed / "agent"), run_as=[ONE])
    assert agent.process.wait(20) == 2
    assert "keeps out 54321" in agent.log.read_text()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
