"""The simulator: the whole control plane in one process, under faults, from one seed.

Owns: a world with its own time, chance, network, disks and clocks; agents and clients in it; the checks of what came out.
Runs: the machines of scheduler, slot allocator and dispatcher, two instances of each, under the rules of
`taskyard.machine.core` and `taskyard.eventlog.append`, and the slot memory of the agent. These are the real code; what only
waits and talks (the loop around a machine, the agent around its memory) is told here once more, step by step.
Invariants: the same seed gives the same run; first everything may fail, then all is healed and everything must end.

time.py is the world's time and chance, streams.py the log, inputs and the network, instance.py a running machine, services.py
wires the three, agent.py and host.py are workers, clients.py people, faults.py what goes wrong, world.py puts it together,
checks.py judges (it knows the contracts only), run.py runs a seed, app.py many, defects.py shows that the checks bite.
"""
