SELECT pool, queue, submitted_by FROM taskyard.tasks WHERE id = $1
