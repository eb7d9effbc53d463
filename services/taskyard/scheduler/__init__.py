"""The scheduler: which task may run now.

Owns: validation, ids and idempotency, priority, queue and workspace rules, delays, retries, approval, cancel, settings.
Consumes: commands (TASKYARD_COMMANDS), and the log.
Emits: TaskSubmitted, CommandRejected, TaskScheduled, TaskStopRequested, ApplyConfirmed, ApplyDiscarded, ApprovalExpired,
ForceStopped, AttemptReleased, TaskReprioritised, and the settings of pools and queues.
Invariants: a task id is accepted once; at most one `plan_and_apply` of a queue is between its first TaskScheduled and its
end; in a queue tasks are scheduled by priority, then in order of submission; nothing is scheduled in a paused or locked
queue; a pool gets little more scheduled tasks than it has idle slots, so that all this bites until the last moment.

state.py folds (pools.py: pools and queues with their counts), agenda.py keeps what waits for a decision, known.py remembers
ids. decide.py chooses: intake.py and submissions.py decide on commands, admission.py on what may run. answers.py collects
outcomes for the doors, app.py wires.
"""
