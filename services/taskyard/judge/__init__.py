"""The judge of a run: what must be true of every log, and of what really ran, whoever made it run.

It takes `Evidence` (the stored bytes of the log; beside it, where there are any: stored commands, answers, processes that
witnesses saw, journals of agents, the read model) and gives a `Verdict`. The simulator, the chaos suite, the benchmark and
the scenarios ask the same judge.

It stands apart from the code that decides: it imports contracts only, and of these the forms of events and never the fold.
The life of a task is told once more here (`lives`), in a table of its own, so that a mistake in the fold of the contracts
is a difference and not a common error. `verdict` reads the log once and asks the others, each about its own rules (`faults`):

- no slot with two tasks, and what a slot takes: SLOT (`holdings`), and FENCE for what ran (`runs`);
- one `plan_and_apply` of a workspace: WORKSPACE (`holdings`), and FENCE (`runs`);
- no apply without its confirmation: CONFIRMATION (`verdict`, `verdicts`, `runs`); attempts only rise: ATTEMPTS (`verdict`);
- each accepted task ends once, and no end changes: ENDED_ONCE (`verdict`, `ends`), LOST and STUCK (`verdict`);
- no command decided twice, each whole in the commit that accounts for it: DECIDED_ONCE (`commands`), and REPORTED for what
  workers reported (`reports`), of a SIZE (`commits`);
- nothing runs after a fence: LOG (`commits`), VERSION (`versions`), FENCE and RAN_ONCE (`runs`), JOURNAL (`readers`);
- the read model equals the fold of the log: READ_MODEL (`readers`); what doors were told: ANSWERS (`commands`, `verdicts`);
- nothing out of turn or before its time: TURN (`turns`), EARLY (`timing`).
"""
