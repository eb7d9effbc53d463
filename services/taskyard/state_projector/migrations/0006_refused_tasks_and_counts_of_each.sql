-- Tasks of a batch that were refused, to be found by their ids: who, when and what stands in `rejections`.
-- One that was refused before this table came is found by the id of its batch alone, also after a rebuild.
CREATE TABLE refused_tasks (
    task text COLLATE "C" NOT NULL,
    position bigint NOT NULL,  -- of the refusal
    status integer NOT NULL,
    code text NOT NULL,
    message text NOT NULL,
    PRIMARY KEY (task, position)
);

-- Who may see own tasks only is told the numbers of those.
DROP TABLE counts;
CREATE TABLE counts (
    submitted_by text NOT NULL,
    kind text NOT NULL,
    status text NOT NULL,
    tasks bigint NOT NULL,
    PRIMARY KEY (submitted_by, kind, status)
);
INSERT INTO counts (submitted_by, kind, status, tasks)
SELECT submitted_by, kind, status, count(*) FROM tasks GROUP BY submitted_by, kind, status;
-- A submitter's kind has a row for each status from its first task on, so that rows do not depend on how events were gathered.
INSERT INTO counts (submitted_by, kind, status, tasks)
SELECT kinds.submitted_by, kinds.kind, statuses.status, 0
FROM (SELECT DISTINCT submitted_by, kind FROM counts) AS kinds
CROSS JOIN unnest(ARRAY[
    'pending', 'scheduled', 'assigned', 'dispatched', 'running', 'apply_pending', 'cancelling',
    'completed', 'failed', 'timeout', 'cancelled'
]) AS statuses (status)
ON CONFLICT (submitted_by, kind, status) DO NOTHING;
