SELECT position, at, type, writer, by, void, event
FROM taskyard.history
WHERE task = $1 AND position > $2
ORDER BY position
LIMIT $3
