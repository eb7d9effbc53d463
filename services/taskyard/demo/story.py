"""What the demo does, step by step."""

import asyncio
from collections.abc import Callable

from taskyard.demo.expectations import find_faults
from taskyard.demo.yard import Yard

NOOPS = 20

WORKS = """
variable "size" { default = 1 }
resource "terraform_data" "machine" { input = var.size }
output "size" { value = terraform_data.machine.output }
"""
FAILS = """
variable "size" { default = 1 }
resource "terraform_data" "machine" {
  input = var.size
  lifecycle {
    precondition {
      condition     = var.size > 1
      error_message = "this machine is not to be built"
    }
  }
}
"""
SAYS = "for i in 1 2 3 4 5; do echo line $i; sleep 0.4; done"

Note = Callable[[str], None]


async def tell(yard: Yard, note: Note) -> list[str]:
    """Run the story; what is not as expected in any history."""
    await _plans(yard, note)
    await _approvals(yard, note)
    await _troubles(yard, note)
    await _kills(yard, note)
    return await find_faults(yard)


async def _plans(yard: Yard, note: Note) -> None:
    note("Three plans at once on one worker: slots 0, 1 and 2")
    for number in (1, 2, 3):
        directory = yard.configuration(f"net-{number}", WORKS)
        await yard.submit(f"plan {number}", "plan", {"directory": directory}, queue=f"net-{number}")
    for number in (1, 2, 3):
        await yard.reach(f"plan {number}", "completed")


async def _approvals(yard: Yard, note: Note) -> None:
    note(
        "A change is planned and waits for a person, its slot reserved; the next one of the same workspace waits for it"
    )
    directory = yard.configuration("prod", WORKS)
    await yard.submit("change A", "plan_and_apply", {"directory": directory, "variables": {"size": 3}}, queue="prod")
    await yard.submit("change B", "plan_and_apply", {"directory": directory, "variables": {"size": 4}}, queue="prod")
    await yard.reach("change A", "apply_pending")
    note("Plans go on beside the reserved slot")
    await yard.submit("plan beside", "plan", {"directory": directory}, queue="prod")
    await yard.reach("plan beside", "completed")
    note("Confirm the first; it applies exactly the plan that was shown, then the second is planned")
    await yard.act("change A", "confirm", comment="looks right")
    await yard.reach("change A", "completed")
    await yard.reach("change B", "apply_pending")
    note("Discard the second")
    await yard.act("change B", "discard", comment="not today")
    await yard.reach("change B", "cancelled")


async def _troubles(yard: Yard, note: Note) -> None:
    note(
        "A configuration that fails, a command with live output, a long task that is cancelled, and one that takes too long"
    )
    await yard.submit("broken plan", "plan", {"directory": yard.configuration("broken", FAILS)}, queue="broken")
    await yard.submit("talker", "command", {"script": SAYS})
    await yard.submit("too slow", "command", {"argv": ["sleep", "60"]}, timeout_seconds=1)
    await yard.submit("long", "command", {"argv": ["sleep", "600"]})
    await yard.reach("talker", "running")
    while not (said := await yard.output("talker")):
        await asyncio.sleep(0.1)
    note(f"Live output while it runs: {said.splitlines()[0]!r}")
    await yard.reach("talker", "completed")
    await yard.reach("broken plan", "failed")
    await yard.reach("too slow", "timeout")
    await yard.reach("long", "running")
    await yard.act("long", "cancel", reason="changed my mind")
    await yard.reach("long", "cancelled")


async def _kills(yard: Yard, note: Note) -> None:
    note("kill -9 of the worker while it runs a command, which goes on")
    await yard.submit("survivor", "command", {"argv": ["sleep", "2"]})
    await yard.reach("survivor", "running")
    await yard.kill("worker-1")
    note(f"kill -9 of the scheduler with {NOOPS} tasks on their way")
    for number in range(NOOPS):
        await yard.submit(f"noop {number}", "noop", {"number": number}, priority=9)
    await yard.kill("scheduler")
    await yard.reach("survivor", "completed")
    for number in range(NOOPS):
        await yard.reach(f"noop {number}", "completed")
    note("Nothing was lost; the last table and the histories follow")
