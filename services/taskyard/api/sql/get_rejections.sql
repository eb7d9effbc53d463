-- Refusals of the command, which bears the id of the task that it alone submits, or of the task as one of a batch.
SELECT position, at, by, verb, command, status, code, message, errors
FROM taskyard.rejections
WHERE command = $1
UNION ALL
SELECT r.position, r.at, r.by, r.verb, r.command, t.status, t.code, t.message, '[]'
FROM taskyard.refused_tasks t
JOIN taskyard.rejections r ON r.position = t.position
WHERE t.task = $1 AND r.command <> $1
ORDER BY position
LIMIT $2
