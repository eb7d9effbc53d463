"""The simulator: the whole control plane in one process, under faults, from one seed.

Owns: a world with its own time, chance, network, disks and clocks; agents and clients in it; faults, and defects to show
that they are noticed. What came of a run is judged by `taskyard.judge`, which knows the contracts only.
Runs: the machines of scheduler, slot allocator and dispatcher, two instances of each, under the rules of
`taskyard.machine.core` and `taskyard.eventlog.append`; the slot memory of the agent, its reasons to stop and to refuse, and
how it judges the mark of its journal; the projection into rows. These are the real code; what only waits and talks (the loop
around a machine, the agent around its memory) is told here once more, step by step.
Invariants: the same seed gives the same run; first everything may fail, then all is healed and everything must end; what is
drawn before a run (`acts.py`) has numbers, so that a failing run can be made smaller (`shrink.py`) and shown again.

time.py is the world's time and chance; streams.py, snapshots.py and network.py are what all stand on; instance.py,
following.py, reading.py and appending.py are a running machine, services.py wires the three; agent.py, attempts.py,
journal.py and host.py are workers; clients.py and reader.py are people; faults.py draws what goes wrong of service_faults.py,
upgrades.py, agent_faults.py and lies.py, and edge_faults.py its own and those of worker_faults.py; yard.py puts it together,
read_model.py and tables.py write its rows; evidence.py is what it leaves for the judge; run.py runs a seed, app.py many;
defects breaks rules.
"""
