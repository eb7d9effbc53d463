SELECT attempt, worker, slot, assigned_at, started_at, finished_at, outcome
FROM taskyard.attempts
WHERE task = $1
ORDER BY attempt
