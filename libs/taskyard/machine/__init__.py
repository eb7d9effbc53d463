"""Runs any pure machine on the log: recover, fold, take inputs exactly once, decide, append, then act.

`machine.py` says what a machine is; `core.py` holds the rules of the loop without I/O, so that a simulator can run the
very same; `loop.py` drives them with asyncio; `snapshots.py` shortens the
first fold; `service.py` makes a machine a running program.
"""
