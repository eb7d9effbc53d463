SELECT pool FROM taskyard.pools WHERE pool = ANY ($1)
UNION
(SELECT pool FROM taskyard.pools ORDER BY pool LIMIT $2)
