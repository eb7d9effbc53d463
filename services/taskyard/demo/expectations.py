"""What the history of each task of the story must be."""

from taskyard.demo.yard import Yard

LEFT_OUT = frozenset({"TaskProgressed", "WorkerSuspected", "WorkerLost", "WorkerJoined"})
"""What may stand in a history or not, as time falls: progress, and what is told of a killed worker."""

BEGUN = ("SlotAssigned", "TaskDispatched", "TaskStarted")
RUN = ("TaskSubmitted", "TaskScheduled", *BEGUN)
SUCCEEDED = (*RUN, "AttemptSucceeded")

EXPECTED: dict[str, tuple[str, ...]] = {
    "plan 1": SUCCEEDED,
    "plan 2": SUCCEEDED,
    "plan 3": SUCCEEDED,
    "plan beside": SUCCEEDED,
    "change A": (*RUN, "TaskPlanned", "ApplyConfirmed", "TaskScheduled", *BEGUN, "AttemptSucceeded"),
    "change B": (*RUN, "TaskPlanned", "ApplyDiscarded"),
    "broken plan": (*RUN, "AttemptFailed"),
    "talker": SUCCEEDED,
    "too slow": (*RUN, "AttemptFailed"),
    "long": (*RUN, "TaskStopRequested", "AttemptFailed"),
    "survivor": SUCCEEDED,
}


async def find_faults(yard: Yard) -> list[str]:
    """Each task whose history, without what is left out and what had no effect, is not as expected."""
    faults: list[str] = []
    for name in yard.tasks:
        history = await yard.history(name)
        types = tuple(item["type"] for item in history if not item["void"] and item["type"] not in LEFT_OUT)
        expected = EXPECTED.get(name, SUCCEEDED)
        if types != expected:
            faults.append(f"{name}: {' → '.join(types)}, not {' → '.join(expected)}")
    slots = [(await yard.see(f"plan {number}"))["slot"] for number in (1, 2, 3)]
    if slots != [0, 1, 2]:
        faults.append(f"the three plans had the slots {slots}")
    return faults
