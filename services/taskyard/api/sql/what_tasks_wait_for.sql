-- $1 ids of waiting tasks, $2 now, $3 how far into a queue places are told.
-- A workspace is one in all pools: who has it, and a lock that holds the tasks that lock it, may be of another pool.
-- Places are counted in one pass over the front of each queue, whatever the number of wanted tasks.
WITH wanted AS (
    SELECT id, pool, queue, priority, submitted, locks_queue,
        (SELECT h.id FROM taskyard.tasks h
         WHERE h.queue = t.queue AND h.locks_queue AND h.scheduled_at IS NOT NULL
             AND h.finished_at IS NULL AND h.id <> t.id
         ORDER BY h.submitted LIMIT 1) AS holder
    FROM taskyard.tasks t
    WHERE id = ANY ($1)
), placed AS MATERIALIZED (
    SELECT front.submitted,
        count(*) FILTER (WHERE front.due <= $2) OVER (
            PARTITION BY q.pool, q.queue ORDER BY front.priority, front.submitted
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS ahead
    FROM (SELECT DISTINCT pool, queue FROM wanted) q
    CROSS JOIN LATERAL (
        SELECT a.priority, a.submitted, a.due FROM taskyard.tasks a
        WHERE a.pool = q.pool AND a.queue = q.queue AND a.phase IN ('pending', 'scheduled') AND NOT a.confirmed
        ORDER BY a.priority, a.submitted LIMIT $3) front
)
SELECT w.id, w.holder, placed.ahead,
    (SELECT a.id FROM taskyard.tasks a
     WHERE a.pool = w.pool AND a.queue = w.queue AND a.phase IN ('pending', 'scheduled') AND NOT a.confirmed
         AND (a.priority, a.submitted) < (w.priority, w.submitted) AND a.due <= $2
         AND NOT (a.locks_queue AND NOT w.locks_queue AND w.holder IS NOT NULL AND a.id <> w.holder)
     ORDER BY a.priority DESC, a.submitted DESC LIMIT 1) AS next_ahead,
    q.max_running, q.scheduled + q.active AS admitted, q.paused_by AS queue_paused_by,
    q.paused_reason AS queue_paused_reason, q.paused_at AS queue_paused_at,
    l.pool AS locked_pool, l.locked_by, l.locked_reason, l.locked_at,
    p.paused_by AS pool_paused_by, p.paused_reason AS pool_paused_reason, p.paused_at AS pool_paused_at, p.aside
FROM wanted w
LEFT JOIN placed ON placed.submitted = w.submitted
LEFT JOIN taskyard.queues q ON q.pool = w.pool AND q.queue = w.queue
LEFT JOIN taskyard.pools p ON p.pool = w.pool
LEFT JOIN LATERAL (
    SELECT k.pool, k.locked_by, k.locked_reason, k.locked_at FROM taskyard.queues k
    WHERE k.queue = w.queue AND k.locked_by IS NOT NULL AND (w.locks_queue OR k.pool = w.pool)
    ORDER BY k.pool <> w.pool, k.pool LIMIT 1) l ON true
