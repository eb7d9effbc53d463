-- Conditions and order are put together from fixed texts; values are always parameters.
SELECT id, kind, pool, queue, priority, phase, status, attempt, worker, slot, progress, error, result, changes,
    submitted_by, submitted_at, scheduled_at, started_at, finished_at, labels, retry_of, position, submitted, due,
    confirmed, locks_queue
FROM taskyard.tasks
WHERE {conditions}
ORDER BY {order}
LIMIT {limit}
