SELECT attempt, worker FROM taskyard.attempts WHERE task = $1
