SELECT DISTINCT pool, slots, kinds
FROM taskyard.workers
WHERE pool = ANY ($1) AND NOT lost AND NOT suspect AND NOT draining
