-- A kind has a row for each status from its first task on, so that rows do not depend on how events were gathered.
INSERT INTO counts (kind, status, tasks)
SELECT kinds.kind, statuses.status, 0
FROM (SELECT DISTINCT kind FROM counts) AS kinds
CROSS JOIN unnest(ARRAY[
    'pending', 'scheduled', 'assigned', 'dispatched', 'running', 'apply_pending', 'cancelling',
    'completed', 'failed', 'timeout', 'cancelled'
]) AS statuses (status)
ON CONFLICT (kind, status) DO NOTHING;

-- `tasks_finished` finds live tasks as well, in the same order: see `live` in the projector's store.
DROP INDEX tasks_live;

-- Who asks why a command was refused knows its id, or the task's.
CREATE INDEX rejections_command ON rejections (command);
CREATE INDEX rejections_task ON rejections (task) WHERE task IS NOT NULL;
