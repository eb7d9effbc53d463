"""The dispatcher: one attempt, from its slot to its end.

Owns: delivery, acceptance, start, progress, plan, end, timeout and stopping of attempts.
Consumes: the log, reports of agents, which it has stored (TASKYARD_REPORTS), and their answers to its requests.
Emits: TaskDispatched, TaskStarted, TaskProgressed, TaskPlanned, AttemptSucceeded, AttemptFailed, AttemptLost, NotDelivered,
TaskStopRequested (cause timeout).
Invariants: an attempt is sent until its agent answers or its worker is lost; that nobody listened proves something only of
the first and only copy sent by this leader, and no copy follows after that was decided; a stop is repeated until the log
shows the end; what is told of another attempt changes nothing.

state.py folds, delivery.py keeps what is to be sent, decide.py chooses, requests.py talks to agents, app.py wires.
"""
