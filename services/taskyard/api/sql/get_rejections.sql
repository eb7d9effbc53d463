SELECT position, at, by, verb, status, code, message, errors
FROM taskyard.rejections
WHERE command = $1 OR task = $1
ORDER BY position
LIMIT $2
