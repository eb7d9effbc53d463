"""`taskyard bench`: how fast the whole system is on this machine, and what holds it back.

Owns: a run of the system in a folder of its own, as separate programs (`system`), the load on it over the doors that
everybody has (`load`), what its programs used (`usage`), and what the log says became of every task (`evidence`).

Two measurements, one after the other: throughput, by storing tasks as fast as the broker takes them until the read
model shows all of them completed; and latency, from submit to start at a rate that leaves the system mostly idle.
"""
