"""The slot allocator: where a scheduled task runs.

Owns: workers (joining, silence, loss), slots, placement.
Consumes: the log, and heartbeats of agents.
Emits: WorkerJoined, WorkerSuspected, WorkerRecovered, WorkerLost, SlotAssigned.
Invariants: it alone gives slots, so none is given twice; a slot is free only when the fold of the task that had it says so;
only workers that live and take tasks get one; a confirmed apply gets the slot that was reserved for it and no other; tasks
are placed in the order of the log.

state.py folds, placement.py keeps idle slots and picks one, liveness.py watches heartbeats, decide.py chooses, app.py wires.
"""
