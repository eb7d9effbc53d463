"""The event log: atomic commits in one totally ordered stream, fenced appends, gap-free following, and their twins.

`log.py` holds the ports (the log, and the input streams beside it), `jetstream.py` the real ones, `memory.py` their
twins for tests and the simulator. Beside them: `leases` (who runs), `snapshots` (where a fold may begin), `streams`
(how streams are made and checked), `durability` (whether the servers flush every write), `versions` (what the log
means), `space` (how much room it has).

A log over years: `slices` and `anonymising` (parts of it as files), `archive` and `archive_stores` (all of it as files),
`copying` and `archiving` (into files and other servers), `generation` and `tiered` (its beginning left to the archive).
"""
