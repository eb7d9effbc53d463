"""The agent: runs things on one host or pod, one attempt a slot.

Owns: what happens on this host, the memory of its slots (`slots.py`, kept by `journal.py`), kept plans.
Consumes: `taskyard.agent.<self>.assign` and `.cancel`, answered at once.
Emits: reports and output (stored in JetStream), heartbeats.

Invariants: an assignment is known by its log position and never begins twice, and never in a slot whose process
lives; an answer is given only after it is on disk; a program runs only after its process id is on disk; the end of an
attempt is reported only when all that it started is dead, and kept on disk until JetStream has it. Programs belong to
the supervisor (`supervisor/`), which outlives the agent: an agent that comes again takes over what runs there.
"""
