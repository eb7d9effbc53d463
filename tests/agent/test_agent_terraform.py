"""Plans and applies with a real Terraform, on configurations that need no download."""

import asyncio
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from taskyard.agent.executors.terraform import find_program
from taskyard.contracts.agent_protocol import Failed, Planned, Started, Succeeded
from taskyard.contracts.nesting import NESTING_MAX

pytestmark = pytest.mark.skipif(find_program() is None, reason="neither terraform nor tofu is on this machine")

CONFIGURATION = """
variable "n" { default = 1 }
variable "secret" {
  default   = "x"
  sensitive = true
}
resource "terraform_data" "one" {
  count = var.n
  input = count.index
}
output "number" { value = var.n }
output "secret" {
  value     = var.secret
  sensitive = true
}
"""

DEEP = NESTING_MAX + 50


@pytest.fixture
def configuration(tmp_path: Path) -> Path:
    folder = tmp_path / "configuration"
    folder.mkdir()
    (folder / "main.tf").write_text(CONFIGURATION)
    return folder


def state_resources(folder: Path) -> int:
    state = folder / "terraform.tfstate"
    if not state.exists():
        return 0
    return sum(len(one["instances"]) for one in json.loads(state.read_text())["resources"])


def folders(tmp_path: Path) -> list[str]:
    return [one.name for one in (tmp_path / "agent" / "terraform").iterdir()]


