SELECT id FROM taskyard.tasks WHERE id = ANY ($1) AND submitted_by = $2
