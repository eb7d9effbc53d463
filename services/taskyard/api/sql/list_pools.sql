SELECT p.pool, p.max_waiting, p.approval_timeout_seconds, p.placement, p.paused_by, p.paused_reason, p.paused_at,
    coalesce(q.pending, 0) AS pending, coalesce(q.scheduled, 0) AS scheduled, coalesce(q.active, 0) AS active,
    coalesce(w.workers, 0) AS workers
FROM taskyard.pools p
LEFT JOIN (
    SELECT pool, sum(pending)::bigint AS pending, sum(scheduled)::bigint AS scheduled, sum(active)::bigint AS active
    FROM taskyard.queues
    GROUP BY pool
) q ON q.pool = p.pool
LEFT JOIN (
    SELECT pool, count(*) AS workers FROM taskyard.workers WHERE NOT lost GROUP BY pool
) w ON w.pool = p.pool
WHERE p.pool > $1
ORDER BY p.pool
LIMIT $2
