"""The service `api`: the doors for commands (HTTP and NATS requests), and reading over HTTP.

Owns nothing of the log. Reads PostgreSQL (the read model), the log and the output streams for live views, and the
answers of the scheduler. Writes commands only: it publishes to the stream of commands in the name of the principal
that asked. Invariants:

- What a door refuses (401, 403, 413, 422) was not stored; what was stored is answered by the scheduler's verdict, or
  with position null when that did not come in time.
- Every task and command that is stored bears an id, so storing it twice decides it once.
- No input leads to a 5xx; 503 and 504 say which part is away or behind, and commands are taken while PostgreSQL is away.
"""
