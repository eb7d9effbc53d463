"""What-if replay: what a recorded log would have come to with other slots, workers or another policy.

Owns: reading.py (a stretch of a log and the state before it), recording.py (what it tells of commands, settings, workers
and durations, as recorded.py has them; pure), yard.py (the real machines of
scheduler, slot allocator and dispatcher on a log in memory, in simulated time), crew.py (workers that need the recorded
time for what they are given), measuring.py (waiting times, slot use, order; the same for the recorded log and the
replayed one; pure), comparing.py (what differs; pure), running.py (puts it together).
Invariants: the same log and settings give the same replay; nothing of the system that was recorded is touched;
durations and outcomes come from history, and what history does not tell is counted as estimated.
"""
