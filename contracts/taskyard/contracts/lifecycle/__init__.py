"""The life of a task: the one fold of a task's record, which settles every race by the order of the log.

All services fold with this function and so agree on every task at every position. It looks at the task's own record
and the event, never at slots, workers or settings. An event that is not legal where it stands is *void*: it is shown
in the history and changes nothing.

    pending → scheduled → assigned → dispatched → running → completed | failed | timeout | cancelled
                  ↑            plan_and_apply: running → apply_pending → (confirmed) → scheduled (on its reserved slot) → …
                  └── a retry, a delivery that failed, a lost worker

A slot is taken by `SlotAssigned` and held while `holds_slot`; nothing else gives or releases one. `fold` never fails.

transitions.py is the table; what an event does stands in the file that is named after its writer, and endings.py has what
they share. phases.py and record.py are what they change.
"""

from taskyard.contracts.lifecycle.dispatcher import DECLINES_REMEMBERED_MAX, DELIVERY_DELAYS_SECONDS, PLAN_MISSING
from taskyard.contracts.lifecycle.phases import ATTEMPT_OPEN, ENDED, ON_WORKER, STATUS_OF, Phase, Verdict
from taskyard.contracts.lifecycle.record import NO_INSTANT, TaskRecord, new_record
from taskyard.contracts.lifecycle.scheduler import CAUSE_CANCEL, CAUSE_SCHEDULE_TO_START, CAUSE_TIMEOUT, DISCARDED
from taskyard.contracts.lifecycle.transitions import TaskEvent, fold

__all__ = [
    "ATTEMPT_OPEN",
    "CAUSE_CANCEL",
    "CAUSE_SCHEDULE_TO_START",
    "CAUSE_TIMEOUT",
    "DECLINES_REMEMBERED_MAX",
    "DELIVERY_DELAYS_SECONDS",
    "DISCARDED",
    "ENDED",
    "NO_INSTANT",
    "ON_WORKER",
    "PLAN_MISSING",
    "STATUS_OF",
    "Phase",
    "TaskEvent",
    "TaskRecord",
    "Verdict",
    "fold",
    "new_record",
]
