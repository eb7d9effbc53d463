-- A pause of the pool closes its queues as well: the queue's own one is told where there are both.
SELECT q.pool, q.queue, q.max_running, q.paused_by, q.paused_reason, q.paused_at, q.locked_by, q.locked_reason, q.locked_at,
    q.pending, q.scheduled, q.active,
    p.paused_by AS pool_paused_by, p.paused_reason AS pool_paused_reason, p.paused_at AS pool_paused_at
FROM taskyard.queues q
LEFT JOIN taskyard.pools p ON p.pool = q.pool
WHERE (q.pool, q.queue) > ($1, $2)
ORDER BY q.pool, q.queue
LIMIT $3
