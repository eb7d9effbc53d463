-- A workspace is one in all pools: who has it, and whose lock holds it, are found by its name.
DROP INDEX tasks_workspace;
CREATE INDEX tasks_workspace ON tasks (queue)
    WHERE exclusive AND scheduled_at IS NOT NULL AND finished_at IS NULL;
CREATE INDEX queues_locked ON queues (queue) WHERE locked_by IS NOT NULL;
