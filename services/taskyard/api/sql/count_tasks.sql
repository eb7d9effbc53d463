-- $1: the one whose tasks are counted, null for everybody's.
SELECT kind, status, sum(tasks)::bigint AS tasks
FROM taskyard.counts
WHERE tasks > 0 AND ($1::text IS NULL OR submitted_by = $1)
GROUP BY kind, status
ORDER BY kind, status