def test_a_plan_counts_its_changes_and_leaves_nothing(harness: Any, configuration: Path, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        what = {"directory": str(configuration), "variables": {"n": 2, "secret": "hunter2"}}
        one = d.assignment("plan", what)
        await d.assign(one)
        end = await d.report(one.task, Succeeded, Failed)
        assert isinstance(end, Succeeded), end
        assert msgspec.json.decode(end.result) == {
            "exit_code": 0,
            "changes": {"add": 2, "change": 0, "destroy": 0},
            "outputs": {},
        }
        output = await d.output(one.task)
        assert b"2 to add" in output
        assert b"hunter2" not in output
        assert b"\x1b[" not in output
        assert folders(tmp_path) == []

    harness.run_with_agent(scenario)


def test_an_apply_applies_exactly_the_plan_also_after_a_restart_of_the_agent(
    harness: Any, configuration: Path, tmp_path: Path
) -> None:
    planned: Any = None

    async def plan(d: Any) -> None:
        nonlocal planned
        what = {"directory": str(configuration), "variables": {"n": 2, "secret": "hunter2"}}
        planned = d.assignment("plan_and_apply", what)
        await d.assign(planned)
        report = await d.report(planned.task, Planned, Failed)
        assert report.changes.add == 2
        assert state_resources(configuration) == 0
        assert "hunter2" not in "".join(
            one.read_text(errors="replace") for one in (tmp_path / "agent").rglob("*.tfvars.json")
        )

    async def apply(d: Any) -> None:
        assert folders(tmp_path) == [planned.task]
        # The configuration has changed meanwhile; what was shown is what is applied.
        (configuration / "more.tf").write_text('resource "terraform_data" "more" {}\n')
        d.positions = planned.position
        assert await result_of_apply(d, planned) == {
            "exit_code": 0,
            "changes": {"add": 2, "change": 0, "destroy": 0},
            "outputs": {"number": 2, "secret": "(sensitive value)"},
        }
        assert state_resources(configuration) == 2
        assert folders(tmp_path) == []

    harness.run_with_agent(plan)
    harness.run_with_agent(apply)


async def result_of_apply(d: Any, planned: Any) -> Any:
    """What the apply of a plan comes to, which must succeed."""
    one = msgspec.structs.replace(
        d.assignment("plan_and_apply", None, task=planned.task),
        attempt=2,
        input=planned.input,
        apply=True,
        plan_attempt=1,
    )
    await d.assign(one)
    end = await d.report(one.task, Succeeded, Failed)
    assert isinstance(end, Succeeded), end
    return msgspec.json.decode(end.result)


def test_an_apply_with_an_output_that_no_event_takes_tells_its_changes_all_the_same(
    harness: Any, configuration: Path
) -> None:
    (configuration / "deep.json").write_text("[" * DEEP + "]" * DEEP)
    (configuration / "deep.tf").write_text("""
resource "terraform_data" "deep" { input = file("${path.module}/deep.json") }
output "deep" { value = jsondecode(terraform_data.deep.output) }
""")

    async def scenario(d: Any) -> None:
        planned = d.assignment("plan_and_apply", {"directory": str(configuration), "variables": {"secret": "x"}})
        await d.assign(planned)
        shown = await d.report(planned.task, Planned, Failed)
        assert isinstance(shown, Planned), shown
        assert await result_of_apply(d, planned) == {
            "exit_code": 0,
            "changes": {"add": 2, "change": 0, "destroy": 0},
            "outputs": {},
            "outputs_omitted": True,
        }
        assert state_resources(configuration) == 2

    harness.run_with_agent(scenario)


def test_an_apply_without_its_plan_fails_for_good(harness: Any, configuration: Path) -> None:
    async def scenario(d: Any) -> None:
        what = {"directory": str(configuration)}
        one = d.assignment("plan_and_apply", what, attempt=2, apply=True, plan_attempt=1)
        one = msgspec.structs.replace(one, task=d.task())
        await d.assign(one)
        end = await d.report(one.task, Failed)
        assert (end.error.code, end.error.retryable) == ("plan_missing", False)

    harness.run_with_agent(scenario)


def test_a_cancelled_plan_is_forgotten(harness: Any, configuration: Path, tmp_path: Path) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("plan_and_apply", {"directory": str(configuration)})
        await d.assign(one)
        await d.report(one.task, Planned)
        assert folders(tmp_path) == [one.task]
        await d.cancel(one)
        await d.report(one.task, Planned, count=2)
        assert folders(tmp_path) == []

    harness.run_with_agent(scenario)


def test_a_wrong_configuration_fails_with_its_first_error(harness: Any, configuration: Path) -> None:
    async def scenario(d: Any) -> None:
        (configuration / "wrong.tf").write_text('output "wrong" { value = terraform_data.nothing.id }\n')
        one = d.assignment("plan", {"directory": str(configuration)})
        await d.assign(one)
        end = await d.report(one.task, Failed)
        assert (end.error.code, end.error.retryable) == ("exit_status", False)
        assert end.error.message.startswith("terraform plan ended with 1: Error: Reference to undeclared resource")

    harness.run_with_agent(scenario)


def test_a_directory_that_is_not_there_is_final(harness: Any) -> None:
    async def scenario(d: Any) -> None:
        one = d.assignment("plan", {"directory": "/no/such/directory"})
        await d.assign(one)
        end = await d.report(one.task, Failed)
        assert (end.error.code, end.error.retryable) == ("not_found", False)

    harness.run_with_agent(scenario)


def test_three_plans_of_one_directory_run_beside_each_other(harness: Any, configuration: Path) -> None:
    async def scenario(d: Any) -> None:
        what = {"directory": str(configuration)}
        tasks = [d.assignment("plan", what, slot=slot) for slot in range(3)]
        await d.assign(*tasks)
        for one in tasks:
            end = await d.report(one.task, Succeeded, Failed)
            assert isinstance(end, Succeeded), end
            assert len([r for r in await d.reports(one.task) if isinstance(r, Started)]) == 1

    harness.run_with_agent(scenario)


def test_a_long_apply_is_stopped_in_order_by_a_cancel(harness: Any, configuration: Path) -> None:
    async def scenario(d: Any) -> None:
        (configuration / "slow.tf").write_text(
            'resource "terraform_data" "slow" {\n  provisioner "local-exec" { command = "echo asleep; sleep 300" }\n}\n'
        )
        plan = d.assignment("plan_and_apply", {"directory": str(configuration)})
        await d.assign(plan)
        await d.report(plan.task, Planned)
        apply = msgspec.structs.replace(
            d.assignment("plan_and_apply"),
            task=plan.task,
            attempt=2,
            input=plan.input,
            apply=True,
            plan_attempt=1,
        )
        await d.assign(apply)

        async def sleeps() -> bool:
            return b"asleep" in await d.output(apply.task)

        await harness.until(sleeps)
        await d.cancel(apply, grace_seconds=10)
        assert (await d.report(apply.task, Failed)).error.code == "cancelled"
        json.loads((configuration / "terraform.tfstate").read_text())

    harness.run_with_agent(scenario)


def test_without_terraform_its_kinds_are_not_offered(harness: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskyard.agent.executors.terraform.find_program", lambda: None)

    async def scenario(d: Any) -> None:
        assert set(d.heartbeats[0].kinds) == {"command", "noop"}
        assert (await d.assign(d.assignment("plan", {"directory": "/x"})))[0].outcome == "declined"

    harness.run_with_agent(scenario)


def test_a_clean_stop_waits_longer_for_an_apply_than_for_anything_else(harness: Any, tmp_path: Path) -> None:
    folder = tmp_path / "slow"
    folder.mkdir()
    wait = f"touch {tmp_path}/applies; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done"
    provisioner = f'provisioner "local-exec" {{ command = "{wait}" }}'
    (folder / "main.tf").write_text(f'resource "terraform_data" "it" {{\n  {provisioner}\n}}\n')

    async def scenario(d: Any) -> None:
        async with harness.agent(d) as agent:
            plan = d.assignment("plan_and_apply", {"directory": str(folder)})
            await d.assign(plan)
            await d.report(plan.task, Planned)
            apply = msgspec.structs.replace(
                d.assignment("plan_and_apply"), task=plan.task, attempt=2, input=plan.input, apply=True, plan_attempt=1
            )
            command = d.assignment("command", {"script": "sleep 300"}, slot=1)
            await d.assign(apply, command)
            await d.report(command.task, Started)

            async def applies() -> bool:
                return (tmp_path / "applies").exists()

            await harness.until(applies)
            stopping = asyncio.create_task(agent.stop())
            assert (await d.report(command.task, Failed)).error.code == "worker_stopped"
            (tmp_path / "go").touch()
            await d.report(apply.task, Succeeded)
            await stopping

    harness.run(scenario)
