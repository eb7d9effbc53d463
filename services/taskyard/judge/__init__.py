"""The judge of a run: what must be true of every log, and of what really ran, whoever made it run.

It takes `Evidence` (the stored bytes of the log; beside it, where there are any: stored commands, answers, processes that
witnesses saw, journals of agents, the read model) and gives a `Verdict`. The simulator, the chaos suite, the benchmark and
the scenarios ask the same judge.

It stands apart from the code that decides: it imports contracts only, and of these the forms of events and never the fold.
The life of a task is told once more here (`lives`), in a table of its own, so that a mistake in the fold of the contracts
is a difference and not a common error. `verdict` reads the log once and asks the others, each about its own rules (`faults`).
"""
