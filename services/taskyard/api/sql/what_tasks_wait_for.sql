-- $1 ids of waiting tasks, $2 now, $3 how many tasks ahead are counted at most.
-- What is ahead is counted between one wanted task and the next, so a page of tasks costs one pass over its queues.
WITH wanted AS (
    SELECT t.id, t.pool, t.queue, t.priority, t.submitted, t.exclusive,
        (SELECT h.id FROM taskyard.tasks h
         WHERE h.pool = t.pool AND h.queue = t.queue AND h.exclusive AND h.scheduled_at IS NOT NULL
             AND h.finished_at IS NULL AND h.id <> t.id
         ORDER BY h.submitted LIMIT 1) AS holder,
        lag(t.priority, 1, 0::smallint) OVER in_queue AS from_priority,
        lag(t.submitted, 1, 0::bigint) OVER in_queue AS from_submitted
    FROM taskyard.tasks t
    WHERE t.id = ANY ($1)
    WINDOW in_queue AS (PARTITION BY t.pool, t.queue ORDER BY t.priority, t.submitted)
), counted AS (
    SELECT w.*,
        (SELECT count(*) FROM (
            SELECT 1 FROM taskyard.tasks a
            WHERE a.pool = w.pool AND a.queue = w.queue AND a.phase IN ('pending', 'scheduled') AND NOT a.confirmed
                AND (a.priority, a.submitted) >= (w.from_priority, w.from_submitted)
                AND (a.priority, a.submitted) < (w.priority, w.submitted) AND a.due <= $2
            LIMIT $3) AS ahead) AS ahead
    FROM wanted w
)
SELECT c.id, c.holder,
    sum(c.ahead) OVER in_queue AS ahead,
    max(c.ahead) OVER in_queue >= $3 AS is_beyond_count,
    (SELECT a.id FROM taskyard.tasks a
     WHERE a.pool = c.pool AND a.queue = c.queue AND a.phase IN ('pending', 'scheduled') AND NOT a.confirmed
         AND (a.priority, a.submitted) < (c.priority, c.submitted) AND a.due <= $2
         AND NOT (a.exclusive AND NOT c.exclusive AND c.holder IS NOT NULL AND a.id <> c.holder)
     ORDER BY a.priority DESC, a.submitted DESC LIMIT 1) AS next_ahead,
    q.max_running, q.scheduled + q.active AS admitted, q.paused_by AS queue_paused_by,
    q.paused_reason AS queue_paused_reason, q.locked_by, q.locked_reason,
    p.paused_by AS pool_paused_by, p.paused_reason AS pool_paused_reason
FROM counted c
LEFT JOIN taskyard.queues q ON q.pool = c.pool AND q.queue = c.queue
LEFT JOIN taskyard.pools p ON p.pool = c.pool
WINDOW in_queue AS (PARTITION BY c.pool, c.queue ORDER BY c.priority, c.submitted)
