-- $1: lost workers that hold nothing are shown if they changed after this instant.
-- $2: the one who may see own tasks only, null for who sees all. `held` is JSON: [[slot, task, is reserved], …]
SELECT w.worker, w.pool, w.incarnation, w.joined_at, w.suspect, w.draining, w.lost, w.reason, w.labels, w.slots, w.closing, h.held
FROM taskyard.workers w
CROSS JOIN LATERAL (
    SELECT json_agg(json_build_array(t.slot, CASE WHEN $2::text IS NULL OR t.submitted_by = $2 THEN t.id END,
        t.phase IN ('apply_pending', 'scheduled')))::text AS held
    FROM taskyard.tasks t
    WHERE t.worker = w.worker AND t.holds_slot
) h
WHERE (NOT w.lost OR h.held IS NOT NULL OR w.changed_at > $1) AND w.worker > $3
ORDER BY w.worker
LIMIT $4
