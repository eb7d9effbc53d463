"""What a running system tells of itself: traces, metrics and logs. It only watches; nothing is decided from it.

- `context` names traces and spans; it needs no library, so that an agent may use it too
- `spans` makes and sends spans, `task_spans` says which span each folded event of a task ends
- `metrics` is the one set of numbers of a process, read when somebody asks for `/metrics`
- `logs` makes every log line one JSON object; `event_lines` says which events become one

The names of all spans and metrics stand in `docs/telemetry.md`.
"""
