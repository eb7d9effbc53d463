SELECT worker FROM taskyard.workers WHERE worker = ANY ($1)
UNION
(SELECT worker FROM taskyard.workers ORDER BY worker LIMIT $2)
