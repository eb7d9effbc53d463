"""The read model: folds the log into PostgreSQL rows that the API reads.

Owns the tables of `migrations/`. Reads the log of every writer; emits nothing but rows and a notification
(`taskyard_position`, with the sequence of the last commit folded).

- Rows and log position change in one transaction, so they are never apart; the position row is also the fence between
  two instances: who finds it moved has written nothing, reads everything again and goes on behind the other.
- Everything in the rows follows from the log: `rebuild` makes them again beside the live ones and compares digests.
- It goes on from PostgreSQL alone: live tasks keep their folded record in their row.
- Nothing decides from these tables. While PostgreSQL is away the projector waits; the system goes on without it.
"""
