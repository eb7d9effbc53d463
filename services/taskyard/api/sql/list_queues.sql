SELECT pool, queue, max_running, paused_by, paused_reason, paused_at, locked_by, locked_reason, locked_at,
    pending, scheduled, active
FROM taskyard.queues
ORDER BY pool, queue
LIMIT $1
