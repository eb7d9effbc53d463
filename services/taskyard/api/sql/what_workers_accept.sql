SELECT DISTINCT pool, slots, kinds, CASE WHEN suspect THEN worker END AS suspect, CASE WHEN suspect THEN reason END AS reason
FROM taskyard.workers
WHERE pool = ANY ($1) AND NOT lost AND NOT draining
