"""The event log: atomic commits in one totally ordered stream, fenced appends, gap-free following, and their twins.

`log.py` holds the ports (the log, and the input streams beside it), `jetstream.py` the real ones, `memory.py` their
twins for tests and the simulator. Beside them: `leases` (who runs), `snapshots` (where a fold may begin), `streams`
(how streams are made and checked), `durability` (whether the servers flush every write).
"""
