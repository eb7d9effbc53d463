"""`taskyard bench`: how fast the whole system is on this machine, what holds it back, and whether it stays so.

Owns: a run of the system in a folder of its own, as separate programs (`system`), the load on it over the doors that
everybody has (`load`), what its programs used (`usage`), and what the log says became of every task (`evidence`).

Three measurements: `throughput`, of tasks that are stored as fast as the broker takes them until the read model shows all of
them completed, and then latency, from submit to start at a rate that leaves the system mostly idle; `recovery`, of
starting after many finished tasks, whose log `history` writes; and `soak`, of memory under a steady load for minutes.
"""
